"""A chain writer that is dead for good is made again by its job, and what it was given is carried out exactly once."""

import time
from contextlib import ExitStack

import pytest
from netkit import RAO
from ray.exceptions import ActorUnavailableError, GetTimeoutError

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.actor import writer_actor
from raytensor.chain.writer.settings import WriterSettings
from raytensor.devnet.launch import EmbeddedChain
from raytensor.errors import ChainRefused
from raytensor.jobs.handover import Handover
from raytensor.jobs.writer import JobWriter
from raytensor.telemetry import events
from raytensor.telemetry.metrics import Meters
from raytensor.types import Weights

LIMIT_S = 240.0
VALIDATOR, MINER = DevKey("//remade//validator"), DevKey("//remade//miner")


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """(endpoint, netuid) of a subnet with a validator that has its permit, and a miner."""
    folder = tmp_path_factory.mktemp("chain")
    with ExitStack() as stack:
        process = EmbeddedChain(folder / "chain", 0.2, folder / "chain.log")
        stack.callback(process.close)
        neurons = [
            Neuron("validator", "validator", VALIDATOR, DevKey("//remade//cold//v"), 1000 * RAO),
            Neuron("miner", "miner", MINER, DevKey("//remade//cold//m"), 0),
        ]
        with ChainClient(process.endpoint, 60.0) as client:
            netuid = make_subnet(client, SubnetSpec(neurons, tempo=10)).netuid
            until("permit", lambda: (g := read_metagraph(client, netuid)).validator_permit[g.uid(VALIDATOR.ss58)])
        yield process.endpoint, netuid


def until(what, seen, each=lambda: time.sleep(0.1)):
    end = time.monotonic() + LIMIT_S
    while not seen():
        assert time.monotonic() < end, f"no {what} within {LIMIT_S:g} s"
        each()


@pytest.fixture
def job(ray_session, chain, tmp_path):
    """The parts of a job that concern its writer: (JobWriter, Handover, what was shown)."""
    endpoint, shown = chain[0], []

    def make(wait_s):
        keys, settings = {VALIDATOR.ss58: VALIDATOR}, WriterSettings(lease_s=30.0)
        return writer_actor(endpoint, keys, tmp_path / "journal.sqlite", settings, exclusive_wait_s=wait_s)

    writer = JobWriter(make, shown.append, Meters(), pause_s=(0.1, 1.0))
    assert ray_session.get(writer.actor.ready.remote(), timeout=LIMIT_S)
    yield writer, Handover(writer.actor, shown.append, receipts_every_s=0.1, revive=writer.revive), shown
    writer.close()


def included(shown):
    return [(e.call, e.block) for e in shown if isinstance(e, events.ReceiptSeen) and e.fate == "included"]


def test_a_writer_that_is_dead_for_good_is_made_again_and_weights_are_set_once(ray_session, chain, job):
    """Before, its calls failed for ever: an alarm, and no weights until the validator was started again."""
    writer, handover, shown = job
    first = writer.actor
    with ChainClient(chain[0], 60.0) as client:
        nonce = client.account_nonce(VALIDATOR.ss58)
    handover.hand_over([Weights(chain[1], VALIDATOR.ss58, {MINER.ss58: 1.0}, made_at_block=1)])
    until("hand-over", lambda: handover.last_try(chain[1], VALIDATOR.ss58), lambda: handover.poll(0.05))
    ray_session.kill(first)  # for good: Ray restarts no actor that was killed so
    until("receipt", lambda: included(shown), lambda: handover.poll(0.05))
    assert writer.remade == 1 and writer.actor is not first and handover.idle
    told = [event.text for event in shown if isinstance(event, events.Warned) and "started again" in event.text]
    assert len(told) == 1 and told[0].startswith("the chain writer has died and is started again: ")
    # By the chain's word: the key has sent one extrinsic for these weights, whichever actor did.
    handover.settle(LIMIT_S)
    assert len(included(shown)) == 1
    with ChainClient(chain[0], 60.0) as client:
        found = client.account_nonce(VALIDATOR.ss58) - nonce
        assert found == 1, (found, shown)


def test_a_second_job_with_the_same_keys_is_refused_with_the_way_out(job, chain, tmp_path):
    """`validate` and `mine` alike: keys are one job's. One that holds other keys has a writer of its own."""
    with pytest.raises(ChainRefused, match="another job of this cluster writes with these keys.*\n.*ray job stop"):
        writer_actor(chain[0], {VALIDATOR.ss58: VALIDATOR}, tmp_path / "other.sqlite", exclusive_wait_s=0.0)


def test_an_actor_that_lives_is_never_made_again(job):
    """Ray restarts it by itself, or the error was another one: then there would be two writers."""
    writer, _, _ = job
    for error in (ActorUnavailableError("restarts", None), GetTimeoutError("slow"), ValueError("refused")):
        assert writer.revive(error) is writer.actor and writer.remade == 0
        time.sleep(0.2)  # beyond the pause
