"""From an intent to its receipt, for a command: fee and effect, confirmation, the chain writer, the outcome.

In: an intent, the reference of its key, the effect in words and numbers. Out: the exit status; the receipt is printed.
Nothing is sent without --yes or a yes typed at a terminal, and the key is opened after that.
The state folder holds one journal per (chain, signer), used by one command at a time. While the fate of an order is
unknown, the next order is refused, so that a second attempt never pays twice.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from raytensor.chain import ss58
from raytensor.chain.calls import Intent
from raytensor.chain.named_call import NamedCall
from raytensor.chain.reads.quotes import fee, spend
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.connection import RpcError
from raytensor.chain.rpc.head import Head
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.policy import Policy, read_policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.commands import options
from raytensor.commands.options import POLICY_ENV, network, state_folder
from raytensor.commands.output import show_json, table, tao
from raytensor.commands.sender import Sender
from raytensor.errors import ChainRefused, ConfigError, FateUnknown
from raytensor.types import Fate, Receipt

# The user's confirmation is the permission; a policy file limits it further.
PERMISSIVE = Policy(transfers=True, unstaking=True, proxies=True, calls=True)
PUBLIC_NAMES = ("Alice", "Bob", "Charlie", "Dave", "Eve", "Ferdie", "Alice//stash", "Bob//stash")
FINAL_POLL_S = 0.25


def order_id(args: argparse.Namespace) -> str:
    """The intent's id: --id, or a random one."""
    if args.id is None:
        return uuid.uuid4().hex
    if not re.fullmatch(r"[\w.:-]{1,100}", args.id, re.ASCII):
        raise ConfigError(f"--id {args.id!r}: give 1 to 100 letters, digits and .:-_")
    return args.id


def send(args: argparse.Namespace, client: ChainClient, intent: Intent, who: Sender, what: str, effect: dict) -> int:
    """Print the plan; unless --dry-run, ask for confirmation, send, wait and print the receipt.

    what: the order in one line. effect: its effect by stable names; amounts end in _rao and are printed in TAO.
    """
    return send_all(args, client, [intent], who, what, effect)


def send_all(
    args: argparse.Namespace, client: ChainClient, intents: Sequence[Intent], who: Sender, what: str, effect: dict
) -> int:
    """`send` of several intents of one signer, in one extrinsic where they fit. One plan, a receipt for each."""
    for intent in intents:
        refuse_development_keys(args, client, intent)
    plan = _plan(client, intents, who, what, effect)
    if not args.json:
        _show_plan(plan)
    if args.dry_run:
        if args.json:
            show_json({"plan": plan, "receipt": None})
        else:
            print("dry run: nothing was sent")
        return 0
    if any(intent.moves for intent in intents):
        confirm(args, "Send it?")
    return _print_outcome(args, plan, submit(args, client, who.orders(client, list(intents)), who))


def resume(args: argparse.Namespace, client: ChainClient, who: Sender, **given: Any) -> int | None:
    """Finish the earlier order that --id names: print its receipt, return the exit status. None if there is none.

    given: the fields of the order on the command line. Raises ConfigError if they differ from the earlier order's.
    """
    file = journal_file(args, client, who.key.ss58)
    if args.id is None or args.dry_run or not file.exists():
        return None
    own = order_id(args)
    with contextlib.closing(Journal(file)) as journal:
        ids = [name for (name,) in journal.rows("SELECT intent_id FROM intents ORDER BY rowid")]
        ids = [name for name in ids if name == own or re.fullmatch(rf"{re.escape(own)}\.\d+", name)]
        known = [journal.known_intent(name) for name in ids]
        receipts = [journal.receipt(name) for name in ids]
    if not known:
        return None
    for intent in known:
        if any(_field(intent, who, name, value) != value for name, value in given.items()):
            raise ConfigError(f"--id {args.id} is the id of another order ({intent.name}): choose a new one")
    if all(receipt is not None and receipt.fate.final and not receipt.fate.done for receipt in receipts):
        return None  # it had no effect, so it is sent again
    return _print_outcome(args, None, submit(args, client, known, who))


def _field(intent: Intent, who: Sender, name: str, value: Any) -> Any:
    """A field of an earlier order; of a multisig's, the argument of the call that it approves."""
    if who.threshold and isinstance(intent, NamedCall):
        (inner,) = intent.call().inner() or (intent.call(),)
        return json.dumps(inner.to_json()) if name == "call_json" else inner.args.get(name, value)
    return getattr(intent, name, None)


Outcome = tuple[Receipt, Head | None]  # and the final block, where --finalized has seen it


