"""From an intent to its receipt, for a person: fee and effect, confirmation, the writer, what became of it.

In: an intent, the reference of its key, the effect in words and numbers. Out: the exit status, after the receipt was
printed. Money moves only with --yes or a yes typed at a terminal; where standard input is none, nobody is asked.
The journal of each (chain, signer) lies in the state folder: an order whose fate is not known yet keeps the next one
back, so that a second try never pays twice. One command per journal at a time. The key is opened after the yes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import os
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raytensor.chain.calls import Intent
from raytensor.chain.reads.quotes import fee, spend
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import KeyRef
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.policy import Policy, read_policy
from raytensor.chain.writer.writer import ChainWriter
from raytensor.commands.options import POLICY_ENV, network, state_folder
from raytensor.commands.output import show_json, tao
from raytensor.errors import ChainRefused, ConfigError, FateUnknown
from raytensor.types import Fate, Receipt

# A person at the keyboard (or --yes) is the permission; a policy file limits even that.
PERMISSIVE = Policy(transfers=True, unstaking=True, proxies=True)


def order_id(args: argparse.Namespace) -> str:
    """The intent's id: --id, or one of its own."""
    if args.id is None:
        return uuid.uuid4().hex
    if not re.fullmatch(r"[\w.:-]{1,100}", args.id, re.ASCII):
        raise ConfigError(f"--id {args.id!r}: 1 to 100 letters, digits and .:-_")
    return args.id


def send(args: argparse.Namespace, client: ChainClient, intent: Intent, key: KeyRef, what: str, effect: dict) -> int:
    """Shows the plan; with --dry-run that is all. Else confirms, sends, waits and prints the receipt.

    what: the order in one line; effect: more of it, by stable names (amounts end in _rao and are shown in TAO).
    """
    plan = _plan(client, intent, what, effect)
    if not args.json:
        _show_plan(plan)
    if args.dry_run:
        if args.json:
            show_json({"plan": plan, "receipt": None})
        else:
            print("dry run: nothing was sent")
        return 0
    if intent.moves:
        confirm(args, "Send it?")
    return _tell(args, plan, deliver(args, client, intent, key))


def resume(args: argparse.Namespace, client: ChainClient, key: KeyRef, **given: Any) -> int | None:
    """Where --id names an order that was carried out or may have been: its receipt is printed, and the status returned.

    given: fields of the order as the command line has them. Raises ConfigError if the known order has others.
    """
    file = journal_file(args, client, key.ss58)
    if args.id is None or args.dry_run or not file.exists():
        return None
    journal = Journal(file)
    try:
        known, receipt = journal.intent(order_id(args)), journal.receipt(order_id(args))
    finally:
        journal.close()
    if known is None:
        return None
    if any(getattr(known, name, None) != value for name, value in given.items()):
        raise ConfigError(f"--id {args.id} is the name of another order ({known.name}): choose a new one")
    if receipt is not None and receipt.fate.final and not receipt.fate.done:
        return None  # it had no effect: it may be tried anew
    return _tell(args, None, deliver(args, client, known, key))


def _tell(args: argparse.Namespace, plan: dict | None, receipt: Receipt) -> int:
    if args.json:
        show_json({"plan": plan, "receipt": {**dataclasses.asdict(receipt), "fate": receipt.fate.value}})
    else:
        show_receipt(receipt)
    return 0 if receipt.fate.done or receipt.fate is Fate.COMMITTED else 1


def afford(client: ChainClient, intent: Intent) -> None:
    """Raises ChainRefused if the signer's balance does not cover what the intent spends, its fee and the deposit."""
    need = (spend(client, intent) or 0) + fee(client, intent)
    free = client.balance(intent.signer)
    deposit = client.constant("Balances", "ExistentialDeposit")
    if free < need + deposit:
        message = f"{intent.signer} has {tao(free)} TAO, and {tao(need + deposit)} TAO are needed (deposit included)"
        raise ChainRefused(message, name="InsufficientBalance", action="fix: fund the signing account")


