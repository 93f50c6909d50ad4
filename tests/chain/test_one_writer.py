"""One writer per key: a lease that a second process, a second cluster or a second actor can't get, and what the chain
tells of a stranger who uses the same key."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from raytensor.chain.intents import Transfer
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.actor import actor_name, writer_actor
from raytensor.chain.writer.lease import Lease, holders
from raytensor.chain.writer.policy import Policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.errors import ChainRefused
from raytensor.types import Fate

RAO = 10**9
ALICE = DevKey("//Alice")
PAYS = Policy(transfers=True)
OTHER_PROCESS = """
import sys, json
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.chain.wallet import DevKey
node, uri, journal, lease_s = sys.argv[1:]
key = DevKey(uri)
writer = ChainWriter(node, {key.ss58: key}, journal, WriterSettings(owner="the other program", lease_s=float(lease_s)))
print("ready", flush=True)
sys.stdin.readline()
writer.close()
"""


@pytest.fixture
def other(node, payer, tmp_path):
    """A process that writes with the payer's key, on a journal of its own beside ours."""
    started = []

    def start(lease_s=30.0):
        args = [sys.executable, "-c", OTHER_PROCESS, node, payer.uri, str(tmp_path / "other.db"), str(lease_s)]
        process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(60)
        process.stdin.close()
        process.stdout.close()


def test_a_second_process_is_refused_and_told_who_until_when_and_what_to_do(node, payer, other, tmp_path):
    process = other()
    with pytest.raises(ChainRefused) as refused:
        ChainWriter(node, {payer.ss58: payer}, tmp_path / "ours.db", WriterSettings(lease_wait_s=0))
    text = str(refused.value)
    assert refused.value.name == "KeyInUse"
    assert (
        f"the other program (process {process.pid} on " in text and payer.ss58 in text and "its lease ends 20" in text
    )
    assert refused.value.action.startswith(f"fix: stop process {process.pid} on this machine, or wait until its lease")
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(60) == 0
    ChainWriter(node, {payer.ss58: payer}, tmp_path / "ours.db", WriterSettings(lease_wait_s=0)).close()
    assert holders(tmp_path) == []


def test_the_lease_of_a_killed_process_is_taken_over(node, payer, other, tmp_path):
    process = other()
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert [h.pid for h in holders(tmp_path)] == [process.pid]
    ChainWriter(node, {payer.ss58: payer}, tmp_path / "ours.db", WriterSettings(lease_wait_s=0)).close()


def test_a_lease_of_another_machine_is_taken_over_when_it_has_expired(tmp_path, monkeypatch):
    monkeypatch.setattr("raytensor.chain.writer.lease._host", lambda: "elsewhere/boot/pid:[1]")
    Lease(tmp_path, "0xchain", ["5Key"], owner="far", length_s=4.0)  # never renewed, never released: kill -9 there
    monkeypatch.undo()
    with pytest.raises(ChainRefused, match="far .* on elsewhere"):
        Lease(tmp_path, "0xchain", ["5Key"], wait_s=0)
    other_chain = Lease(tmp_path, "0xother", ["5Key"], wait_s=0)
    ours = Lease(tmp_path, "0xchain", ["5Other", "5Key"], wait_s=120)  # waits for the end
    assert ours.valid and ours.renew() is None
    ours.release()
    other_chain.release()


