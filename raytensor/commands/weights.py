"""`raytensor weights`: whether a validator's weights are in time; setting and revealing them by hand."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from raytensor.chain.calls import SetWeights
from raytensor.chain.reads.preflight import Refusal, check_weights, read_views
from raytensor.chain.reads.watchdog import OVERDUE_TEMPOS, Health, LastTry, judge
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.writer import beacon
from raytensor.chain.writer.commit_book import HASH, TIMELOCKED, CommitBook
from raytensor.chain.writer.commit_rules import epoch_after, reveal_block
from raytensor.chain.writer.journal import Journal
from raytensor.commands import commitments, options, output, sending
from raytensor.errors import ChainRefused, ConfigError

PALLET = "SubtensorModule"
ABOUT = """\
Weights are a validator's opinion of a subnet's miners. Without new ones it earns nothing, and nobody tells it: `status`
does, with the cause, and ends with status 1 if any are overdue, so that a cron job can raise the alarm.

On a subnet with commit-reveal weights are committed first and count only once they are revealed, in a later epoch and in
no other. Timelocked commits are opened by the chain itself. A hash commit is opened with its salt, by the journal that
made it: a running writer does that of its own accord, `raytensor weights reveal` does it for `raytensor weights set`.
"""
EXAMPLES = """\
  raytensor weights status -w alice -H validator            all subnets where the hotkey is registered
  raytensor weights status --hotkey 5F... --netuid 1 --json
  raytensor weights status --hotkey 5F... --journal runs/my/chain.db    with what the writer's journal says of it
  raytensor weights set --netuid 2 -w alice -H validator 5F...=0.7 uid:4=0.3 --dry-run
  raytensor weights set --netuid 2 -w alice -H validator --file weights.json     {"5F...": 0.7, ...}
  raytensor weights commitments --hotkey 5F...              pending commits, and when they are revealed
  raytensor weights reveal -w alice -H validator --wait 4000     wait for the epoch, reveal what `set` committed
