"""`raytensor weights`: the age of a validator's weights; set, commit and reveal weights by hand."""

import argparse
import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path

from raytensor.arguments import integer, number
from raytensor.chain.intents import SetWeights
from raytensor.chain.reads.preflight import Refusal, check_weights, read_views
from raytensor.chain.reads.watchdog import OVERDUE_TEMPOS, Health, LastTry, judge
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.writer import beacon
from raytensor.chain.writer.commit_book import HASH, TIMELOCKED, CommitBook
from raytensor.chain.writer.commit_rules import epoch_after, reveal_block
from raytensor.chain.writer.foreign import take_over
from raytensor.chain.writer.journal import Journal
from raytensor.commands import commitments, options, output, sending
from raytensor.commands.sender import sender_of
from raytensor.errors import ChainRefused, ConfigError

PALLET = "SubtensorModule"
ABOUT = """\
Weights are a validator's ratings of a subnet's miners. A validator whose weights are too old earns nothing. `status`
prints their age. If any are overdue it prints the cause and exits with status 1, so that a cron job can raise an alarm.

On a subnet with commit-reveal, weights are committed first and take effect when they are revealed, in one given later
epoch. The chain reveals a timelocked commit itself. A hash commit is revealed with its salt, from the journal that
committed it: a running chain writer does that for its own commits, `raytensor weights reveal` for those of `set`.
"""
EXAMPLES = """\
  raytensor weights status -w alice -H validator            all subnets where the hotkey is registered
  raytensor weights set --netuid 2 -w alice -H validator 5F...=0.7 uid:4=0.3 --dry-run
  raytensor weights commitments --hotkey 5F...

`raytensor weights ACTION --help` has examples of each action.
"""