def test_a_writer_that_was_away_too_long_learns_that_it_lost_its_keys(node, payer, tmp_path, monkeypatch):
    writer = ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(lease_s=0.5, policy=PAYS))
    keep, resumed = writer._keeper.keep, threading.Event()
    monkeypatch.setattr(writer._keeper, "keep", lambda: resumed.wait(120) and keep())  # as if it had been stopped
    taken = Lease(tmp_path, writer._client.genesis, [payer.ss58], owner="the successor", wait_s=60)
    resumed.set()
    deadline = time.monotonic() + 120
    while not writer.state()["stopped"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "the successor" in writer.state()["stopped"][payer.ss58]
    with pytest.raises(ChainRefused, match="taken over the keys"):
        writer.submit([Transfer(signer=payer.ss58, dest=ALICE.ss58, value=RAO)])
    writer.close()
    assert [h.owner for h in holders(tmp_path)] == ["the successor"]
    taken.release()


def test_an_extrinsic_of_somebody_else_stops_the_key_until_it_is_taken_over(node, client, payer, fresh, tmp_path):
    writer = ChainWriter(node, {payer.ss58: payer, ALICE.ss58: ALICE}, tmp_path / "j.db", WriterSettings(policy=PAYS))
    stranger = Transfer(signer=payer.ss58, dest=fresh("a").ss58, value=RAO)
    block, _ = client.send(stranger.call(), payer.open(), timeout_s=120)
    deadline = time.monotonic() + 120
    while not writer.state()["stopped"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(writer.state()["stopped"]) == [payer.ss58]  # the other key goes on
    ours = Transfer(signer=payer.ss58, dest=fresh("b").ss58, value=RAO)
    free = Transfer(signer=ALICE.ss58, dest=fresh("b").ss58, value=RAO)
    stopped, sent = writer.submit([ours, free])
    assert (stopped.fate, stopped.error, sent.fate) == (Fate.NOT_SENT, "KeyInUse", Fate.INCLUDED)
    assert f"block {block} has extrinsic 0x" in stopped.action and "take_over()" in stopped.action
    writer.take_over()
    assert writer.submit([ours])[0].fate is Fate.INCLUDED
    writer.close()
    assert client.account_nonce(payer.ss58) == 2 and client.balance(fresh("b").ss58) == 2 * RAO


def test_the_writer_of_a_key_is_one_named_actor_of_the_cluster(ray_session, node, payer, fresh, tmp_path):
    ray, mate = ray_session, fresh("mate")
    settings = {"policy": PAYS, "lease_s": 30.0}
    first = writer_actor(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(**settings))
    again = writer_actor(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(**settings))
    other = writer_actor(node, {mate.ss58: mate}, tmp_path / "mate.db", WriterSettings(**settings))
    assert ray.get([first.ready.remote(), other.ready.remote()], timeout=240) == [True, True]
    assert first._actor_id == again._actor_id != other._actor_id
    assert ray.get_actor(actor_name(node, [payer.ss58]), namespace="raytensor")._actor_id == first._actor_id
    # Under another name it is another actor: the lease refuses it.
    twin = writer_actor(
        node, {payer.ss58: payer}, tmp_path / "twin.db", WriterSettings(lease_wait_s=0, **settings), name="twin"
    )
    with pytest.raises(ray.exceptions.ActorDiedError, match="KeyInUse|writes with"):
        ray.get(twin.ready.remote(), timeout=240)
    # Killed, it starts again, takes the lease over and knows what it did.
    intent = Transfer(signer=payer.ss58, dest=mate.ss58, value=RAO, intent_id="once")
    (receipt,) = ray.get(first.submit.remote([intent]), timeout=240)
    (holder,) = [h for h in holders(tmp_path) if h.key == payer.ss58]
    os.kill(holder.pid, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while True:
        try:
            (known,) = ray.get(first.submit.remote([intent]), timeout=240)
            break
        except ray.exceptions.RayError:
            assert time.monotonic() < deadline, "the actor did not come back"
            time.sleep(0.2)
    assert known == receipt and receipt.fate is Fate.INCLUDED
    for actor in (first, other):
        ray.kill(actor)


def test_a_second_job_on_the_same_keys_is_refused_and_the_first_goes_on(ray_session, node, payer, fresh, tmp_path):
    ray, settings = ray_session, WriterSettings(policy=PAYS)
    job = lambda number: (node, {payer.ss58: payer}, tmp_path / f"{number}.db", settings)  # noqa: E731
    first = writer_actor(*job(1), exclusive_wait_s=0.0)
    assert ray.get(first.ready.remote(), timeout=240)
    with pytest.raises(
        ChainRefused, match=r"another job of this cluster writes with these keys.*\n  fix: stop that job"
    ):
        writer_actor(*job(2), exclusive_wait_s=0.0)
    intent = Transfer(signer=payer.ss58, dest=fresh("a").ss58, value=RAO)
    assert ray.get(first.submit.remote([intent]), timeout=240)[0].fate is Fate.INCLUDED
    ray.kill(first)  # as the end of the job does; the next one waits for it
    second = writer_actor(*job(1), exclusive_wait_s=120.0)
    assert ray.get(second.submit.remote([intent]), timeout=240)[0].fate is Fate.INCLUDED, "and knows what was done"
    ray.kill(second)