def confirm(args: argparse.Namespace, question: str) -> None:
    """Returns if the answer is yes. Raises ConfigError where nobody can be asked, ChainRefused for a no."""
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("standard input is no terminal, so nobody can be asked: add --yes to send, or --dry-run")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ChainRefused("nothing was sent: the answer was no", name="NotConfirmed")


def deliver(args: argparse.Namespace, client: ChainClient, intent: Intent, key: KeyRef) -> Receipt:
    """The receipt of the intent, after at most --wait seconds."""
    file = journal_file(args, client, intent.signer)
    with writer(args, file, intent.signer, key) as one:
        _check_journal(file, intent)
        return one.submit([intent])[0]


@contextlib.contextmanager
def writer(args: argparse.Namespace, file: Path, signer: str, key: KeyRef) -> Iterator[ChainWriter]:
    """The writer of one key on this program's journal."""
    path = args.policy or os.environ.get(POLICY_ENV)
    policy = read_policy(path) if path else PERMISSIVE
    with _alone(file):
        made = ChainWriter(
            network(args),
            {signer: key},
            file,
            timeout_s=args.timeout,
            inclusion_timeout_s=args.wait,
            policy=policy,
            audit_path=file.parent / "audit.jsonl",
            owner="a raytensor command",
            stop_on_foreign=False,
            commit_kind=getattr(args, "commit_by", None),
        )
        try:
            yield made
        finally:
            made.close()


def journal_file(args: argparse.Namespace, client: ChainClient, signer: str) -> Path:
    return state_folder(args) / f"{client.genesis[2:10]}-{signer}.db"


def show_receipt(receipt: Receipt) -> None:
    if receipt.fate.done or receipt.fate is Fate.COMMITTED:
        did = {Fate.COMMITTED: "committed", Fate.REVEALED: "revealed"}.get(receipt.fate, "done")
        print(f"{did} in block {receipt.block}, fee {tao(receipt.fee_rao)} TAO")
        print(f"extrinsic {receipt.extrinsic_hash}")
        if receipt.fate is Fate.COMMITTED:
            print(
                f"the weights count once they are revealed, about block {receipt.until}: see raytensor weights commitments"
            )
        return
    words = {
        Fate.FAILED: "failed",
        Fate.NOT_SENT: "not sent",
        Fate.UNKNOWN: "sent, and no block has it yet",
        Fate.HELD: "held",
    }
    print(f"{words[receipt.fate]}: {receipt.error}", file=sys.stderr)
    if receipt.action:
        print(f"  {receipt.action}", file=sys.stderr)
    if receipt.fate is Fate.UNKNOWN:
        print(f"  to look again: the same command with --id {receipt.intent_id}", file=sys.stderr)


def _plan(client: ChainClient, intent: Intent, what: str, effect: dict) -> dict[str, Any]:
    return {
        "order": what,
        "call": intent.name,
        "intent_id": intent.intent_id,
        "signer": intent.signer,
        "endpoint": client.endpoint,
        "fee_rao": fee(client, intent),
        "effect": effect,
    }


def _show_plan(plan: dict[str, Any]) -> None:
    rows = {"signer": plan["signer"], "chain": plan["endpoint"], "fee_rao": plan["fee_rao"], **plan["effect"]}
    print(plan["order"])
    for name, value in rows.items():
        if name.endswith("_rao"):
            unit = "alpha" if "alpha" in name else "TAO"
            name, value = name.removesuffix("_rao").removesuffix("_alpha"), f"{tao(value)} {unit}"
        print(f"  {name.replace('_', ' '):<20} {value}")


def _check_journal(file: Path, intent: Intent) -> None:
    """Nothing new is sent while the fate of something earlier is open, unless it is this very order."""
    journal = Journal(file)
    try:
        for extrinsic in journal.open_extrinsics():
            if intent.intent_id not in extrinsic.intent_ids:
                raise FateUnknown(
                    f"an earlier order of {extrinsic.signer} has no known fate yet (extrinsic {extrinsic.hash}, valid "
                    f"until block {extrinsic.death}): run this again after that block"
                )
    finally:
        journal.close()


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Holds a journal for this process."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(f"{file}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ChainRefused(
                f"another command is sending for this key ({file})", name="KeyInUse", action="wait: until it is done"
            ) from error
        yield
