"""`raytensor weights`: whether a validator's weights are in time, and setting them by hand."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from raytensor.chain.calls import SetWeights
from raytensor.chain.client import ChainClient
from raytensor.chain.commands import options, output, sending
from raytensor.chain.journal import Journal
from raytensor.chain.preflight import Refusal, check_weights, read_views
from raytensor.chain.watchdog import OVERDUE_TEMPOS, Health, LastTry, judge
from raytensor.errors import ChainRefused, ConfigError

PALLET = "SubtensorModule"
ABOUT = """\
Weights are a validator's opinion of a subnet's miners. Without new ones it earns nothing, and nobody tells it: `status`
does, with the cause, and ends with status 1 if any are overdue, so that a cron job can raise the alarm.
"""
EXAMPLES = """\
  raytensor weights status -w alice -H validator            all subnets where the hotkey is registered
  raytensor weights status --hotkey 5F... --netuid 1 --json
  raytensor weights status --hotkey 5F... --journal runs/my/chain.db    with what the writer's journal says of it
  raytensor weights set --netuid 2 -w alice -H validator 5F...=0.7 uid:4=0.3 --dry-run
  raytensor weights set --netuid 2 -w alice -H validator --file weights.json     {"5F...": 0.7, ...}
"""


def weights_main(argv: Sequence[str]) -> int:
    """`raytensor weights ACTION ...`. Returns the exit status."""
    parser = options.parser("weights", ABOUT, EXAMPLES)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    status = options.subparser(actions, "status", "show age, permit, commit-reveal and next block of weights, by subnet")
    status.add_argument("--hotkey", metavar="NAME|ADDRESS", help="the validator's hotkey (default: the wallet's)")
    status.add_argument("--netuid", type=options.netuid, action="append", help="only this subnet; may be repeated")
    status.add_argument("--journal", metavar="FILE", action="append", default=[], help="a writer's journal, for the cause")
    status.add_argument("--overdue", type=float, default=OVERDUE_TEMPOS, metavar="TEMPOS",
                        help="how old weights may become (default 3)")  # fmt: skip
    set_ = options.subparser(actions, "set", "set weights on one subnet, signed by the hotkey; costs nothing")
    set_.add_argument("values", metavar="HOTKEY=WEIGHT", nargs="*", help="any scale; uid:7=0.5 names the hotkey of uid 7")
    set_.add_argument("--file", metavar="FILE", help='JSON object {"hotkey or uid:N": weight}')
    set_.add_argument("--netuid", type=options.netuid, required=True)
    set_.add_argument("--mechanism", type=options.netuid, default=0, metavar="N", help="default 0")
    set_.add_argument("--version-key", type=int, default=0, metavar="N", help="if newer than the subnet's own")
    options.add_sending(set_)
    for one, act in ((status, _status), (set_, _set)):
        options.add_output(one)
        options.add_network(one)
        options.add_wallet(one)
        one.set_defaults(act=act)
    return output.run("weights", parser, argv, lambda args: args.act(args))


def _status(args: argparse.Namespace) -> int:
    if args.overdue <= 0:
        raise ConfigError(f"--overdue {args.overdue}: give tempos, more than 0")
    hotkey = options.account(args, args.hotkey, hotkey=True)
    tries = _last_tries(args.journal, hotkey)
    with ChainClient(options.network(args), args.timeout) as client:
        head = client.head()
        there = [n for n, yes in client.query_map(PALLET, "NetworksAdded", (), head.hash).items() if yes and n]
        if unknown := sorted(set(args.netuid or ()) - set(there)):
            raise ConfigError(f"--netuid {unknown[0]}: there is no such subnet at block {head.number} (root takes no weights)")
        netuids = sorted(set(args.netuid)) if args.netuid else sorted(there)
        if not args.netuid:
            uids = client.query_many([(PALLET, "Uids", [netuid, hotkey]) for netuid in netuids], head.hash)
            written = {netuid for netuid, _ in tries}
            netuids = [n for n, uid in zip(netuids, uids) if uid is not None or n in written]
        views = read_views(client, {(netuid, 0) for netuid in netuids}, head) if netuids else {}
        counts = {(n, m) for n in netuids for m in range(1, views[n, 0].mechanisms)}
        views |= read_views(client, counts, head) if counts else {}
    found = [judge(views[place], hotkey, tries.get(place), overdue_tempos=args.overdue) for place in sorted(views)]
    if args.json:
        output.show_json({"hotkey": hotkey, "block": head.number, "weights": [dataclasses.asdict(one) for one in found]})
    else:
        _show(hotkey, head.number, found)
    return 1 if any(one.overdue for one in found) else 0


def _show(hotkey: str, block: int, found: list[Health]) -> None:
    print(f"{hotkey} at block {block}")
    if not found:
        print("registered on no subnet")
        return
    cells = [
        (h.netuid, h.mecid, "-" if h.uid is None else h.uid, "yes" if h.permit else "no", h.last_update or "never",
         h.age_blocks, f"{h.age_tempos:.1f}", "yes" if h.commit_reveal else "no", h.next_block or "-",
         "OVERDUE" if h.overdue else "ok" if h.permit else "-")
        for h in found
    ]  # fmt: skip
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
            for intent, at, receipt in journal.latest(hotkey, SetWeights.name):
                known = found.get((intent.netuid, intent.mecid))
                if known is None or known.age_s > now - at:
                    facts = (receipt.fate, receipt.block, receipt.error, receipt.action) if receipt else ()
                    found[intent.netuid, intent.mecid] = LastTry(max(0.0, now - at), *facts)
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
            signer=signer, intent_id=sending.order_id(args), netuid=args.netuid, values=tuple(sorted(values.items())),
            mecid=args.mechanism, version_key=args.version_key,
        )  # fmt: skip
        status = sending.resume(args, client, key, netuid=intent.netuid, mecid=intent.mecid, values=intent.values)
        if status is not None:
            return status
        row = check_weights(intent, view)
        if isinstance(row, Refusal):
            raise ChainRefused(f"subnet {args.netuid} takes no weights of {signer} now", name=row.name, action=row.action)
        effect = {"netuid": row.netuid, "mechanism": row.mecid, "uids": list(row.uids), "values": list(row.values),
                  "version_key": row.version_key}  # fmt: skip
        return sending.send(args, client, intent, key, f"set {len(row.uids)} weights on subnet {args.netuid}", effect)


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
