"""The classes of faults one after the other: intents handed in during each, settled after it, judged by the chain.

In: a node, netuids on which the hotkeys are validators. Out: for each class how often its faults befell, and the
verdict on its intents (chain_ledger.py).
"""

from __future__ import annotations

import argparse
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chain_intents import Intents
from chain_ledger import Ledger, Verdict
from chain_network import BANK, RAO, carry_out, final, hotkey, make_network, sudo
from chain_node import Node
from chain_trouble import QUICK, RULES, Disk, Stranger, Surroundings, Trouble

from raytensor.chain.calls import Intent
from raytensor.chain.intents import AddStake, SetWeights, Transfer
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.writer.batcher import Limits
from raytensor.chain.writer.order_states import UNUSED
from raytensor.chain.writer.policy import Policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.types import Fate, Receipt

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
        final(client)
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


def _row(name: str, num: int, first: dict[str, Receipt], verdict: Verdict, faults: int, took: float) -> str:
    fates = Counter(receipt.fate for receipt in first.values())
    unknown = fates[Fate.UNKNOWN]
    return (
        f"{name:<24}{num:>8}{faults:>8}{unknown:>9}{verdict.included:>9}{verdict.reported:>10}"
        f"{len(verdict.wrong):>7}{took:>9.1f}"
    )


@dataclass
class Outcome:
    """What came of all classes. met: how often the faults of each befell."""

    total: int = 0
    applied: int = 0
    reported: int = 0
    wrong: list[str] = field(default_factory=list)
    met: dict[str, int] = field(default_factory=dict)


def make_writer(args: argparse.Namespace, node: Node, folder: Path) -> ChainWriter:
    signers = {key.ss58: key for n in range(args.hotkeys) for key in (hotkey(n), Intents.coldkey(n))}
    return ChainWriter(
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


class Classes:
    """One writer, one client without faults, and the intents that all classes share."""

    def __init__(self, args: argparse.Namespace, node: Node, folder: Path, netuids: list[int]) -> None:
        self._args, self._node, self._netuids = args, node, netuids
        self._made = Intents(netuids, args.hotkeys, args.seed)
        self._writer, self._client = make_writer(args, node, folder), ChainClient(node.quiet, 60.0)
        self._stranger = Stranger(node.quiet, args.hotkeys, netuids)
        disk = Disk(folder / "writer.db", self._writer._journal._db)
        self._around = Surroundings(node, disk, self._stranger)
        self.outcome = Outcome()

    def run(self, names: tuple[str, ...], share: int) -> None:
        name = names[0] if len(names) == 1 else f"{names[0]}, and {len(names) - 1} more"
        intents = self._made.take(share)
        hotkeys = [hotkey(n).ss58 for n in range(self._args.hotkeys)]
        final(self._client)
        ledger = Ledger(self._client, self._node.recorder, self._netuids, hotkeys, self._made.coldkeys)
        before, started = self._around.count(), time.monotonic()
        with Trouble(names, self._around, self._args.seed):
            first = hand_in(self._writer, intents, self._args.portion)
        met = self._around.count() - before
        for one in names:
            self.outcome.met[one] = met.total() if one == "all of them" else met[one]
        receipts = settle(self._writer, self._client, intents, first)
        final(self._client)
        verdict = ledger.judge([(intent, receipts[intent.intent_id]) for intent in intents])
        verdict.wrong += revived(first, receipts)
        print(_row(name, share, first, verdict, met.total(), time.monotonic() - started), flush=True)
        for line in verdict.wrong[:5]:
            print(f"    {line}", flush=True)
        errors = Counter(r.error for r in receipts.values() if r.fate is not Fate.INCLUDED)
        if errors:
            print(f"    reported as {', '.join(f'{error} ({n})' for error, n in errors.most_common(4))}", flush=True)
        self._add(name, share, verdict)

    def _add(self, name: str, share: int, verdict: Verdict) -> None:
        found = self.outcome
        found.total, found.applied = found.total + share, found.applied + verdict.included
        found.reported += verdict.reported
        found.wrong += [f"{name}: {line}" for line in verdict.wrong]

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


def run_classes(args: argparse.Namespace, node: Node, folder: Path, netuids: list[int]) -> Outcome:
    """All classes, or the quick ones; prints the table row by row."""
    passes = QUICK if args.quick else tuple((name,) for name in RULES)
    print(f"\n{COLUMNS}", flush=True)
    classes = Classes(args, node, folder, netuids)
    for number, names in enumerate(passes):
        classes.run(names, args.intents // len(passes) + (number < args.intents % len(passes)))
    classes.close()
    return classes.outcome
