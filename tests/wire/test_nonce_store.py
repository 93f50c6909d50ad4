"""The nonce store: a nonce counts once, in one process and over all replicas of a hotkey."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wirekit import answer, client_settings, metagraph, server_settings, task

from raytensor.config import Freshness
from raytensor.types import Reason, Response
from raytensor.wire import auth, codec
from raytensor.wire.client import WireClient
from raytensor.wire.errors import Overloaded, ReplayedRequest
from raytensor.wire.nonce_store import LocalNonces, NonceStore, SharedNonces, Verdict, shared_store
from raytensor.wire.server import WireServer

S = 10**9


class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> int:
        return int(self.now_s * S)


def made(clock, retention_s=60.0, **more) -> NonceStore:
    """A store that is ready at second 1000."""
    clock.now_s = 998.0
    store = NonceStore(Freshness(retention_s=retention_s), clock=clock, **more)
    clock.now_s = 1010.0
    return store


def accepts(store, key, nonce_ns) -> bool:
    return store.verdicts([(key, nonce_ns)]) == [Verdict.NEW]


def test_once_and_never_again_while_it_can_be_fresh():
    clock = Clock(0)
    store = made(clock)
    assert accepts(store, "a", 1009 * S)
    assert accepts(store, "b", 1009 * S), "another hotkey's nonce is another nonce"
    assert accepts(store, "a:uuid", 1009 * S)
    for clock.now_s in (1010.0, 1020.0, 1068.9):
        assert not accepts(store, "a", 1009 * S)
    clock.now_s = 1071.0
    assert store.verdicts([("a", 1009 * S)]) == [Verdict.OLD], "what was forgotten is refused, not accepted again"
    assert len(store) == 0


def test_a_store_refuses_what_its_former_life_could_have_accepted():
    clock = Clock(0)
    store = made(clock)
    assert store.verdicts([("a", 1000 * S), ("a", 1000 * S + 1)]) == [Verdict.OLD, Verdict.NEW]
    clock.now_s = 999.5
    assert store.ready_in_s() == pytest.approx(0.5)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1001, 1030), st.floats(0, 3)), max_size=60))
@settings(deadline=None)
def test_as_a_set_that_never_forgets(asked):
    """For every nonce that a verifier could still take for fresh, the store agrees with a plain set."""
    clock = Clock(0)
    store, seen = made(clock, retention_s=12.0), set()
    for hotkey, nonce_s, later_s in asked:
        clock.now_s += later_s
        if -2.0 <= clock.now_s - nonce_s <= 10.0:
            assert accepts(store, hotkey, nonce_s * S) == ((hotkey, nonce_s) not in seen)
            seen.add((hotkey, nonce_s))
    assert len(store) <= len(seen)


def test_memory_is_bounded_and_nothing_is_forgotten_for_room():
    clock = Clock(0)
    store = made(clock, max_entries=5, max_per_hotkey=3)
    assert store.verdicts([("a", 1009 * S + n) for n in range(4)]) == [Verdict.NEW] * 3 + [Verdict.FULL]
    assert store.verdicts([("a:x", 1009 * S + 9)]) == [Verdict.FULL], "a suffix is the same hotkey"
    assert store.verdicts([("b", 1009 * S + n) for n in range(3)]) == [Verdict.NEW] * 2 + [Verdict.FULL]
    assert store.verdicts([("a", 1009 * S)]) == [Verdict.SEEN]
    clock.now_s = 1071.0
    assert accepts(store, "a", 1071 * S) and len(store) == 1


def test_many_threads_accept_a_nonce_once():
    from concurrent.futures import ThreadPoolExecutor

    store = made(Clock(0))
    with ThreadPoolExecutor(8) as threads:
        accepted = list(threads.map(lambda n: accepts(store, "a", 1005 * S + n % 50), range(2000)))
    assert sum(accepted) == 50


def test_a_server_in_one_process_says_why():
    async def check():
        clock = Clock(0)
        nonces = LocalNonces(made(clock, max_per_hotkey=1))
        await nonces.check("a", 1009 * S)
        with pytest.raises(ReplayedRequest):
            await nonces.check("a", 1009 * S)
        with pytest.raises(Overloaded):
            await nonces.check("a", 1010 * S)

    asyncio.run(check())


class Replica:
    """One replica of a miner: a server in an actor of its own, without any key."""

    def __init__(self, hotkey, handle, validators):
        self._server = WireServer(hotkey, answer, server_settings(), nonces=SharedNonces(handle, 60.0))
        self._server.update(metagraph(validators))

    async def start(self):
        return await self._server.start()

    async def store_calls(self):
        nonces = self._server.gate.nonces
        return nonces.calls, nonces.checks

    async def stop(self):
        await self._server.stop()


def test_a_replay_is_refused_on_any_replica(ray_session, validator, miner):
    ray = ray_session
    handle = shared_store(miner.ss58, Freshness(max_skew_s=0.05))
    assert ray.get(shared_store(miner.ss58, Freshness()).ready_in_s.remote(), timeout=60) is not None
    replicas = [
        ray.remote(Replica).options(num_cpus=0.1).remote(miner.ss58, handle, [validator.ss58]) for _ in range(3)
    ]
    ports = [port for _, port in ray.get([replica.start.remote() for replica in replicas], timeout=120)]

    async def check():
        import aiohttp

        async with aiohttp.ClientSession() as http:

            async def post(port, headers, body):
                async with http.post(f"http://127.0.0.1:{port}/ask", data=body, headers=headers) as reply:
                    return reply.status, b"" if reply.status == 200 else (await reply.json())["error"]

            def signed(seed):
                body = codec.encode_task(task(validator.ss58, miner.ss58, seed=seed), codec.SAFETENSORS)
                headers = auth.sign(
                    validator, method="POST", path="/ask", body=body, receiver=miner.ss58, nonce_ns=time.time_ns()
                )
                return headers | {"Content-Type": codec.SAFETENSORS}, body

            for first in range(3):
                headers, body = signed(first)
                assert (await post(ports[first], headers, body))[0] == 200
                for port in ports:
                    assert await post(port, headers, body) == (401, "ReplayedRequest")
            # One request to all replicas at the same moment: exactly one of them answers.
            for seed in range(20):
                headers, body = signed(seed)
                statuses = [
                    status for status, _ in await asyncio.gather(*(post(port, headers, body) for port in ports * 3))
                ]
                assert sorted(statuses) == [200] + [401] * 8
        async with WireClient(validator, client_settings(max_connections_per_endpoint=64)) as client:
            question = task(validator.ss58, miner.ss58)
            asked = [client.ask(question, f"127.0.0.1:{ports[0]}") for _ in range(150)]
            assert all(isinstance(outcome, Response) for outcome in await asyncio.gather(*asked))
        calls, checks = ray.get(replicas[0].store_calls.remote(), timeout=120)
        assert checks >= 150 and calls < checks, "checks that wait together travel together"

        # The store dies: what can't be judged is refused; the new one refuses what the old one may have seen.
        last = signed(1)
        assert (await asyncio.to_thread(ray.kill, handle, no_restart=False)) is None
        async with WireClient(validator, client_settings(tries=1)) as client:
            outcomes = []
            for _ in range(1000):
                outcome = await client.ask(task(validator.ss58, miner.ss58), f"127.0.0.1:{ports[0]}")
                outcomes.append(outcome)
                if len(outcomes) > 1 and isinstance(outcome, Response):
                    break
                await asyncio.sleep(0.1)
            assert isinstance(outcomes[-1], Response), "the store comes back by itself"
            for outcome in outcomes[:-1]:
                assert outcome.reason in (Reason.ERROR, Reason.REFUSED, Reason.TIMEOUT), outcome
        async with aiohttp.ClientSession() as http:
            async with http.post(f"http://127.0.0.1:{ports[1]}/ask", data=last[1], headers=last[0]) as reply:
                assert (reply.status, (await reply.json())["error"]) == (401, "StaleRequest")

    try:
        asyncio.run(asyncio.wait_for(check(), 400))
    finally:
        ray.get([replica.stop.remote() for replica in replicas], timeout=60)
        for actor in [*replicas, handle]:
            ray.kill(actor)
