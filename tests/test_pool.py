"""Pool: every item comes out exactly once, whatever happens to the actors. Real actors, real deaths."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path

import pytest

from raytensor.errors import PoolExhausted, WorkLost
from raytensor.pool import ForkedWorker, Packing, Pool
from raytensor.types import Failure, Reason


class Worker:
    def work(self, value):
        if value == "raise":
            raise ValueError("this item is bad")
        if value == "die":
            os._exit(7)
        if value == "hang":
            time.sleep(600)
        if isinstance(value, Path):
            while not value.exists():  # until the test lets it go
                time.sleep(0.01)
            return 0
        return value * 2

    def work_all(self, payloads):
        """Doubles each value; runs out of memory with more than four."""
        if len(payloads) > 4:
            raise MemoryError
        return [self.work(value) for (value,) in payloads]

    def work_each(self, payloads):
        for (value,) in payloads:
            yield self.work(value)

    def sizes(self, payloads):
        return [(len(payloads), group) for (group,) in payloads]


class Forking:
    """Works in a forked child."""

    def __init__(self, limit_s=5.0):
        self.worker = ForkedWorker(Worker(), limit_s=limit_s)

    def work(self, value):
        return self.worker.call("work", value), os.getpid()

    def work_each(self, payloads):
        return self.worker.each("work_each", payloads)


@pytest.fixture
def make_pool(ray_session):
    pools = []
    remote = ray_session.remote(num_cpus=0.1)(Worker)

    def make(size, method="work", cls=remote, factory=None, **options):
        pools.append(Pool(factory or cls.remote, method, size, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def run(pool, values, timeout_s=240, deadline_s=None):
    for number, value in enumerate(values):
        pool.submit(f"item{number}", value, hotkey=f"hk{number}", deadline_s=deadline_s)
    out = list(pool.drain(timeout_s))
    assert len(out) == len(values) and len({item_id for item_id, _ in out}) == len(values)
    return dict(out)


def test_every_item_once(make_pool):
    out = run(make_pool(2), list(range(50)))
    assert out == {f"item{n}": 2 * n for n in range(50)}


def test_an_item_that_raises_fails_alone(make_pool):
    pool = make_pool(1)
    out = run(pool, [1, "raise", 3])
    assert out["item0"] == 2 and out["item2"] == 6
    assert out["item1"] == Failure("item1", "hk1", Reason.ERROR, "ValueError: this item is bad")
    assert pool.replaced == 0


def test_a_poison_item_fails_alone_and_takes_no_neighbour(make_pool):
    pool = make_pool(2)
    out = run(pool, [*range(10), "die", *range(11, 20)])
    failure = out.pop("item10")
    assert isinstance(failure, Failure) and failure.reason is Reason.CRASHED and "2 actors" in failure.detail
    assert out == {f"item{n}": 2 * n for n in range(20) if n != 10}
    # Two deaths are the item's own; a third one if the result before it was lost with its actor.
    assert pool.replaced in (2, 3) and pool.size == 2


def test_a_hung_item_fails_by_its_deadline(make_pool):
    pool = make_pool(1, max_attempts=1)
    out = run(pool, ["hang", 1], deadline_s=4.0)
    assert out["item0"].reason is Reason.TIMEOUT
    assert out["item1"] == 2


def test_an_empty_pool_fails_what_waits_and_refuses_more(make_pool):
    pool = make_pool(1, max_replacements=0, max_attempts=1)
    out = run(pool, ["die", 1, 2])
    assert {failure.reason for failure in out.values()} == {Reason.CRASHED}
    with pytest.raises(PoolExhausted, match="no actor is left"):
        pool.submit("late", 1)


def test_close_fails_unfinished_items(make_pool):
    pool = make_pool(1)
    pool.submit("slow", "hang")
    pool.close()
    assert [(i, f.reason) for i, f in pool.poll()] == [("slow", Reason.CANCELLED)]


# ------------------------------------------------------------------------------------------------ packed calls


def test_calls_are_packed_by_number_cost_and_group(make_pool):
    pool = make_pool(1, "sizes", packing=Packing(max_items=4, max_cost=10))
    pool.submit("first", "a")  # alone: the actor is idle, nothing is gained by waiting
    for number in range(8):
        pool.submit(f"a{number}", "a", group="a")
    for number in range(3):
        pool.submit(f"b{number}", "b", group="b", cost=4)
    pool.submit("large", "c", group="c", cost=99)
    out = dict(pool.drain(240))
    assert [out[f"a{n}"][0] for n in range(8)] == [4] * 8
    assert [out[f"b{n}"][0] for n in range(3)] == [2, 2, 1] and out["large"] == (1, "c")


@pytest.mark.parametrize("bad, reason", [("die", Reason.CRASHED), ("raise", Reason.ERROR)])
def test_a_bad_item_in_a_packed_call_fails_alone(make_pool, bad, reason):
    pool = make_pool(2, "work_all", packing=Packing(max_items=4))
    out = run(pool, [*range(10), bad, *range(11, 20)])
    assert out.pop("item10").reason is reason
    assert out == {f"item{n}": 2 * n for n in range(20) if n != 10}


def test_out_of_memory_halves_the_call(make_pool):
    pool = make_pool(1, "work_all", packing=Packing(max_items=16))
    assert run(pool, list(range(40))) == {f"item{n}": 2 * n for n in range(40)}
    assert pool.replaced == 0 and pool.lost == 0
    calls = pool.calls
    for number in range(40):
        pool.submit(f"again{number}", number)
    assert len(list(pool.drain(240))) == 40
    assert pool.calls - calls <= 12, "a group that ran out of memory is packed smaller from then on"


# ---------------------------------------------------------------------------------------------- a child process


def test_a_crash_of_the_child_leaves_the_actor_alive(ray_session, make_pool):
    remote = ray_session.remote(num_cpus=0.1)(Forking)
    pool = make_pool(2, cls=remote)
    ray_session.get([actor.__ray_ready__.remote() for actor in pool.actors], timeout=240)
    pool.poll()  # both are up
    out = run(pool, [*range(6), "die", "raise", "hang", *range(9, 16)])
    dead, bad, hung = out.pop("item6"), out.pop("item7"), out.pop("item8")
    assert dead.reason is Reason.CRASHED and "2 actors" in dead.detail and "status 7" in dead.detail
    assert bad.reason is Reason.ERROR and "this item is bad" in bad.detail
    assert hung.reason is Reason.TIMEOUT and "past 5 s" in hung.detail
    assert {key: value for key, (value, _) in out.items()} == {f"item{n}": 2 * n for n in [*range(6), *range(9, 16)]}
    assert pool.replaced == 0 and len({actor for _, actor in out.values()}) == 2


def test_what_a_child_had_done_before_it_died_is_kept(ray_session, make_pool):
    pool = make_pool(2, "work_each", ray_session.remote(num_cpus=0.1)(Forking), queue=1, packing=Packing(max_items=5))
    ray_session.get([actor.__ray_ready__.remote() for actor in pool.actors], timeout=240)
    for number, value in enumerate([0, 1, "die", 3, 4]):
        pool.submit(f"item{number}", value)
    out = dict(pool.drain(240))
    assert out.pop("item2").reason is Reason.CRASHED
    assert out == {f"item{n}": 2 * n for n in (0, 1, 3, 4)}
    assert pool.calls == 3 and pool.lost == 2  # all; the bad one again, alone; the two behind it together, once


def test_a_child_that_raises_in_the_middle_says_so():
    worker = ForkedWorker(Worker())
    assert worker.each("work_each", [(1,), (2,)]) == [2, 4]
    with pytest.raises(ValueError, match="this item is bad"):
        worker.each("work_each", [(1,), ("raise",)])
    with pytest.raises(WorkLost, match="status 7") as lost:
        worker.each("work_each", [(1,), (2,), ("die",), (3,)])
    assert lost.value.done == [2, 4] and worker.each("work_each", [(5,)]) == [10] and worker.forks == 2
    worker.close()


def test_a_suspect_of_an_actor_that_lives_waits_for_no_empty_actor(ray_session, make_pool, tmp_path):
    forking = ray_session.remote(num_cpus=0.1)(Forking)
    pool = make_pool(2, factory=lambda: forking.remote(limit_s=60.0))
    ray_session.get([actor.__ray_ready__.remote() for actor in pool.actors], timeout=240)
    pool.poll()  # both are up
    gate = tmp_path / "open"
    calls = pool.calls
    pool.submit("busy", gate)
    pool.submit("bad", "die")
    for _ in range(60):
        assert pool.poll(1.0) == []
        if pool.calls == calls + 3:  # the bad one's second try lies behind the busy call of the other actor
            break
    assert pool.calls == calls + 3
    gate.touch()
    out = dict(pool.drain(240))
    assert out["busy"][0] == 0 and out["bad"].reason is Reason.CRASHED and "2 actors" in out["bad"].detail


def test_a_child_ends_with_its_parent():
    worker = ForkedWorker(Worker())
    assert worker.call("work", 4) == 8 and worker.forks == 1
    child = worker.child
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert worker.call("work", 5) == 10 and worker.forks == 2
    worker.close()


class Sockets:
    def opened(self, *numbers: int) -> list[bool]:
        """Which file descriptors are sockets."""
        return [stat.S_ISSOCK(os.fstat(number).st_mode) for number in numbers]


def test_a_child_keeps_no_network_socket_of_its_parent(tmp_path):
    """A port can be bound again, and a peer sees the end of a connection, as soon as the parent closes its socket."""
    worker, pair = ForkedWorker(Sockets()), socket.socketpair()
    local = socket.socket(socket.AF_UNIX)
    local.bind(str(tmp_path / "socket"))
    local.listen()
    server = socket.create_server(("127.0.0.1", 0))
    address = server.getsockname()
    client = socket.create_connection(address, timeout=30)
    accepted, _ = server.accept()
    numbers = [one.fileno() for one in (server, client, accepted, local, *pair)]
    assert worker.call("opened", *numbers) == [False, False, False, False, True, True]
    server.close()
    accepted.close()
    assert client.recv(1) == b"", "the peer sees the end"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=30)
    for one in (client, local, *pair):
        one.close()
    assert worker.call("opened") == [], "the parent's ends were its own"
    worker.close()
