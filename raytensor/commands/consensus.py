"""`raytensor consensus`: compute what a subnet pays, check conformance vectors, write a subnet's state to a file.

In: the command line; a snapshot from a file or a chain. Out: text for people, or JSON; exit status 1 where a vector
differs. An epoch runs in this process or, with consensus=ray, on a Ray cluster. Nothing is sent to the chain.

    consensus           what-if: an epoch as the subnet is, and with changes
    consensus check     recorded epochs against this implementation
    consensus snapshot  a subnet of a running chain, for --from
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from raytensor.commands import options, output
from raytensor.commands.consensus_chain import fetch_snapshot
from raytensor.consensus import EpochInput, EpochOutput, epoch
from raytensor.consensus.snapshot import read_snapshot, write_snapshot
from raytensor.consensus.vectors import check_file
from raytensor.consensus.whatif import Comparison, compare
from raytensor.errors import ConfigError

CHECK = """\
Runs conformance vectors: recorded epochs with the chain's own results. Prints each field that differs from them by one
bit or more, and exits with status 1 if any does.
"""
CHECK_EXAMPLES = """\
  raytensor consensus check tests/consensus/vectors/*.json
  raytensor consensus check network.json --reference
"""
SNAPSHOT = """\
Writes a subnet's consensus state as it is now to a Parquet file, for `raytensor consensus --from FILE`.
"""
SNAPSHOT_EXAMPLES = """\
  raytensor consensus snapshot --netuid 2 --network ws://127.0.0.1:9944 subnet2.parquet
"""
WHATIF = """\
Answers what a subnet pays if something is different: runs its next epochs as it is and with your changes, to the
exact rao, and prints who gains and who loses. Without a change it prints what the next epoch pays: what is pending
and what the blocks until then add, over all mechanisms, with the owner's cut, takes, parents and root's part. With
several epochs stake grows by what each pays. Nothing is sent.

Changes, any number of them, applied from left to right:

  set.FIELD=VALUE           a hyperparameter, as the chain stores it. kappa, bonds_penalty, alpha_low and alpha_high
                            are of 65535 (or a share: 0.6); bonds_moving_average is of 1000000;
                            alpha_sigmoid_steepness of 100; emission is the rao that each epoch distributes; yuma3,
                            liquid_alpha and commit_reveal are true or false; owner_uid is a uid or none;
                            liquid_alpha_mode is auto, current or previous; epoch_kind is yuma or null
  set.stake.WHO=AMOUNT      stake weight in rao (2500000000000) or alpha (2500alpha)
  set.weights.WHO=FILE      a validator's next weights for mechanism 0, before they are sent: a JSON file
                            {"hotkey": weight, ...}
  set.permit.WHO=true       the validator permit
  set.last_update.WHO=BLOCK the block of its last weights

WHO is a hotkey, or uid:7. The weights of a new validator count from the second epoch, because the first one grants its
permit: use --epochs.

other actions: `raytensor consensus check --help`, `raytensor consensus snapshot --help`
"""
WHATIF_EXAMPLES = """\
  raytensor consensus --netuid 1 --network ws://127.0.0.1:9944
  raytensor consensus --netuid 1 --from metagraph.parquet set.kappa=0.6
  raytensor consensus --netuid 1 --from metagraph.parquet set.stake.5F3s…=2500alpha set.yuma3=true
  raytensor consensus --netuid 1 --network finney set.weights.5F3s…=mine.json --epochs 10
"""

Run = Callable[[EpochInput], EpochOutput]


def consensus_main(argv: Sequence[str]) -> int:
    """`raytensor consensus [check|snapshot] ...`. Returns the exit status."""
    actions = {"check": (_check_parser, _check), "snapshot": (_snapshot_parser, _snapshot)}
    if argv and argv[0] in actions:
        parser, act = actions[argv[0]]
        return output.run(f"consensus {argv[0]}", parser(), argv[1:], act)
    return output.run("consensus", _whatif_parser(), argv, _whatif)


def _check_parser() -> argparse.ArgumentParser:
    parser = options.parser("consensus check", CHECK, CHECK_EXAMPLES)
    parser.add_argument("files", nargs="+", metavar="FILE", help="vector files (format: docs/consensus.md)")
    text = "run the plain integer reference, not the fast kernels"
    parser.add_argument("--reference", action="store_true", help=text)
    options.add_output(parser)
    return parser


def _snapshot_parser() -> argparse.ArgumentParser:
    parser = options.parser("consensus snapshot", SNAPSHOT, SNAPSHOT_EXAMPLES)
    parser.add_argument("--netuid", type=options.netuid, required=True, help="the subnet")
    parser.add_argument("file", metavar="FILE", help="the file to write; an existing one is replaced")
    options.add_network(parser)
    options.add_output(parser)
    return parser


def _whatif_parser() -> argparse.ArgumentParser:
    parser = options.parser("consensus", WHATIF, WHATIF_EXAMPLES)
    parser.add_argument("changes", nargs="*", metavar="CHANGE", help="set.…=…, or consensus=ray")
    parser.add_argument("--netuid", type=options.netuid, required=True, help="the subnet")
    parser.add_argument("--from", dest="file", metavar="FILE", help="a snapshot file, instead of a chain")
    text = "consecutive epochs to add up (default 1)"
    parser.add_argument("--epochs", type=options.count, default=1, metavar="N", help=text)
    text = "neurons to print, largest change first (default 20)"
    parser.add_argument("--top", type=options.count, default=20, metavar="N", help=text)
    parser.add_argument("--reference", action="store_true", help="compute with the plain integer reference")
    options.add_network(parser)
    options.add_output(parser)
    return parser


def _check(args: argparse.Namespace) -> int:
    implementation = "reference" if args.reference else "fast"
    results = {}
    for path in args.files:
        compared, differences = check_file(path, lambda inputs: epoch(inputs, implementation=implementation))
        results[path] = {"compared": compared, "differences": differences}
        if not args.json:
            print(f"{'differs' if differences else 'equal  '}  {compared:>7} values  {path}")
            for difference in differences:
                print(f"    {difference}")
    failed = sum(bool(result["differences"]) for result in results.values())
    if args.json:
        output.show_json({"implementation": implementation, "files": results, "num_differing_files": failed})
    else:
        total = sum(result["compared"] for result in results.values())
        print(f"{len(results) - failed} of {len(results)} files equal ({total} values, {implementation})")
    return 1 if failed else 0


def _snapshot(args: argparse.Namespace) -> None:
    snapshot = fetch_snapshot(args.netuid, options.network(args), timeout_s=args.timeout)
    write_snapshot(snapshot, args.file)
    found = {"file": args.file, "netuid": args.netuid, "num_neurons": snapshot.inputs.n, "source": snapshot.source}
    output.show(args, found, f"{args.file}: subnet {args.netuid}, {snapshot.inputs.n} neurons, {snapshot.source}")


def _whatif(args: argparse.Namespace) -> None:
    changes = [change for change in args.changes if not change.startswith("consensus=")]
    run = _runner([change for change in args.changes if change.startswith("consensus=")], args.reference)
    if args.file is not None and args.network:
        raise ConfigError("--from and --network: give one of the two")
    if args.file is not None:
        snapshot = read_snapshot(args.file)
    else:
        snapshot = fetch_snapshot(args.netuid, options.network(args), timeout_s=args.timeout)
    if snapshot.netuid != args.netuid:
        raise ConfigError(f"--netuid {args.netuid}: the snapshot is of subnet {snapshot.netuid}")
    comparison = compare(snapshot, changes, run, args.epochs)
    output.show(args, _as_json(comparison, args.epochs), _as_text(comparison, changes, args))


def _runner(choices: list[str], reference: bool) -> Run:
    if choices[1:] or choices not in ([], ["consensus=ray"], ["consensus=local"]):
        raise ConfigError(f"{' '.join(choices)}: give consensus=local or consensus=ray")
    if choices == ["consensus=ray"]:
        return _on_cluster
    return lambda inputs: epoch(inputs, implementation="reference" if reference else "fast")


def _on_cluster(inputs: EpochInput) -> EpochOutput:
    from raytensor.commands import consensus_cluster  # imports Ray, and only consensus=ray needs it

    consensus_cluster.connect()
    return consensus_cluster.epoch_on_cluster(inputs)


def _as_json(comparison: Comparison, num_epochs: int) -> dict:
    snapshot = comparison.snapshot
    head: dict[str, Any] = {"netuid": snapshot.netuid, "mecid": snapshot.mecid, "block": snapshot.inputs.block}
    head["num_epochs"] = num_epochs
    head["epoch_blocks"] = [epoch.block for epoch in comparison.after]
    head["num_mechanisms"] = len(snapshot.subnet.mechanisms) if snapshot.subnet else 1
    sides = {"before": (comparison.paid_before, comparison.before), "after": (comparison.paid_after, comparison.after)}
    paid = {f"paid_{side}_rao": sum(totals.values()) for side, (totals, _) in sides.items()}
    paid |= {f"withheld_{side}_rao": sum(e.withheld_rao for e in epochs) for side, (_, epochs) in sides.items()}
    return {**head, **paid, "neurons": comparison.rows()}


def _as_text(comparison: Comparison, changes: list[str], args: argparse.Namespace) -> str:
    snapshot, rows = comparison.snapshot, comparison.rows()
    gain = sum(row["change_rao"] > 0 for row in rows)
    lose = sum(row["change_rao"] < 0 for row in rows)
    period = "the next epoch" if args.epochs == 1 else f"the next {args.epochs} epochs"
    lines = [f"subnet {snapshot.netuid} at block {snapshot.inputs.block}, {period}, {snapshot.inputs.n} neurons"]
    if snapshot.subnet is not None:
        mechanisms = len(snapshot.subnet.mechanisms)
        several = f", {mechanisms} mechanisms" if mechanisms > 1 else ""
        lines[0] += f"{several}; the next epoch is in block {comparison.after[0].block}"
    lines.append(f"with {' '.join(changes)}: {gain} gain, {lose} lose" if changes else "without changes")
    if not changes:
        rows = sorted(rows, key=lambda row: (-row["before_rao"], row["uid"] is None, row["uid"] or 0))
    cells = {
        "uid": lambda row: "-" if row["uid"] is None else row["uid"],
        "hotkey": lambda row: row["hotkey"],
        "before (alpha)": lambda row: _alpha(row["before_rao"]),
        "after (alpha)": lambda row: _alpha(row["after_rao"]),
        "change": lambda row: _alpha(row["change_rao"], sign=True),
    }
    lines.append(output.columns(rows[: args.top], cells, left=(1,)))
    if len(rows) > args.top:
        lines.append(f"{len(rows) - args.top} more; --top {len(rows)} shows all")
    before, after = (_alpha(sum(paid.values())) for paid in (comparison.paid_before, comparison.paid_after))
    lines.append(f"total paid: {before} before, {after} after")
    withheld = [sum(epoch.withheld_rao for epoch in side) for side in (comparison.before, comparison.after)]
    if any(withheld):
        lines.append(
            f"incentive of the owner's miners, not paid: {_alpha(withheld[0])} before, {_alpha(withheld[1])} after"
        )
    return "\n".join(lines)


def _alpha(rao: int, *, sign: bool = False) -> str:
    """Exact decimal alpha of an amount of rao."""
    mark = "-" if rao < 0 else "+" if sign and rao > 0 else ""
    return f"{mark}{abs(rao) // 10**9}.{abs(rao) % 10**9:09d}"
