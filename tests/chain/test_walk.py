"""The walk of docs/how_it_works.md from `Weights` to `Receipt` is the one that weights take: a trace of real ones."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.calls import Intent
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.writer.batcher import Item, Planned
from raytensor.chain.writer.extrinsic_table import Extrinsic, Sent
from raytensor.chain.writer.fates import Settled
from raytensor.chain.writer.orders import Order
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.types import Fate, Receipt, Weights

ROOT = Path(__file__).resolve().parents[2]
FORMS = (Weights, Intent, Order, Item, Planned, Extrinsic, Sent, Settled, Receipt)  # of what was `Weights` at first
WALK = (ROOT / "docs" / "how_it_works.md").read_text().split("## From a task to a receipt")[1].split("\n## ")[0]


def forms_in(value: object) -> Iterator[str]:
    """Names of the forms among an argument, or what a collection begins with."""
    if isinstance(value, dict):
        value = list(value.values())
    first = value[0] if isinstance(value, list | tuple) and value else value
    yield from (form.__name__ for form in FORMS if isinstance(value, form) or isinstance(first, form))


class Trace:
    """The files of the package in which a function was given one of `FORMS`, while it is entered."""

    def __init__(self) -> None:
        self.files: dict[str, set[str]] = {}

    def __enter__(self) -> Trace:
        threading.setprofile(self._look)
        sys.setprofile(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _look(self, frame, event, _) -> None:
        code = frame.f_code
        if event != "call" or "/raytensor/" not in code.co_filename or code.co_name.startswith(("__", "<")):
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        found = {form for name in names if name != "self" for form in forms_in(frame.f_locals.get(name))}
        if found:
            self.files.setdefault(code.co_filename.rpartition("/raytensor/")[2], set()).update(found)


def test_weights_pass_the_files_of_the_walk(node, client, shared_blocks, fresh, tmp_path):
    hotkey, cold = fresh("hot"), fresh("cold")
    neurons = [Neuron("owner", "owner", fresh("o"), fresh("oc")), Neuron("v", "validator", hotkey, cold, 500 * 10**9)]
    neurons.append(Neuron("m", "miner", fresh("m"), fresh("mc")))
    netuid = make_subnet(client, SubnetSpec(neurons, tempo=4)).netuid
    graph = read_metagraph(client, netuid)
    shared_blocks.up_to(graph.next_epoch_block + 5)
    with Trace() as trace:
        writer = ChainWriter(node, {hotkey.ss58: hotkey}, tmp_path / "journal.sqlite", WriterSettings(timeout_s=30))
        cursor, _ = writer.receipts_since(None)
        writer.hold([Weights(netuid, hotkey.ss58, {neurons[2].hotkey.ss58: 1.0}, made_at_block=graph.block)])
        end, receipts = time.monotonic() + 120, []
        while not (receipts and receipts[-1].fate.final) and time.monotonic() < end:
            time.sleep(0.05)
            receipts = writer.receipts_since(cursor)[1]
        writer.close()
    assert receipts[-1].fate is Fate.INCLUDED
    section = WALK.split("| from `Weights` to `Receipt` |")[1]
    numbered = re.findall(r"^\| \d+\. `([^`]+)`", section, re.MULTILINE)
    assert len(numbered) <= 12 and numbered[0] == "jobs/handover.py", "which gives them to `hold` of the writer"
    assert set(numbered[1:]) <= set(trace.files), "a file of the walk is given no item"
    named = set(re.findall(r"`([a-z_/]+\.py)`", WALK))
    assert set(trace.files) <= named, "a file that is given an item is not named"


def test_each_file_of_the_walk_is_numbered_once_and_they_are_few():
    first = re.findall(r"^\| \d+\. `([^`]+)`", WALK.split("| from `Weights` to `Receipt` |")[0], re.MULTILINE)
    wire = [name for name in first if name.startswith("wire/")]
    cluster = [name for name in first if name.startswith("miners/")]
    assert len(set(first)) == len(first) and wire and cluster
    assert len(first) - len(wire) <= 15 and len(first) - len(cluster) <= 15