def _print_outcome(args: argparse.Namespace, plan: dict | None, outcomes: Sequence[Outcome]) -> int:
    """Print receipts, and the final blocks where they were waited for. Returns the exit status."""
    if args.json:
        found = []
        for receipt, final in outcomes:
            found.append({**dataclasses.asdict(receipt), "fate": receipt.fate.value})
            if args.finalized:
                found[-1]["finalized"] = final and {"block": final.number, "hash": final.hash}
        bad = [place for place, (receipt, final) in enumerate(outcomes) if not _is_enough(args, receipt, final)]
        several = {"receipts": found} if len(found) > 1 else {}
        show_json({"plan": plan, "receipt": found[bad[0] if bad else 0], **several})
        return 1 if bad else 0
    return max([_show_outcome(args, *outcome) for outcome in outcomes])


def _is_enough(args: argparse.Namespace, receipt: Receipt, final: Head | None) -> bool:
    return _is_done(receipt) and (final is not None or not args.finalized)


def _show_outcome(args: argparse.Namespace, receipt: Receipt, final: Head | None) -> int:
    done = _is_done(receipt)
    show_receipt(receipt)
    if args.finalized and done:
        if final is None:
            print(f"block {receipt.block} is not final after {args.wait:g} s: run it again with --id", file=sys.stderr)
            print(f"  --id {receipt.intent_id} looks again, and pays nothing twice", file=sys.stderr)
            return 1
        print(f"final in block {final.number}, {final.hash}")
    return 0 if done else 1


def refuse_development_keys(args: argparse.Namespace, client: ChainClient, intent: Intent) -> None:
    """Raise ConfigError for a key that everybody can derive, except on a development chain."""
    public = {DevKey(f"//{name}").ss58: f"//{name}" for name in PUBLIC_NAMES}
    named = [
        *options.development_keys(args),
        *(public[one] for one in vars(intent).values() if isinstance(one, str) and one in public),
    ]
    if named and not is_development(client):
        what = f"{named[0]} is a development key, which everybody can sign with, and {client.endpoint} is a live chain"
        raise ConfigError(f"{what}: give an address or a wallet")


def is_development(client: ChainClient) -> bool:
    """Whether the node says that its chain is one for development."""
    try:
        return client.rpc("system_chainType") in ("Development", "Local")
    except RpcError:  # a node that does not say it is taken for a live one
        return False


def afford(client: ChainClient, intent: Intent, cost_rao: int | None = None) -> None:
    """Raise ChainRefused if the signer's balance does not cover the amount, the fee and the deposit.

    cost_rao  the amount; by default what the intent may spend.
    """
    need = (spend(client, intent) if cost_rao is None else cost_rao) + fee(client, intent)
    free = client.balance(intent.signer)
    deposit = client.constant("Balances", "ExistentialDeposit")
    if free < need + deposit:
        message = f"{intent.signer} has {tao(free)} TAO, and {tao(need + deposit)} TAO are needed (deposit included)"
        raise ChainRefused(message, name="InsufficientBalance", action="fix: fund the signing account")


def confirm(args: argparse.Namespace, question: str) -> None:
    """Return if the user confirms. Raises ConfigError without a terminal, ChainRefused for another answer than yes."""
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("standard input is no terminal: add --yes to send without a question, or --dry-run")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ChainRefused("nothing was sent: the order was not confirmed", name="NotConfirmed")


def submit(args: argparse.Namespace, client: ChainClient, intents: Sequence[Intent], who: Sender) -> list[Outcome]:
    """Send intents of one account through the chain writer. Returns their receipts, after at most --wait seconds.

    With --finalized also the block that has it, once it is final; None if it is not final after --wait more seconds.
    """
    file = journal_file(args, client, who.key.ss58)
    with writer(args, file, who) as one:
        _check_journal(file, {intent.intent_id for intent in intents})
        receipts = one.submit(intents)
        if not args.finalized:
            return [(receipt, None) for receipt in receipts]
        return [_wait_final(args, client, one, *pair) for pair in zip(intents, receipts, strict=True)]


def _is_done(receipt: Receipt) -> bool:
    return receipt.fate.done or receipt.fate is Fate.COMMITTED


def _wait_final(
    args: argparse.Namespace, client: ChainClient, one: ChainWriter, intent: Intent, receipt: Receipt
) -> Outcome:
    """Wait until the block of a receipt is final. A block that leaves the chain meanwhile is followed to the next."""
    end, shown = time.monotonic() + args.wait, -1
    while _is_done(receipt) or receipt.fate is Fate.UNKNOWN:
        final = client.finalized()
        if _is_done(receipt) and receipt.block is not None and final.number >= receipt.block:
            head, hashes = client.block(client.block_hash(receipt.block))
            if receipt.extrinsic_hash in hashes:
                return receipt, head
        if time.monotonic() >= end:
            return receipt, None
        if final.number != shown:
            shown = final.number
            print(f"in block {receipt.block}; final up to block {shown}", file=sys.stderr)
        time.sleep(FINAL_POLL_S)
        if receipt.fate is not Fate.COMMITTED:
            receipt = one.submit([intent])[0]  # from the journal; after a reorganization the writer watches it again
    return receipt, None


