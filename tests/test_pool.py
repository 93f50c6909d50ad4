"""Pool: every item comes out exactly once, whatever happens to the actors. Real actors, real deaths."""

from __future__ import annotations

import os
import time

import pytest

from raytensor.errors import PoolExhausted
from raytensor.pool import Pool
from raytensor.types import Failure, Reason


class Worker:
    def work(self, value):
        if value == "raise":
            raise ValueError("this item is bad")
        if value == "die":
            os._exit(7)
        if value == "hang":
            time.sleep(600)
        return value * 2


@pytest.fixture
def make_pool(ray_session):
    pools = []
    remote = ray_session.remote(num_cpus=0.1)(Worker)

    def make(size, **options):
        pools.append(Pool(lambda: remote.remote(), "work", size, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def run(pool, values, timeout_s=60, deadline_s=None):
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
    # Two deaths are the item's own; a third one if an actor took the finished result before it to its grave.
    assert pool.replaced in (2, 3) and pool.size == 2


def test_a_hung_item_fails_by_its_deadline(make_pool):
    pool = make_pool(1, max_attempts=1)
    out = run(pool, ["hang", 1], deadline_s=2.0)
    assert out["item0"].reason is Reason.TIMEOUT
    assert out["item1"] == 2


def test_an_empty_pool_fails_what_waits_and_refuses_more(make_pool):
    pool = make_pool(1, max_replacements=0, max_attempts=1)
    out = run(pool, ["die", 1, 2])
    assert {failure.reason for failure in out.values()} == {Reason.CRASHED}
    with pytest.raises(PoolExhausted, match="no actor is left"):
        pool.submit("late", 1)


def test_close_hands_out_what_was_still_out(make_pool):
    pool = make_pool(1)
    pool.submit("slow", "hang")
    pool.close()
    assert [(i, f.reason) for i, f in pool.poll()] == [("slow", Reason.CANCELLED)]
