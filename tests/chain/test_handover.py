"""How jobs give weights and commitments to the chain writer: a real writer actor on a real node."""

import os
import signal

import pytest

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.intents import SetCommitment
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.actor import writer_actor
from raytensor.chain.writer.lease import holders
from raytensor.chain.writer.settings import WriterSettings
from raytensor.jobs.handover import Handover
from raytensor.telemetry import events
from raytensor.types import Fate, Weights

RAO = 10**9
VALIDATOR, FIRST, SECOND, STRANGER = (DevKey(f"//handover//hot//{n}") for n in range(4))


@pytest.fixture(scope="module")
def netuid(node, shared_blocks):
    """A subnet with a validator that has its permit, and two miners."""
    neurons = [
        Neuron(name, role, hotkey, DevKey(f"//handover//cold//{name}"), stake * RAO)
        for name, role, hotkey, stake in (
            ("validator", "validator", VALIDATOR, 1000),
            ("first", "miner", FIRST, 0),
            ("second", "miner", SECOND, 0),
        )
    ]
    with ChainClient(node, timeout_s=60) as client:
        made = make_subnet(client, SubnetSpec(neurons, tempo=4))
        shared_blocks.up_to(read_metagraph(client, made.netuid).next_epoch_block + 5)
    return made.netuid


@pytest.fixture
def writer(ray_session, node, tmp_path):
    signers = {key.ss58: key for key in (VALIDATOR, FIRST, STRANGER)}
    actor = writer_actor(node, signers, tmp_path / "journal.db", WriterSettings(lease_s=30.0), name="handover")
    assert ray_session.get(actor.ready.remote(), timeout=240)
    yield actor
    ray_session.kill(actor)


def weights(netuid, first, second, block):
    values = {FIRST.ss58: first, SECOND.ss58: second}
    return Weights(netuid, VALIDATOR.ss58, values, made_at_block=block)


def receipts(shown):
    return [event for event in shown if isinstance(event, events.ReceiptSeen)]


def test_weights_and_commitments_are_handed_over_and_reported_once(netuid, client, writer):
    shown = []
    handover = Handover(writer, shown.append, receipts_every_s=0.1)
    assert handover.idle and handover.last_try(netuid, VALIDATOR.ss58) is None
    # Of two weights of one place the later ones are handed over.
    handover.hand_over([weights(netuid, 1.0, 0.0, 1), weights(netuid, 1.0, 2.0, 2)])
    digest = "ab" * 32
    handover.commit([SetCommitment(signer=FIRST.ss58, netuid=netuid, text=digest)])
    assert not handover.idle
    handover.settle(timeout_s=120)
    assert handover.idle
    assert handover.committed == {FIRST.ss58: digest}
    assert sorted((r.call, r.fate) for r in receipts(shown)) == [
        ("Commitments.set_commitment", "included"),
        ("SubtensorModule.set_weights", "included"),
    ]
    counted = [event for event in shown if isinstance(event, events.Extrinsics)]
    assert (counted[-1].included, counted[-1].failed) == (2, 0)
    graph = read_metagraph(client, netuid)
    assert graph.weights[graph.uid(VALIDATOR.ss58)] == tuple(
        sorted([(graph.uid(FIRST.ss58), 32768), (graph.uid(SECOND.ss58), 65535)])
    )
    last = handover.last_try(netuid, VALIDATOR.ss58)
    assert last.fate is Fate.INCLUDED and last.block == graph.last_update[graph.uid(VALIDATOR.ss58)]

    # A later session begins at this cursor: it reports nothing twice, and knows the last attempt.
    again = []
    resumed = Handover(writer, again.append, handover.cursor, receipts_every_s=0.1)
    resumed.settle(timeout_s=120)
    assert receipts(again) == [] and resumed.cursor == handover.cursor
    assert resumed.last_try(netuid, VALIDATOR.ss58).block == last.block


def test_weights_reach_the_chain_once_although_the_writer_is_killed(netuid, client, writer, tmp_path):
    shown = []
    handover = Handover(writer, shown.append, receipts_every_s=0.1)
    (pid,) = {holder.pid for holder in holders(tmp_path)}
    os.kill(pid, signal.SIGKILL)
    handover.hand_over([weights(netuid, 3.0, 1.0, 3)])
    handover.settle(timeout_s=120)
    assert handover.idle
    (receipt,) = receipts(shown)
    assert (receipt.call, receipt.fate) == ("SubtensorModule.set_weights", "included")
    graph = read_metagraph(client, netuid)
    assert dict(graph.weights[graph.uid(VALIDATOR.ss58)])[graph.uid(FIRST.ss58)] == 65535
    # What the writer did not answer was reported as a warning with the fix, and retried.
    warned = [event for event in shown if isinstance(event, events.Warned)]
    assert all(event.text.startswith("the chain writer accepted no weights: ") for event in warned)


def test_a_refused_item_is_reported_with_its_action(netuid, writer):
    shown = []
    handover = Handover(writer, shown.append, receipts_every_s=0.1)
    handover.hand_over([Weights(netuid, STRANGER.ss58, {SECOND.ss58: 1.0}, made_at_block=4)])
    handover.settle(timeout_s=120)
    assert handover.idle
    last = handover.last_try(netuid, STRANGER.ss58)
    assert last.error == "HotKeyNotRegisteredInSubNet" and last.action.startswith("fix: register the hotkey")
    assert [(receipt.error, receipt.action) for receipt in receipts(shown)] == [(last.error, last.action)]


class SilentWriter:
    """A writer as the handover sees it when its thread is stuck: it answers, and tells an age that grows."""

    def __init__(self, age_s):
        self.age_s = age_s

    def receipts_since(self, cursor, limit):
        return cursor, []

    def counters(self):
        return {}

    def state(self):
        return {"stopped": {}, "foreign": {}, "trouble": "database is locked", "age_s": self.age_s}

    def unrevealed(self):
        return {}


def test_a_writer_without_progress_is_told_with_its_age(ray_session):
    shown = []
    stuck = ray_session.remote(SilentWriter).options(num_cpus=0).remote(400.0)
    handover = Handover(stuck, shown.append)
    assert handover.writer_silence[0] < 300 and "not answered yet" in handover.writer_silence[1]
    handover.settle(timeout_s=60)
    age_s, why = handover.writer_silence
    assert 400 <= age_s < 600 and why == "database is locked"
    ray_session.kill(stuck)


def test_the_writer_tells_its_own_age(ray_session, writer):
    state = ray_session.get(writer.state.remote(), timeout=60)
    assert 0 <= state["age_s"] < 60 and state["trouble"] == ""