@contextlib.contextmanager
def writer(args: argparse.Namespace, file: Path, who: Sender) -> Iterator[ChainWriter]:
    """A chain writer for one key, on its journal in the state folder."""
    path = args.policy or os.environ.get(POLICY_ENV)
    settings = WriterSettings(
        timeout_s=args.timeout,
        inclusion_timeout_s=args.wait,
        policy=read_policy(path) if path else PERMISSIVE,
        audit_path=file.parent / "audit.jsonl",
        owner="a raytensor command",
        stop_on_foreign=False,
        commit_kind=getattr(args, "commit_by", None),
    )
    signers, delegate = ({}, who.key) if who.is_proxy else ({who.key.ss58: who.key}, None)
    with _locked(file):
        with contextlib.closing(ChainWriter(network(args), signers, file, settings, delegate=delegate)) as made:
            yield made


def journal_file(args: argparse.Namespace, client: ChainClient, signer: str) -> Path:
    return state_folder(args) / f"{client.genesis[2:10]}-{signer}.db"


def show_receipt(receipt: Receipt) -> None:
    if _is_done(receipt):
        word = {Fate.COMMITTED: "committed", Fate.REVEALED: "revealed"}.get(receipt.fate, "done")
        print(f"{word} in block {receipt.block}, fee {tao(receipt.fee_rao)} TAO")
        print(f"extrinsic {receipt.extrinsic_hash}")
        if receipt.fate is Fate.COMMITTED:
            timelocked = "timelocked" in (receipt.call or "")
            kind = "timelocked: the chain reveals" if timelocked else "by hash: `raytensor weights reveal` must reveal"
            print(f"committed {kind} the weights at about block {receipt.until}; they take effect then")
            print("`raytensor weights commitments` lists pending commits")
        return
    words = {Fate.NOT_SENT: "not sent", Fate.UNKNOWN: "sent, but not in a block yet"}
    print(f"{words.get(receipt.fate, receipt.fate.value)}: {receipt.error}", file=sys.stderr)
    if receipt.action:
        print(f"  {receipt.action}", file=sys.stderr)
    if receipt.fate is Fate.UNKNOWN:
        print(f"  run the same command with --id {receipt.intent_id} to look again", file=sys.stderr)


def _plan(client: ChainClient, intents: Sequence[Intent], who: Sender, what: str, effect: dict) -> dict[str, Any]:
    first, way = intents[0], who.effect(client, intents[0])
    return {
        "order": what,
        "call": first.name,
        "intent_id": first.intent_id,
        "signer": who.key.ss58,
        "endpoint": client.endpoint,
        "fee_rao": sum(_fee(client, intent, who) for intent in intents),  # one extrinsic of them all costs less
        "effect": way | effect,
    }


def _fee(client: ChainClient, intent: Intent, who: Sender) -> int:
    if who.ss58 == who.key.ss58:
        return fee(client, intent)
    signer = who.key.ss58
    return client.fee(who.carried(client, intent.call()), ss58.decode(signer), client.account_nonce(signer))[0]


def _show_plan(plan: dict[str, Any]) -> None:
    rows = {"signer": plan["signer"], "chain": plan["endpoint"], "fee_rao": plan["fee_rao"], **plan["effect"]}
    print(plan["order"])
    for name, value in rows.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            print(table(list(value[0]), [list(row.values()) for row in value]))
            continue
        if isinstance(value, int) and name.endswith("_rao"):
            unit = "alpha" if "alpha" in name else "TAO"
            name, value = name.removesuffix("_rao").removesuffix("_alpha"), f"{tao(value)} {unit}"
        print(f"  {name.replace('_', ' '):<20} {value}")


def _check_journal(file: Path, ids: set[str]) -> None:
    """Raise FateUnknown while the fate of another earlier extrinsic is unknown."""
    with contextlib.closing(Journal(file)) as journal:
        for extrinsic in journal.open_extrinsics():
            if not ids & set(extrinsic.intent_ids):
                sent = f"extrinsic {extrinsic.hash}, valid until block {extrinsic.death}"
                message = f"the fate of an earlier order of {extrinsic.signer} is unknown ({sent})"
                raise FateUnknown(f"{message}: run this command again after that block")


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Lock a journal for this process. Raises ChainRefused if another one has it."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(f"{file}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message, action = f"another command is sending for this key ({file})", "wait: until that command has ended"
            raise ChainRefused(message, name="KeyInUse", action=action) from error
        yield
