"""Weight and stake intents through a network and a node that fail in every way: each applied exactly once, or reported.

One writer, many hotkeys with a coldkey each, many subnets. The intents are shared out among the classes of faults, and
during each class its faults befall requests, answers, connections or the node at random:

    proxy   drops, delays, closes half or whole connections, falls silent, duplicates (also as a load balancer that asks
            again), reorders, garbles, limits, answers 1012, 1013 and 1014 whether or not the node took the extrinsic
    node    killed with SIGKILL and started again; loses its last blocks, whose extrinsics come back or are lost;
            finalizes 40 blocks behind; its runtime is upgraded
    answer  of another backend than the one that took the extrinsic ("lying gateway"), without any meaning, or sent byte
            by byte until long after the deadline ("dripping endpoint")
    writer  its journal is locked by another process, or its disk is full (SQLITE_FULL); its wall clock jumps by an
            hour; a second program sends addresses with the same hotkeys

After each class the faults stop, the same intents are handed in once more, and what became of them is compared with the
chain: the events of every block, stake and balances to the rao, LastUpdate, rows of weights (chain_ledger.py). The
verdict is the chain's, not the writer's. `--kills N` does the same with a Ray actor that is killed at random moments
between plan and receipt (chain_kills.py).

    python jobs/bench/chain_faults.py                               10,000 intents, 10 hotkeys x 20 subnets
    python jobs/bench/chain_faults.py --classes drop "node killed"  some classes
    python jobs/bench/chain_faults.py --intents 0 --kills 200       200 kills
    python jobs/bench/chain_faults.py --quick                       several classes at once, and small
    ray job submit --working-dir . -- python jobs/bench/chain_faults.py
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent), str(ROOT / "tests" / "chain")]

from chain_classes import ITEMS, Row, prepare, run_classes  # noqa: E402
from chain_kills import run_kills  # noqa: E402
from chain_node import FINALITY_LAG, Node  # noqa: E402
from chain_trouble import RULES  # noqa: E402


def parse(folder: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--intents", type=int, default=None, help="default 10,000; 168 with --quick")
    parser.add_argument("--classes", nargs="+", choices=RULES, default=list(RULES), metavar="NAME", help="default all")
    parser.add_argument(
        "--kills", type=int, default=0, help="kills of a Ray actor between plan and receipt (default 0)"
    )
    parser.add_argument("--hotkeys", type=int, default=None, help="default 10; 3 with --quick")
    parser.add_argument("--subnets", type=int, default=None, help="default 20; 4 with --quick")
    parser.add_argument("--portion", type=int, default=None, help="intents handed in at once; default 200, or 12")
    parser.add_argument("--timeout", type=float, default=1.0, help="the writer's time-out for a request (default 1 s)")
    parser.add_argument("--results", type=Path, default=folder / "results.jsonl", help="file, a line for each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="several classes at once, and small")
    args = parser.parse_args()
    for name, full, quick in (("intents", 10_000, 168), ("hotkeys", 10, 3), ("subnets", 20, 4), ("portion", 200, 12)):
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else full)
    if (
        min(args.intents, args.kills) < 0
        or not 2 <= args.hotkeys <= 60
        or not 1 <= args.subnets <= 120
        or args.portion < 1
    ):
        parser.error("2 to 60 hotkeys, 1 to 120 subnets, and no negative numbers")
    return args


def goal(name: str, value: int, wanted: int | None, ok: bool) -> dict:
    return {"name": name, "value": value, "unit": "", "goal": wanted, "ok": ok}


def goals_of_classes(rows: list[Row]) -> list[dict]:
    met = {name: times for row in rows for name, times in row.met.items() if name != "none"}
    total, applied, reported = (sum(getattr(row, name) for row in rows) for name in ("intents", "applied", "reported"))
    bad, erred = sum(len(row.wrong) for row in rows), sum(bool(row.error) for row in rows)
    print(f"\n{total} intents: {applied} applied exactly once, {reported} reported not applied, {bad} wrong")
    return [goal(f"{name}: times met", times, 1, times >= 1) for name, times in met.items()] + [
        goal("intents", total, None, total == applied + reported),
        goal("applied exactly once", applied, None, applied > 0),
        goal("reported as not applied", reported, None, True),
        goal("wrong by the chain's word", bad, 0, not bad),
        goal("classes that ended with an error", erred, 0, not erred),
    ]


def goals_of_kills(wanted: int, kills: int, num: int, bad: list[str]) -> list[dict]:
    for line in bad[:20]:
        print(f"WRONG {line}")
    return [
        goal("kills between plan and receipt", kills, wanted, kills >= wanted),
        goal("intents through kills", num, None, num > 0),
        goal("applied twice or lost through kills", len(bad), 0, not bad),
    ]


def play(args: argparse.Namespace, node: Node, folder: Path) -> list[dict]:
    """The goals."""
    started = time.monotonic()
    netuids = prepare(node, folder, args.hotkeys, args.subnets)
    print(
        f"{args.hotkeys} hotkeys x {args.subnets} subnets, blocks on demand, "
        f"final {FINALITY_LAG} behind, at most {ITEMS} items an extrinsic, seed {args.seed}; "
        f"set up in {time.monotonic() - started:.0f} s; results in {args.results}",
        flush=True,
    )
    goals = goals_of_classes(run_classes(args, node, folder, netuids)) if args.intents else []
    if args.kills:
        goals += goals_of_kills(args.kills, *run_kills(args, node, folder, netuids))
    return goals


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="raytensor-faults-"))
    args = parse(folder)
    logging.getLogger("raytensor").setLevel(logging.CRITICAL)  # every fault would be logged
    started, node = time.monotonic(), Node(folder)
    try:
        goals = play(args, node, folder)
    finally:
        node.close()
    python = platform.python_version()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {python}"
    print(f"{time.monotonic() - started:.0f} s in all")
    print(json.dumps({"bench": "chain_faults", "machine": machine, "goals": goals}))
    return 0 if all(one["ok"] for one in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
