"""The `raytensor consensus` command: check vector files, and ask what the chain would pay if something changed.

In: the command line. Out: text for people or JSON on stdout, and an exit status (0 equal or done, 1 a difference).
Knows nothing of chains and clusters: who wires the command passes functions that fetch a snapshot from an endpoint
and that run an epoch on a cluster.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence

from raytensor.consensus import EpochInput, EpochOutput, epoch
from raytensor.errors import ConfigError

Fetch = Callable[[int, str], "object"]
Run = Callable[[EpochInput], EpochOutput]

CHECK_HELP = """\
Runs conformance vectors: recorded epochs whose results are the chain's own, to the last bit. Prints every field that
differs and ends with status 1 if any does.

  raytensor consensus check tests/consensus/vectors/*.json
  raytensor consensus check network.json --reference
"""

WHATIF_HELP = """\
Answers what the chain would pay if something were different: runs the epoch of a subnet as it is and with your
changes, to the exact rao, and prints who gains and who loses. Nothing is sent anywhere.

  raytensor consensus --netuid 1 --from metagraph.parquet set.kappa=0.6
  raytensor consensus --netuid 1 --from metagraph.parquet set.stake.5F3s…=2500alpha set.yuma3=true
  raytensor consensus --netuid 1 --endpoint ws://127.0.0.1:9944 set.weights.5F3s…=mine.json --epochs 10

Changes, any number of them, applied from left to right:

  set.FIELD=VALUE           a hyperparameter, as the chain stores it. kappa, bonds_penalty, alpha_low and alpha_high
                            are of 65535 (or a share: 0.6); bonds_moving_average is of 1000000;
                            alpha_sigmoid_steepness of 100; emission is rao; yuma3, liquid_alpha and commit_reveal
                            are true or false; owner_uid is a uid or none
  set.stake.WHO=AMOUNT      stake weight in rao (2500000000000) or alpha (2500alpha)
  set.weights.WHO=FILE      a validator's next weights, before they are sent: a JSON file {"hotkey": weight, ...}
  set.permit.WHO=true       the validator permit
  set.last_update.WHO=BLOCK the block of its last weights

WHO is a hotkey, or uid:7. Without a change the command prints what the next epoch pays.

`raytensor consensus snapshot --netuid N --endpoint URL FILE` writes a subnet of a running chain to such a file.
`raytensor consensus check FILE…` runs recorded epochs instead (see `raytensor consensus check --help`).

A new validator's weights count from the second epoch on, as the chain grants the permit in the first: use --epochs.
"""


def check_main(argv: Sequence[str]) -> int:
    """`raytensor consensus check FILE... [--reference]`. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="raytensor consensus check", description=CHECK_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="vector files (format: docs/consensus.md)")
    parser.add_argument("--reference", action="store_true", help="run the plain integer reference, not the fast path")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    args = parser.parse_args(argv)
    from raytensor.consensus.vectors import check_file

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
        print(json.dumps({"implementation": implementation, "files": results, "num_differing_files": failed}))
    else:
        total = sum(result["compared"] for result in results.values())
        print(f"{len(results) - failed} of {len(results)} files equal ({total} values, {implementation})")
    return 1 if failed else 0


def whatif_main(argv: Sequence[str], *, fetch: Fetch | None = None, on_cluster: Run | None = None) -> int:
    """`raytensor consensus --netuid N ... set.…=…`. Returns the exit status.

    fetch(netuid, endpoint): a `Snapshot` from a chain. on_cluster: runs one epoch on a Ray cluster (`consensus=ray`).
    """
    parser = argparse.ArgumentParser(
        prog="raytensor consensus", description=WHATIF_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--netuid", type=int, required=True, help="the subnet")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from", dest="file", metavar="FILE", help="a snapshot file (Parquet, see docs/consensus.md)")
    source.add_argument("--endpoint", metavar="URL", help="a chain to read the subnet from, ws://… or wss://…")
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="consecutive epochs to add up (default 1)")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="neurons to print, largest change first")
    parser.add_argument("--reference", action="store_true", help="compute with the plain integer reference")
    parser.add_argument("--json", action="store_true", help="one JSON object with every neuron")
    parser.add_argument("changes", nargs="*", metavar="CHANGE", help="set.…=…, or consensus=ray")
    args = parser.parse_args(argv)
    if args.epochs < 1:
        raise ConfigError(f"--epochs {args.epochs}: at least 1")
    from raytensor.consensus.snapshot import read_snapshot
    from raytensor.consensus.whatif import compare

    changes = [change for change in args.changes if not change.startswith("consensus=")]
    run = _runner([change for change in args.changes if change.startswith("consensus=")], args.reference, on_cluster)
    if args.file:
        snapshot = read_snapshot(args.file)
    elif fetch is None:
        raise ConfigError("--endpoint: no chain client is wired in here; export a snapshot and use --from")
    else:
        snapshot = fetch(args.netuid, args.endpoint)
    if snapshot.netuid != args.netuid:
        raise ConfigError(f"--netuid {args.netuid}: the snapshot is of subnet {snapshot.netuid}")
    comparison = compare(snapshot, changes, run, args.epochs)
    print(_as_json(comparison, args) if args.json else _as_text(comparison, changes, args))
    return 0


def _runner(choices: list[str], reference: bool, on_cluster: Run | None) -> Run:
    if choices[1:] or choices not in ([], ["consensus=ray"], ["consensus=local"]):
        raise ConfigError(f"{' '.join(choices)}: choose consensus=local or consensus=ray")
    if choices == ["consensus=ray"]:
        if on_cluster is None:
            raise ConfigError("consensus=ray: no cluster is wired in here; leave it out to compute on this machine")
        return on_cluster
    return lambda inputs: epoch(inputs, implementation="reference" if reference else "fast")


def _as_json(comparison, args: argparse.Namespace) -> str:
    snapshot = comparison.snapshot
    return json.dumps(
        {
            "netuid": snapshot.netuid,
            "mecid": snapshot.mecid,
            "block": snapshot.inputs.block,
            "num_epochs": args.epochs,
            "paid_before_rao": sum(comparison.paid_before),
            "paid_after_rao": sum(comparison.paid_after),
            "neurons": comparison.rows(),
        }
    )


def _as_text(comparison, changes: list[str], args: argparse.Namespace) -> str:
    snapshot, rows = comparison.snapshot, comparison.rows()
    gain = sum(row["change_rao"] > 0 for row in rows)
    lose = sum(row["change_rao"] < 0 for row in rows)
    period = "the next epoch" if args.epochs == 1 else f"the next {args.epochs} epochs"
    lines = [f"subnet {snapshot.netuid} at block {snapshot.inputs.block}, {period}, {snapshot.inputs.n} neurons"]
    lines.append(f"with {' '.join(changes)}: {gain} gain, {lose} lose" if changes else "as it stands")
    if not changes:
        rows = sorted(rows, key=lambda row: (-row["before_rao"], row["uid"]))
    lines.append(f"{'uid':>6}  {'hotkey':<48}  {'before (alpha)':>18}  {'after (alpha)':>18}  {'change':>18}")
    for row in rows[: args.top]:
        amounts = (_alpha(row["before_rao"]), _alpha(row["after_rao"]), _alpha(row["change_rao"], sign=True))
        lines.append(f"{row['uid']:>6}  {row['hotkey']:<48}  " + "  ".join(f"{amount:>18}" for amount in amounts))
    if len(rows) > args.top:
        lines.append(f"{len(rows) - args.top} more; --top {len(rows)} shows all")
    total = _alpha(sum(comparison.paid_before)), _alpha(sum(comparison.paid_after))
    lines.append(f"paid in all: {total[0]} before, {total[1]} after")
    return "\n".join(lines)


def _alpha(rao: int, *, sign: bool = False) -> str:
    """Exact decimal alpha of an amount of rao."""
    mark = "-" if rao < 0 else "+" if sign and rao > 0 else ""
    return f"{mark}{abs(rao) // 10**9}.{abs(rao) % 10**9:09d}"


def main(argv: Sequence[str] | None = None, *, fetch: Fetch | None = None, on_cluster: Run | None = None) -> int:
    """`raytensor consensus ...`: `check`, or a what-if."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] == ["check"]:
        return check_main(args[1:])
    return whatif_main(args, fetch=fetch, on_cluster=on_cluster)
