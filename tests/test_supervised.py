"""A supervised thread outlives every error of its step, and says so."""

import threading

from raytensor.supervised import SupervisedThread

LIMIT_S = 30


def test_an_error_is_counted_told_and_followed_by_the_next_step():
    seen, done, told = [], threading.Event(), []

    def step(thread):
        seen.append(len(seen))
        if len(seen) < 3:
            raise TypeError(f"step {len(seen)}")
        done.set()
        return False

    thread = SupervisedThread("work", step, on_error=told.append, pause_s=(0.01, 0.02))
    assert not thread.alive
    thread.start()
    assert done.wait(LIMIT_S)
    thread.close(LIMIT_S)
    assert not thread.alive and seen == [0, 1, 2] and thread.errors == 2 and thread.last_error == ""
    assert [str(error) for error in told] == ["step 1", "step 2"]


def test_a_callback_that_raises_does_not_end_it_and_the_age_grows_from_the_last_good_step():
    calls, failed = [], threading.Event()

    def step(thread):
        calls.append(1)
        if len(calls) > 4:
            failed.set()
            thread.wait(LIMIT_S)
        raise ValueError("always")

    def broken(error):
        raise RuntimeError("the callback, too")

    thread = SupervisedThread("work", step, on_error=broken, pause_s=(0.01, 0.02))
    thread.start()
    assert failed.wait(LIMIT_S)
    assert thread.alive and thread.errors == 4 and thread.last_error == "ValueError: always" and thread.age_s > 0.04
    thread.close(LIMIT_S)
    assert not thread.alive


def test_close_ends_a_pause_at_once():
    entered = threading.Event()

    def step(thread):
        entered.set()
        assert thread.wait(LIMIT_S * 10), "ended by close"

    thread = SupervisedThread("work", step)
    thread.start()
    assert entered.wait(LIMIT_S)
    thread.close(LIMIT_S)
    assert not thread.alive and thread.errors == 0
