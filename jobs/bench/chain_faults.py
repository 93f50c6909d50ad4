"""Weight and stake intents through a network and a node that fail in every way: each applied exactly once, or reported.

One writer, many hotkeys with a coldkey each, many subnets. The intents are shared out among the classes of faults, and
during each class its faults befall requests, answers, connections or the node at random:

    proxy   drops, delays, closes half or whole connections, falls silent, duplicates (also as a load balancer that asks
            again), reorders, garbles, limits, answers 1012, 1013 and 1014 whether or not the node took the extrinsic
    node    killed with SIGKILL and started again; loses its last blocks, whose extrinsics come back or are lost;
            finalizes 40 blocks behind; its runtime is upgraded
    answer  of another backend than the one that took the extrinsic ("lying gateway"), or without any meaning
    writer  its journal is locked by another process, or its disk is full (SQLITE_FULL); a second program sends
            addresses with the same hotkeys

After each class the faults stop, the same intents are handed in once more, and what became of them is compared with the
chain: the events of every block, stake and balances to the rao, LastUpdate, rows of weights (chain_ledger.py). The
verdict is the chain's, not the writer's. `--kills N` does the same with a Ray actor that is killed at random moments
between plan and receipt (chain_kills.py).

    python jobs/bench/chain_faults.py                               10,000 intents, 20 hotkeys x 40 subnets
    python jobs/bench/chain_faults.py --intents 0 --kills 100       100 kills
    python jobs/bench/chain_faults.py --quick                       a minute
    ray job submit --working-dir . -- python jobs/bench/chain_faults.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import random
import sqlite3
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent), str(ROOT / "tests" / "chain")]

from chain_intents import Intents  # noqa: E402
from chain_ledger import Ledger, Recorder, Verdict  # noqa: E402
from chain_network import BANK, RAO, carry_out, hotkey, make_network, sudo  # noqa: E402
from faults import Fault, FaultProxy  # noqa: E402

from raytensor.chain.calls import Intent  # noqa: E402
from raytensor.chain.intents import AddStake, ServeAxon, SetWeights, Transfer  # noqa: E402
from raytensor.chain.rpc.client import ChainClient  # noqa: E402
from raytensor.chain.writer.batcher import Limits  # noqa: E402
from raytensor.chain.writer.order_states import UNUSED  # noqa: E402
from raytensor.chain.writer.policy import Policy  # noqa: E402
from raytensor.chain.writer.settings import WriterSettings  # noqa: E402
from raytensor.chain.writer.writer import ChainWriter  # noqa: E402
from raytensor.devnet.launch import EmbeddedChain  # noqa: E402
from raytensor.errors import ChainError  # noqa: E402
from raytensor.types import Fate, Receipt  # noqa: E402

FINALITY_LAG = 3
ITEMS = 5  # in one extrinsic at most: many extrinsics meet more faults than few
WHOLE_TEMPO = 50_000  # no epoch while stake is counted
SUBMIT, OTHER = 0.25, 0.02  # how likely a fault befalls a submission, and any other request
RULES: dict[str, tuple[Fault, ...]] = {
    "none": (),
    "drop": (Fault.DROP_REQUEST, Fault.DROP_ANSWER),
    "delay": (Fault.DELAY,),
    "half-close": (Fault.HALF_CLOSE, Fault.RESET_BEFORE, Fault.RESET_AFTER),
    "black hole": (Fault.BLACK_HOLE,),
    "duplicate": (Fault.DUPLICATE, Fault.UPSTREAM_RETRY, Fault.TWICE_ANSWERED),
    "reorder": (Fault.REORDER, Fault.FOREIGN),
    "garbage": (Fault.GARBAGE, Fault.CUT),
    "rate limit": (Fault.LIMITED,),
    "1012": (Fault.BANNED, Fault.BANNED_AFTER),
    "1013, 1014": (Fault.TOO_LOW, Fault.TOO_LOW_AFTER, Fault.IMPORTED_AFTER),
    "lying gateway": (Fault.BAD_SIGNATURE_AFTER, Fault.PAYMENT_AFTER, Fault.STALE_AFTER, Fault.FULL_AFTER),
    "malformed answer": (Fault.NONSENSE_AFTER, Fault.WORDS_AFTER, Fault.LIST_AFTER, Fault.NO_BLOCK_AFTER),
    "locked journal": (),
    "full disk": (),
    "second program": (),
    "finality lag": (),
    "runtime upgrade": (),
    "node killed": (),
    "fork, extrinsics return": (),
    "fork, extrinsics lost": (),
    "all of them": tuple(fault for fault in Fault if fault is not Fault.PAYMENT),
}
QUICK = ("none", "drop", "lying gateway", "full disk", "locked journal", "second program", "node killed", "all of them")
FAR_BEHIND = 40  # blocks between the best and the final one in the class "finality lag"
ONLY_SUBMISSIONS = {
    *RULES["lying gateway"],
    *RULES["malformed answer"],
    Fault.BANNED,
    Fault.BANNED_AFTER,
    Fault.TOO_LOW,
    Fault.TOO_LOW_AFTER,
    Fault.IMPORTED_AFTER,
    Fault.UPSTREAM_RETRY,
}


class Node:
    """The node behind proxies. It can be killed and started again, and lose its last blocks."""

    def __init__(self, folder: Path, block_time_s: float) -> None:
        self._folder, self._block_time_s = folder, block_time_s
        self.finality_lag = FINALITY_LAG
        self._chain = self._start()
        self.views = [FaultProxy(self._chain.endpoint) for _ in range(3)]
        self.killed = self.forked = 0
        self.recorder = Recorder(self.quiet)

    @property
    def quiet(self) -> str:
        """An endpoint without faults."""
        return self.views[0].endpoint

    @property
    def faulty(self) -> list[str]:
        return [proxy.endpoint for proxy in self.views[1:]]

    def _start(self) -> EmbeddedChain:
        return EmbeddedChain(
            self._folder / "state", self._block_time_s, self._folder / "log", 60.0, finality_lag=self.finality_lag
        )

    def set_finality_lag(self, blocks: int) -> None:
        """Start the node again, so that its final block is so far behind."""
        self.finality_lag = blocks
        self.kill(random.Random(blocks))

    def kill(self, dice: random.Random) -> None:
        """At a random moment, but not in the few milliseconds before the events of a new block have been read."""
        self.recorder.wait_for_next()
        time.sleep(dice.uniform(0, 0.6 * self._block_time_s))
        os.kill(self._chain.pid, 9)
        self._chain.close()
        self._chain = self._start()
        for proxy in self.views:
            proxy.target = self._chain.endpoint
        self.killed += 1

    def lose_blocks(self, count: int, *, keep: bool) -> None:
        self.forked += self._ask("dev_rollBack", [{"count": count, "keep": keep}])

    def upgrade(self) -> None:
        self.forked += self._ask("dev_upgradeRuntime", [])

    def _ask(self, method: str, params: list) -> bool:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        request = urllib.request.Request(
            self._chain.endpoint.replace("ws://", "http://"),
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return "result" in json.load(answer)

    def set_rule(self, rule: Callable[[str], Fault | None]) -> None:
        for proxy in self.views[1:]:
            proxy.rule = rule

    def faults(self) -> Counter[Fault]:
        return sum((proxy.faults for proxy in self.views[1:]), Counter())

    def close(self) -> None:
        self.recorder.close()
        for proxy in self.views:
            proxy.close()
        self._chain.close()


class Disk:
    """The journal of the writer: another process locks it, or the disk under it is full."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path, self._connection = path, connection
        self.troubled = 0
        connection.execute("PRAGMA busy_timeout = 100")  # SQLite waits for 30 s otherwise

    def lock(self, seconds: float) -> None:
        self.troubled += 1
        with contextlib.closing(sqlite3.connect(self._path, timeout=10.0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            other.execute("ROLLBACK")

    def fill(self, seconds: float) -> None:
        """Let no page be added: SQLITE_FULL, as on a full disk."""
        self.troubled += 1
        self._connection.execute("PRAGMA max_page_count = 1")  # at least the pages that there are
        time.sleep(seconds)
        self._connection.execute("PRAGMA max_page_count = 1073741823")


class Stranger:
    """A second program with the hotkeys of the writer: it publishes addresses."""

    def __init__(self, endpoint: str, num_hotkeys: int, netuids: list[int]) -> None:
        self._client, self._netuids = ChainClient(endpoint, 20.0), netuids
        self._keys = [hotkey(n) for n in range(num_hotkeys)]
        self.sent = 0

    def send(self, dice: random.Random) -> None:
        key, netuid = dice.choice(self._keys), dice.choice(self._netuids)
        call = ServeAxon(signer=key.ss58, netuid=netuid, ip=f"10.0.0.{dice.randint(1, 250)}", port=9000).call()
        try:
            self._client.send(call, key.open(), timeout_s=5.0)
            self.sent += 1
        except ChainError:
            pass  # its nonce was taken by the writer, or the rate limit of addresses holds


class Trouble:
    """The faults of one class, while it is entered."""

    def __init__(self, name: str, node: Node, seed: int, disk: Disk, stranger: Stranger) -> None:
        self._name, self._node, self._random = name, node, random.Random(f"{seed} {name}")
        self._disk, self._stranger = disk, stranger
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._hurt_the_node, daemon=True)

    def __enter__(self) -> None:
        if self._name == "finality lag":
            self._node.set_finality_lag(FAR_BEHIND)
        self._node.set_rule(self._rule)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._node.set_rule(lambda method: None)
        if self._name == "finality lag":
            self._node.set_finality_lag(FINALITY_LAG)
        for proxy in self._node.views[1:]:
            proxy.mode = "open"
            proxy.cut()  # black holes end here

    def _rule(self, method: str) -> Fault | None:
        with self._lock:  # two proxies ask
            submits = method == "author_submitExtrinsic"
            choice = [fault for fault in RULES[self._name] if submits or fault not in ONLY_SUBMISSIONS]
            if choice and self._random.random() < (SUBMIT if submits else OTHER):
                return self._random.choice(choice)
            return None

    def _hurt_the_node(self) -> None:
        dice = random.Random(f"{self._name} node {self._random.random()}")
        every = self._name == "all of them"
        pause = 0.3
        while not self._stop.wait(pause):
            pause = dice.uniform(0.6, 2.0)
            deed = dice.choice(["kill", "keep", "lose", "limit", "lock", "fill"]) if every else self._name
            if deed in ("kill", "node killed"):
                self._node.kill(dice)
                self._stop.wait(2.0)  # it lives for some blocks
            elif deed in ("keep", "fork, extrinsics return"):
                self._node.lose_blocks(dice.randint(1, FINALITY_LAG), keep=True)
            elif deed in ("lose", "fork, extrinsics lost"):
                self._node.lose_blocks(dice.randint(1, FINALITY_LAG), keep=False)
            elif deed in ("lock", "locked journal"):
                self._disk.lock(dice.uniform(0.2, 1.0))
            elif deed in ("fill", "full disk"):
                self._disk.fill(dice.uniform(0.2, 1.0))
            elif deed == "second program":
                self._stranger.send(dice)
            elif deed == "runtime upgrade":
                self._node.upgrade()
            elif deed in ("limit", "rate limit"):
                self._node.views[1].mode = "limit"
                self._stop.wait(0.5)
                self._node.views[1].mode = "open"


def prepare(node: Node, folder: Path, hotkeys: int, subnets: int) -> list[int]:
    """Subnets with validators and coldkeys with funds and stake, made without faults."""
    signers = {
        key.ss58: key for key in (BANK, *(hotkey(n) for n in range(hotkeys)), *map(Intents.coldkey, range(hotkeys)))
    }
    options = {
        "timeout_s": 60.0,
        "inclusion_timeout_s": 600.0,
        "policy": Policy(transfers=True),
        "stop_on_foreign": False,
    }
    writer = ChainWriter(node.quiet, signers, folder / "prepare.db", WriterSettings(**options))
    with ChainClient(node.quiet, 60.0) as client:
        netuids = make_network(client, writer, hotkeys, subnets, tempo=10)
        sudo(client, [("sudo_set_tempo", [netuid, WHOLE_TEMPO]) for netuid in netuids])
        colds = [Intents.coldkey(n).ss58 for n in range(hotkeys)]
        carry_out(writer, [Transfer(signer=BANK.ss58, dest=cold, value=5000 * RAO) for cold in colds])
        carry_out(
            writer,
            [
                AddStake(signer=cold, hotkey=hotkey(n).ss58, netuid=netuid, amount_staked=20 * RAO)
                for n, cold in enumerate(colds)
                for netuid in netuids
            ],
        )
        final(client)
    writer.close()
    return netuids


def final(client: ChainClient, timeout_s: float = 120.0) -> None:
    """Waits until the block that is best now is final."""
    best, deadline = client.head().number, time.monotonic() + timeout_s
    while client.finalized().number < best:
        if time.monotonic() > deadline:
            raise SystemExit(f"block {best} was not final after {timeout_s:g} s")
        time.sleep(0.05)


def hand_in(writer: ChainWriter, intents: list[Intent], size: int) -> dict[str, Receipt]:
    """In portions, as a validator would: a place has one row of weights in a portion at most."""
    found = {}
    for at in range(0, len(intents), size):
        portion = intents[at : at + size]
        found |= {receipt.intent_id: receipt for receipt in submit(writer, portion)}
    return found


def submit(writer: ChainWriter, intents: list[Intent]) -> list[Receipt]:
    """As a caller does whose journal may be locked or full: what raised is handed in again."""
    for _ in range(60):
        try:
            return writer.submit(intents)
        except sqlite3.OperationalError:
            time.sleep(0.2)
    raise SystemExit("the journal could not be written for 60 tries")


def settle(
    writer: ChainWriter, client: ChainClient, intents: list[Intent], receipts: dict[str, Receipt]
) -> dict[str, Receipt]:
    """Without faults: submits again what has no fate or may have lost it, until the chain is final and unchanged.

    Weights that were not set are not handed in again once newer ones of their place were.
    """
    for _ in range(6):
        final(client)
        newest = {
            (i.netuid, i.signer): i.intent_id
            for i in intents
            if isinstance(i, SetWeights) and receipts[i.intent_id].fate is Fate.INCLUDED
        }
        order = {i.intent_id: at for at, i in enumerate(intents)}
        again = [
            i
            for i in intents
            if not isinstance(i, SetWeights)
            or receipts[i.intent_id].fate in (Fate.INCLUDED, Fate.UNKNOWN)
            or order[newest.get((i.netuid, i.signer), i.intent_id)] <= order[i.intent_id]
        ]
        now = receipts | {
            receipt.intent_id: receipt
            for at in range(0, len(again), 100)
            for receipt in submit(writer, again[at : at + 100])
        }
        if now == receipts and all(receipt.fate is not Fate.UNKNOWN for receipt in now.values()):
            return now
        receipts = now
    return receipts


def row(name: str, num: int, first: dict[str, Receipt], verdict: Verdict, faults: int, took: float) -> str:
    fates = Counter(receipt.fate for receipt in first.values())
    unknown = fates[Fate.UNKNOWN]
    return (
        f"{name:<24}{num:>8}{faults:>8}{unknown:>9}{verdict.included:>9}{verdict.reported:>10}"
        f"{len(verdict.wrong):>7}{took:>9.1f}"
    )


def _troubles(node: Node, disk: Disk, stranger: Stranger) -> int:
    return node.faults().total() + node.killed + node.forked + disk.troubled + stranger.sent


def run_classes(
    args: argparse.Namespace, node: Node, folder: Path, netuids: list[int]
) -> tuple[int, int, int, list[str]]:
    """(intents, applied, reported, what is wrong) over all classes; prints the table."""
    names = [name for name in RULES if not args.quick or name in QUICK]
    made = Intents(netuids, args.hotkeys, args.seed)
    signers = {key.ss58: key for n in range(args.hotkeys) for key in (hotkey(n), Intents.coldkey(n))}
    writer = ChainWriter(
        node.faulty,
        signers,
        folder / "writer.db",
        WriterSettings(
            timeout_s=args.timeout,
            inclusion_timeout_s=20.0,
            era_blocks=32,
            limits=Limits(max_items=ITEMS),
            policy=Policy(unstaking=True, transfers=True),
        ),
    )
    client = ChainClient(node.quiet, 60.0)
    disk = Disk(folder / "writer.db", writer._journal._db)
    stranger = Stranger(node.quiet, args.hotkeys, netuids)
    columns = f"{'faults':<24}{'intents':>8}{'faults':>8}{'unknown':>9}{'applied':>9}{'reported':>10}{'wrong':>7}"
    columns += f"{'seconds':>9}"
    print(f"\n{columns}", flush=True)
    total = applied = reported = 0
    wrong: list[str] = []
    for number, name in enumerate(names):
        share = args.intents // len(names) + (number < args.intents % len(names))
        intents = made.take(share)
        final(client)
        ledger = Ledger(client, node.recorder, netuids, [hotkey(n).ss58 for n in range(args.hotkeys)], made.coldkeys)
        before, started = _troubles(node, disk, stranger), time.monotonic()
        with Trouble(name, node, args.seed, disk, stranger):
            first = hand_in(writer, intents, args.portion)
        befell = _troubles(node, disk, stranger) - before
        receipts = settle(writer, client, intents, first)
        final(client)
        verdict = ledger.judge([(intent, receipts[intent.intent_id]) for intent in intents])
        verdict.wrong += [
            f"{receipt.call} {intent_id}: reported {receipt.error}, and later {receipts[intent_id].fate.value}"
            for intent_id, receipt in first.items()
            if receipt.fate is Fate.FAILED and receipt.error not in UNUSED and receipts[intent_id] != receipt
        ]
        print(row(name, share, first, verdict, befell, time.monotonic() - started), flush=True)
        for line in verdict.wrong[:5]:
            print(f"    {line}", flush=True)
        total, applied, reported = total + share, applied + verdict.included, reported + verdict.reported
        wrong += [f"{name}: {line}" for line in verdict.wrong]
        errors = Counter(r.error for r in receipts.values() if r.fate is not Fate.INCLUDED)
        if errors:
            print(f"    reported as {', '.join(f'{error} ({n})' for error, n in errors.most_common(4))}", flush=True)
    writer.close()
    client.close()
    return total, applied, reported, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--intents", type=int, default=None, help="default 10,000; 168 with --quick")
    parser.add_argument(
        "--kills", type=int, default=0, help="kills of a Ray actor between plan and receipt (default 0)"
    )
    parser.add_argument("--hotkeys", type=int, default=None, help="default 20; 3 with --quick")
    parser.add_argument("--subnets", type=int, default=None, help="default 40; 4 with --quick")
    parser.add_argument("--portion", type=int, default=None, help="intents handed in at once; default 200, or 12")
    parser.add_argument("--block-time", type=float, default=None, help="seconds (default 0.5; 0.25 with --quick)")
    parser.add_argument("--timeout", type=float, default=1.0, help="the writer's time-out for a request (default 1 s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="fewer classes, and small")
    args = parser.parse_args()
    for name, full, quick in (
        ("intents", 10_000, 168),
        ("hotkeys", 20, 3),
        ("subnets", 40, 4),
        ("portion", 200, 12),
        ("block_time", 0.5, 0.25),
    ):
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else full)
    if (
        min(args.intents, args.kills) < 0
        or not 2 <= args.hotkeys <= 60
        or not 1 <= args.subnets <= 120
        or args.portion < 1
    ):
        parser.error("2 to 60 hotkeys, 1 to 120 subnets, and no negative numbers")
    logging.getLogger("raytensor").setLevel(logging.CRITICAL)  # every fault would be logged
    folder = Path(tempfile.mkdtemp(prefix="raytensor-faults-"))
    node = Node(folder, args.block_time)
    goals, wrong = [], []
    try:
        started = time.monotonic()
        netuids = prepare(node, folder, args.hotkeys, args.subnets)
        print(
            f"{args.hotkeys} hotkeys x {args.subnets} subnets, {args.block_time:g} s blocks, "
            f"final {FINALITY_LAG} behind, at most {ITEMS} items an extrinsic, seed {args.seed}; "
            f"set up in {time.monotonic() - started:.0f} s",
            flush=True,
        )
        if args.intents:
            total, applied, reported, bad = run_classes(args, node, folder, netuids)
            wrong += bad
            print(
                f"\n{total} intents: {applied} applied exactly once, {reported} reported not applied, {len(bad)} wrong"
            )
            goals += [
                {"name": "intents", "value": total, "unit": "", "goal": None, "ok": total == applied + reported},
                {"name": "applied exactly once", "value": applied, "unit": "", "goal": None, "ok": applied > 0},
                {"name": "reported as not applied", "value": reported, "unit": "", "goal": None, "ok": True},
                {"name": "wrong by the chain's word", "value": len(bad), "unit": "", "goal": 0, "ok": not bad},
            ]
        if args.kills:
            from chain_kills import run_kills

            kills, num, bad = run_kills(args, node, folder, netuids)
            wrong += bad
            goals += [
                {
                    "name": "kills between plan and receipt",
                    "value": kills,
                    "unit": "",
                    "goal": args.kills,
                    "ok": kills >= args.kills,
                },
                {"name": "intents through kills", "value": num, "unit": "", "goal": None, "ok": num > 0},
                {
                    "name": "applied twice or lost through kills",
                    "value": len(bad),
                    "unit": "",
                    "goal": 0,
                    "ok": not bad,
                },
            ]
    except ChainError as error:
        print(f"ended by {type(error).__name__}: {error}", file=sys.stderr)
        wrong.append(str(error))
        goals.append({"name": "ended by an error", "value": 1, "unit": "", "goal": 0, "ok": False})
    finally:
        node.close()
    for line in wrong[:20]:
        print(f"WRONG {line}")
    python = platform.python_version()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {python}"
    print(json.dumps({"bench": "chain_faults", "machine": machine, "goals": goals}))
    return 0 if not wrong and all(goal["ok"] for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
