"""The classes of faults one after the other: intents handed in during each, settled after it, judged by the chain.

In: a node, netuids on which the hotkeys are validators. Out: for each class how often its faults befell, and the
verdict on its intents (chain_ledger.py), printed and written to a file as soon as it is known. A class that ends with
an error is reported, and the next one follows.
"""

from __future__ import annotations

import argparse
import json
import logging
import sqlite3
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from chain_intents import Intents
from chain_ledger import Ledger
from chain_network import BANK, RAO, carry_out, hotkey, make_network, sudo
from chain_node import Node
from chain_trouble import QUICK, Disk, Stranger, Surroundings, Trouble

from raytensor.chain.calls import Intent
from raytensor.chain.intents import AddStake, SetWeights, Transfer
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.writer.batcher import Limits
from raytensor.chain.writer.order_states import UNUSED
from raytensor.chain.writer.policy import Policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.types import Fate, Receipt

log = logging.getLogger(__name__)

ITEMS = 5  # in one extrinsic at most: many extrinsics meet more faults than few
WHOLE_TEMPO = 50_000  # no epoch while stake is counted
COLUMNS = (
    f"{'faults':<24}{'intents':>8}{'met':>8}{'unknown':>9}{'applied':>9}{'reported':>10}{'wrong':>7}{'seconds':>9}"
)


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
    node.finalize()
    writer.close()
    return netuids


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


def settle(writer: ChainWriter, node: Node, intents: list[Intent], receipts: dict[str, Receipt]) -> dict[str, Receipt]:
    """Without faults: submits again what has no fate or may have lost it, until the chain is final and unchanged.

    Weights that were not set are not handed in again once newer ones of their place were.
    """
    for _ in range(6):
        node.finalize()
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


@dataclass
class Row:
    """What came of one class. met: how often its faults befell. error: why it has no verdict, "" if it has one."""

    faults: str
    intents: int
    met: dict[str, int] = field(default_factory=dict)
    unknown: int = 0
    applied: int = 0
    reported: int = 0
    wrong: list[str] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""

    def show(self) -> None:
        print(
            f"{self.faults:<24}{self.intents:>8}{sum(self.met.values()):>8}{self.unknown:>9}{self.applied:>9}"
            f"{self.reported:>10}{len(self.wrong):>7}{self.seconds:>9.1f}",
            flush=True,
        )
        for line in [self.error and f"ended by {self.error}", *self.wrong[:5]]:
            if line:
                print(f"    {line}", flush=True)
        if self.errors:
            print(f"    reported as {', '.join(f'{error} ({n})' for error, n in self.errors.items())}", flush=True)


def make_writer(args: argparse.Namespace, node: Node, folder: Path) -> ChainWriter:
    signers = {key.ss58: key for n in range(args.hotkeys) for key in (hotkey(n), Intents.coldkey(n))}
    return ChainWriter(
        node.faulty,
        signers,
        folder / "writer.db",
        WriterSettings(
            timeout_s=args.timeout,
            inclusion_timeout_s=8.0 if args.quick else 20.0,
            era_blocks=32,
            limits=Limits(max_items=ITEMS),
            policy=Policy(unstaking=True, transfers=True),
        ),
    )


class Classes:
    """One writer, one client without faults, and the intents that all classes share."""

    def __init__(self, args: argparse.Namespace, node: Node, folder: Path, netuids: list[int]) -> None:
        self._args, self._node, self._netuids = args, node, netuids
        self._made = Intents(netuids, args.hotkeys, args.seed)
        self._writer, self._client = make_writer(args, node, folder), ChainClient(node.quiet, 60.0)
        self._stranger = Stranger(node.quiet, args.hotkeys, netuids)
        disk = Disk(folder / "writer.db", self._writer._journal._db)
        self._around = Surroundings(node, disk, self._stranger)

    def run(self, names: tuple[str, ...], share: int) -> Row:
        row = Row(names[0] if len(names) == 1 else f"{names[0]}, and {len(names) - 1} more", share)
        intents, started = self._made.take(share), time.monotonic()
        with self._node.blocks.following(self._writer):
            try:
                self._play(names, intents, row)
            except Exception as error:  # this edge: whatever ends one class, the others go on, and the run has failed
                log.exception("class %s", row.faults)
                row.error = f"{type(error).__name__}: {error}"
                self._drain(intents)
        row.seconds = round(time.monotonic() - started, 1)
        return row

    def _play(self, names: tuple[str, ...], intents: list[Intent], row: Row) -> None:
        hotkeys = [hotkey(n).ss58 for n in range(self._args.hotkeys)]
        self._node.finalize()
        ledger = Ledger(self._client, self._node.recorder, self._netuids, hotkeys, self._made.coldkeys)
        before = self._around.count()
        with Trouble(names, self._around, self._args.seed):
            first = hand_in(self._writer, intents, self._args.portion)
        met = self._around.count() - before
        row.met = {one: met.total() if one == "all of them" else met[one] for one in names}
        row.unknown = sum(receipt.fate is Fate.UNKNOWN for receipt in first.values())
        receipts = settle(self._writer, self._node, intents, first)
        self._node.finalize()
        verdict = ledger.judge([(intent, receipts[intent.intent_id]) for intent in intents])
        row.applied, row.reported = verdict.included, verdict.reported
        row.wrong = verdict.wrong + revived(first, receipts)
        row.errors = dict(Counter(r.error or "" for r in receipts.values() if r.fate is not Fate.INCLUDED))

    def _drain(self, intents: list[Intent]) -> None:
        """Nothing of a class that has ended with an error happens during the next one."""
        try:
            settle(self._writer, self._node, intents, hand_in(self._writer, intents, self._args.portion))
        except Exception:  # the same edge: the next class has its verdict, or an error of its own
            log.exception("after an error")

    def close(self) -> None:
        self._writer.close()
        self._client.close()
        self._stranger.close()


def revived(first: dict[str, Receipt], last: dict[str, Receipt]) -> list[str]:
    """Intents that were told FAILED and have another receipt later."""
    return [
        f"{receipt.call} {intent_id}: reported {receipt.error}, and later {last[intent_id].fate.value}"
        for intent_id, receipt in first.items()
        if receipt.fate is Fate.FAILED and receipt.error not in UNUSED and last[intent_id] != receipt
    ]


def run_classes(args: argparse.Namespace, node: Node, folder: Path, netuids: list[int]) -> list[Row]:
    """All classes, the quick ones, or those that were chosen; shows and writes each when it has ended."""
    passes = QUICK if args.quick else tuple((name,) for name in args.classes)
    print(f"\n{COLUMNS}", flush=True)
    classes, rows = Classes(args, node, folder, netuids), []
    for number, names in enumerate(passes):
        row = classes.run(names, args.intents // len(passes) + (number < args.intents % len(passes)))
        row.show()
        with args.results.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        rows.append(row)
    classes.close()
    return rows