def weights_main(argv: Sequence[str]) -> int:
    """`raytensor weights ACTION ...`. Returns the exit status."""
    parser = options.parser("weights", ABOUT, EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    action = functools.partial(options.action, actions, "weights")
    text = "show age, permit, commit-reveal and next block of weights, by subnet"
    example = "--hotkey 5F... --journal runs/my/chain.db    with the last attempt in a writer's journal"
    status = action("status", text, "--hotkey 5F... --netuid 1 --json", example)
    tempos, text = number(above=0, maximum=10_000), f"age from which weights are overdue (default {OVERDUE_TEMPOS:g})"
    status.add_argument("--overdue", type=tempos, default=OVERDUE_TEMPOS, metavar="TEMPOS", help=text)
    own = "--netuid 2 -w alice -H validator"
    examples = (f"{own} 5F...=0.7 uid:4=0.3 --dry-run", f'{own} --file weights.json     {{"5F...": 0.7, ...}}')
    set_ = action("set", "set weights on one subnet, signed by the hotkey; free of fees", *examples)
    text = "weights of any scale; uid:7=0.5 means the hotkey of uid 7"
    set_.add_argument("values", metavar="HOTKEY=WEIGHT", nargs="*", help=text)
    set_.add_argument("--file", metavar="FILE", help='JSON object {"hotkey or uid:N": weight}')
    set_.add_argument("--netuid", type=options.netuid, required=True, help="the subnet")
    set_.add_argument("--mechanism", type=options.mecid, default=0, metavar="N", help="its mechanism (default 0)")
    text = "version of the weights; the chain refuses one below the subnet's (default 0: the subnet's)"
    set_.add_argument("--version-key", type=integer(0, 2**64 - 1), default=0, metavar="N", help=text)
    text = "with commit-reveal only (default: timelocked if the chain's drand beacon is live, else hash)"
    set_.add_argument("--commit-by", choices=(HASH, TIMELOCKED), help=text)
    text = "list commits that are not revealed yet, and when they can be"
    pending = action("commitments", text, "--hotkey 5F...", "-w alice --json")
    for one in (status, pending):
        options.add_hotkey(one)
        one.add_argument("--netuid", type=options.netuid, action="append", help="only this subnet; may be repeated")
        text = "the journal of a chain writer; may be repeated"
        one.add_argument("--journal", metavar="FILE", action="append", default=[], help=text)
        options.add_state(one)
    text = "wait for the reveal epoch of the commits of `weights set`, and reveal them"
    reveal = action("reveal", text, "-w alice -H validator --wait 4000")
    for one in (set_, reveal):
        options.add_sending(one, for_others=False)
    text = "go on with a hotkey that a chain writer stopped, since another program used it"
    over = action("take-over", text, "--hotkey 5F... --journal runs/my/journal.sqlite")
    options.add_hotkey(over)
    over.add_argument("--journal", metavar="FILE", action="append", required=True, help="of the writer that stopped")
    acts = (_status, _set, commitments.show, commitments.reveal, _take_over)
    for one, act in zip((status, set_, pending, reveal, over), acts):
        options.add_chain_and_wallet(one)
        one.set_defaults(act=act)
    return output.run("weights", parser, argv, lambda args: args.act(args))


def _status(args: argparse.Namespace) -> int:
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
        rows = [dataclasses.asdict(one) for one in found]
        output.show_json({"hotkey": hotkey, "block": head.number, "weights": rows})
    else:
        _show(hotkey, head.number, found)
    return 1 if any(one.overdue for one in found) else 0


def _take_over(args: argparse.Namespace) -> int:
    """Record in the writer's journal that the other program was stopped: the writer goes on within a block."""
    hotkey = options.account(args, args.hotkey, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        head = client.head()
        for name in args.journal:
            if not Path(name).expanduser().is_file():
                raise ConfigError(f"--journal {name}: there is no such file")
            with contextlib.closing(Journal(name, client.genesis)) as journal:
                take_over(journal, [hotkey], head.number)
    if args.json:
        output.show_json({"hotkey": hotkey, "block": head.number, "journals": args.journal})
    else:
        print(f"{hotkey} is taken over from block {head.number} on")
    return 0


def _show(hotkey: str, block: int, found: list[Health]) -> None:
    print(f"{hotkey} at block {block}")
    if not found:
        print("not registered on any subnet")
        return
    cells = {
        "netuid": lambda h: h.netuid,
        "mech": lambda h: h.mecid,
        "uid": lambda h: "-" if h.uid is None else h.uid,
        "permit": lambda h: "yes" if h.permit else "no",
        "last set": lambda h: h.last_update or "never",
        "blocks": lambda h: h.age_blocks,
        "tempos": lambda h: f"{h.age_tempos:.1f}",
        "commit-reveal": lambda h: "yes" if h.commit_reveal else "no",
        "next block": lambda h: h.next_block or "-",
        "": lambda h: "OVERDUE" if h.overdue else "ok" if h.permit else "-",
    }
    print(output.columns(found, cells, left=(9,)))
    for one in found:
        if one.cause:
            print(one.sentence)


def _last_tries(files: list[str], hotkey: str) -> dict[tuple[int, int], LastTry]:
    """The newest attempt of the hotkey to set weights, in some journals, by (netuid, mecid)."""
    now = time.time()
    found: dict[tuple[int, int], LastTry] = {}
    for name in files:
        if not Path(name).expanduser().is_file():
            raise ConfigError(f"--journal {name}: there is no such file")
        with contextlib.closing(Journal(name)) as journal:
            unrevealed = CommitBook(journal).unrevealed_since(hotkey)
            for intent, at, receipt in journal.latest(hotkey, SetWeights.name):
                assert isinstance(intent, SetWeights)
                place = (intent.netuid, intent.mecid)
                if place in found and found[place].age_s <= now - at:
                    continue
                first, count = unrevealed.get(place, (now, 0))
                names = ("fate", "block", "error", "action")
                outcome = {name: getattr(receipt, name) for name in names} if receipt else dict.fromkeys(names)
                waited_s = max(0.0, now - first)
                found[place] = LastTry(max(0.0, now - at), **outcome, unrevealed=count, unrevealed_s=waited_s)
    return found


def _set(args: argparse.Namespace) -> int:
    key = sender_of(args, hotkey=True)
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
                raise ConfigError(f"{name} is given twice: give each hotkey once")
            values[hotkey] = weight
        order = {"netuid": args.netuid, "mecid": args.mechanism, "values": tuple(sorted(values.items()))}
        intent = SetWeights(signer=signer, intent_id=sending.order_id(args), version_key=args.version_key, **order)
        if (status := sending.resume(args, client, key, **order)) is not None:
            return status
        row = check_weights(intent, view)
        if isinstance(row, Refusal):
            message = f"subnet {args.netuid} accepts no weights of {signer} now"
            raise ChainRefused(message, name=row.name, action=row.action)
        effect = {"netuid": row.netuid, "mechanism": row.mecid, "uids": list(row.uids), "values": list(row.values)}
        effect["version_key"] = row.version_key
        what = f"set {len(row.uids)} weights on subnet {args.netuid}"
        if view.commit_reveal:
            kind = args.commit_by or (TIMELOCKED if beacon.choose(client, view) else HASH)
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
            raise ConfigError(f"--file {args.file}: not JSON ({error})") from error
        if not isinstance(found, list) or not all(isinstance(pair, tuple) for pair in found):
            raise ConfigError(f'--file {args.file}: give one JSON object {{"hotkey or uid:N": weight}}')
        pairs += found
    for text in args.values:
        name, equals, weight = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r}: give HOTKEY=WEIGHT or uid:N=WEIGHT")
        pairs.append((name, weight))
    if not pairs:
        raise ConfigError("there are no weights: give HOTKEY=WEIGHT, or --file")
    weights = {}
    for name, weight in pairs:
        if name.startswith("uid:") and not name[4:].isdecimal():
            raise ConfigError(f"{name!r}: give uid:N with the number of a uid")
        try:
            weights[name] = number(minimum=0)(str(weight))
        except argparse.ArgumentTypeError as error:
            raise ConfigError(f"the weight of {name}: {error}") from error
    if len(weights) != len(pairs):
        raise ConfigError("a hotkey is given twice: give each one once")
    return weights