"""


def weights_main(argv: Sequence[str]) -> int:
    """`raytensor weights ACTION ...`. Returns the exit status."""
    parser = options.parser("weights", ABOUT, EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    status = options.subparser(
        actions, "status", "show age, permit, commit-reveal and next block of weights, by subnet"
    )
    status.add_argument("--hotkey", metavar="NAME|ADDRESS", help="the validator's hotkey (default: the wallet's)")
    status.add_argument("--netuid", type=options.netuid, action="append", help="only this subnet; may be repeated")
    status.add_argument(
        "--journal", metavar="FILE", action="append", default=[], help="a writer's journal, for the cause"
    )
    status.add_argument(
        "--overdue", type=float, default=OVERDUE_TEMPOS, metavar="TEMPOS", help="how old weights may become (default 3)"
    )
    set_ = options.subparser(actions, "set", "set weights on one subnet, signed by the hotkey; costs nothing")
    set_.add_argument(
        "values", metavar="HOTKEY=WEIGHT", nargs="*", help="any scale; uid:7=0.5 names the hotkey of uid 7"
    )
    set_.add_argument("--file", metavar="FILE", help='JSON object {"hotkey or uid:N": weight}')
    set_.add_argument("--netuid", type=options.netuid, required=True)
    set_.add_argument("--mechanism", type=options.netuid, default=0, metavar="N", help="default 0")
    set_.add_argument("--version-key", type=int, default=0, metavar="N", help="if newer than the subnet's own")
    set_.add_argument(
        "--commit-by",
        choices=(HASH, TIMELOCKED),
        help="where the subnet has commit-reveal (default: timelocked if the chain's beacon lives, else hash)",
    )
    options.add_sending(set_)
    pending = options.subparser(actions, "commitments", "list commits that are not revealed yet, and when they can be")
    pending.add_argument("--hotkey", metavar="NAME|ADDRESS", help="the validator's hotkey (default: the wallet's)")
    pending.add_argument("--netuid", type=options.netuid, action="append", help="only this subnet; may be repeated")
    pending.add_argument(
        "--journal", metavar="FILE", action="append", default=[], help="a writer's journal: has it the salts?"
    )
    for one in (status, pending):
        one.add_argument(
            "--state",
            metavar="DIR",
            help="folder of this program's own journals (default: RAYTENSOR_HOME, else ~/.raytensor)",
        )
    reveal = options.subparser(
        actions, "reveal", "wait for the reveal epoch of what `weights set` committed, and reveal it"
    )
    options.add_sending(reveal)
    for one, act in ((status, _status), (set_, _set), (pending, commitments.show), (reveal, commitments.reveal)):
        options.add_output(one)
        options.add_network(one)
        options.add_wallet(one)
        one.set_defaults(act=act)
    return output.run("weights", parser, argv, lambda args: args.act(args))


def _status(args: argparse.Namespace) -> int:
    if args.overdue <= 0:
        raise ConfigError(f"--overdue {args.overdue}: give tempos, more than 0")
    hotkey = options.account(args, args.hotkey, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        own = sending.journal_file(args, client, hotkey)
        tries = _last_tries([*args.journal, *([str(own)] if own.exists() else [])], hotkey)
        head = client.head()
        netuids = commitments.subnets_of(client, hotkey, args.netuid, head)
        if not args.netuid:
            there = client.query_map(PALLET, "NetworksAdded", (), head.hash)
            netuids = sorted({*netuids, *(netuid for netuid, _ in tries if there.get(netuid))})
        views = commitments.views_of(client, netuids, head)
        commits = commitments.expired_commits(client, hotkey, [p for p, v in views.items() if v.commit_reveal], head)
    found = [
        judge(views[place], hotkey, tries.get(place), commits=commits.get(place, ()), overdue_tempos=args.overdue)
        for place in sorted(views)
    ]
    if args.json:
        output.show_json(
            {"hotkey": hotkey, "block": head.number, "weights": [dataclasses.asdict(one) for one in found]}
        )
    else:
        _show(hotkey, head.number, found)
    return 1 if any(one.overdue for one in found) else 0


def _show(hotkey: str, block: int, found: list[Health]) -> None:
    print(f"{hotkey} at block {block}")
    if not found:
        print("registered on no subnet")
        return
    cells = [
        (
            h.netuid,
            h.mecid,
            "-" if h.uid is None else h.uid,
            "yes" if h.permit else "no",
            h.last_update or "never",
            h.age_blocks,
            f"{h.age_tempos:.1f}",
            "yes" if h.commit_reveal else "no",
            h.next_block or "-",
            "OVERDUE" if h.overdue else "ok" if h.permit else "-",
        )
        for h in found
    ]
    headers = ("netuid", "mech", "uid", "permit", "last set", "blocks", "tempos", "commit-reveal", "next block", "")
    print(output.table(headers, cells, left=(9,)))
    for one in found:
        if one.cause:
            print(one.sentence)


def _last_tries(files: list[str], hotkey: str) -> dict[tuple[int, int], LastTry]:
    """The newest weights of the hotkey in some journals, by (netuid, mecid)."""
    now, found = time.time(), {}
    for name in files:
        if not Path(name).expanduser().is_file():
            raise ConfigError(f"--journal {name}: there is no such file")
        journal = Journal(name)
        try:
            unrevealed = CommitBook(journal).unrevealed_since(hotkey)
            for intent, at, receipt in journal.latest(hotkey, SetWeights.name):
                known = found.get((intent.netuid, intent.mecid))
                if known is None or known.age_s > now - at:
                    facts = (receipt.fate, receipt.block, receipt.error, receipt.action) if receipt else ()
                    first, count = unrevealed.get((intent.netuid, intent.mecid), (now, 0))
                    found[intent.netuid, intent.mecid] = LastTry(
                        max(0.0, now - at), *facts, unrevealed=count, unrevealed_s=max(0.0, now - first)
                    )
        finally:
            journal.close()
    return found


def _set(args: argparse.Namespace) -> int:
    key = options.hotkey_ref(args)
    signer, given = key.ss58, _given(args)
    with ChainClient(options.network(args), args.timeout) as client:
        view = read_views(client, {(args.netuid, args.mechanism)}, client.head())[args.netuid, args.mechanism]
        by_uid = {uid: hotkey for hotkey, uid in view.uid_of.items()}
        values = {}
        for name, weight in given.items():
            hotkey = by_uid.get(int(name[4:])) if name.startswith("uid:") else options.account(args, name, hotkey=True)
            if hotkey not in view.uid_of:
                raise ConfigError(f"{name} is not on subnet {args.netuid} at block {view.block}")
            if hotkey in values:
                raise ConfigError(f"{name} is given twice")
            values[hotkey] = weight
        intent = SetWeights(
            signer=signer,
            intent_id=sending.order_id(args),
            netuid=args.netuid,
            values=tuple(sorted(values.items())),
            mecid=args.mechanism,
            version_key=args.version_key,
        )
        status = sending.resume(args, client, key, netuid=intent.netuid, mecid=intent.mecid, values=intent.values)
        if status is not None:
            return status
        row = check_weights(intent, view)
        if isinstance(row, Refusal):
            raise ChainRefused(
                f"subnet {args.netuid} takes no weights of {signer} now", name=row.name, action=row.action
            )
        effect = {
            "netuid": row.netuid,
            "mechanism": row.mecid,
            "uids": list(row.uids),
            "values": list(row.values),
            "version_key": row.version_key,
        }
        what = f"set {len(row.uids)} weights on subnet {args.netuid}"
        if view.commit_reveal:
            kind = args.commit_by or beacon.choose(client, view)[0]
            effect |= {"commit": kind, "reveals_block": reveal_block(view, epoch_after(view))}
            what = f"commit {len(row.uids)} weights on subnet {args.netuid}"
        return sending.send(args, client, intent, key, what, effect)


def _given(args: argparse.Namespace) -> dict[str, float]:
    """Weights by hotkey or "uid:N", from the command line and the file."""
    pairs: list[tuple[str, object]] = []
    if args.file is not None:
        try:
            found = json.loads(Path(args.file).expanduser().read_text(), object_pairs_hook=lambda pairs: pairs)
        except OSError as error:
            raise ConfigError(f"--file {args.file}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"--file {args.file} is no JSON: {error}") from error
        if not isinstance(found, list) or not all(isinstance(pair, tuple) for pair in found):
            raise ConfigError(f'--file {args.file}: write one JSON object {{"hotkey or uid:N": weight}}')
        pairs += found
    for text in args.values:
        name, equals, weight = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r}: write HOTKEY=WEIGHT or uid:N=WEIGHT")
        pairs.append((name, weight))
    if not pairs:
        raise ConfigError("no weights were given: write HOTKEY=WEIGHT, or --file")
    weights = {}
    for name, weight in pairs:
        if name.startswith("uid:") and not name[4:].isdecimal():
            raise ConfigError(f"{name!r}: write uid:N with the number of a uid")
        try:
            weights[name] = float(weight) if not isinstance(weight, (bool, list)) else -1.0
        except (TypeError, ValueError):
            weights[name] = -1.0
        if not 0 <= weights[name] < float("inf"):
            raise ConfigError(f"{name}={weight}: a weight is a number, at least 0")
    if len(weights) != len(pairs):
        raise ConfigError("a name is given twice")
    return weights
