"""A supervised thread outlives every error of its step, and says so."""

import threading

import pytest

from raytensor.supervised import UNEXPECTED, SupervisedThread, run_once, tell

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


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), MemoryError("all of it"), GeneratorExit()])
def test_whatever_a_step_raises_is_counted_and_the_next_step_follows(raised):
    name, told, again, go_on = f"work {type(raised).__name__}", [], threading.Event(), threading.Event()
    calls = []

    def step(thread):
        calls.append(1)
        if len(calls) == 1:
            raise raised
        again.set()
        assert go_on.wait(LIMIT_S)
        return len(calls) < 3

    thread = SupervisedThread(name, step, on_error=told.append, pause_s=(0.01, 0.02))
    thread.start()
    assert again.wait(LIMIT_S)
    count, words = UNEXPECTED.errors[name]
    assert count == 1 and words.startswith(type(raised).__name__) and UNEXPECTED.failing[name] == words
    assert [isinstance(one, Exception) for one in told] == [True]
    go_on.set()
    thread.close(LIMIT_S)
    assert name not in UNEXPECTED.failing and UNEXPECTED.errors[name] == (1, words)


def test_an_expected_error_is_no_unexpected_one():
    failed = threading.Event()

    def step(thread):
        raise OSError("expected")

    thread = SupervisedThread("calm", step, on_error=lambda error: failed.set(), expected=(OSError,))
    thread.start()
    assert failed.wait(LIMIT_S)
    thread.close(LIMIT_S)
    assert "calm" not in UNEXPECTED.errors


def test_a_thread_that_runs_once_does_not_die_in_silence(caplog):
    def work():
        raise SystemExit("no reason")

    thread = run_once("once", work)
    thread.start()
    thread.join(LIMIT_S)
    assert UNEXPECTED.failing["once"] == "SystemExit: no reason" and "once has ended" in caplog.text


def test_what_only_tells_raises_into_nobody():
    def broken(text):
        raise ValueError(text)

    for _ in range(2):
        tell("the view", broken, "closed")
    assert UNEXPECTED.errors["the view"] == (2, "ValueError: closed")
