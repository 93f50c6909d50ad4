"""A rank that hangs is found by what all ranks report."""

from __future__ import annotations

import threading
from dataclasses import replace

from raytensor.training.pulse import Pulse, Report, hang

IDLE = Report(3, "", 0.0, False, (), "")


def test_the_stack_of_a_call_is_reported_from_another_thread():
    pulse, begun, over = Pulse(), threading.Event(), threading.Event()

    def sleeps_for_ever() -> None:
        begun.set()
        over.wait(60)

    thread = threading.Thread(target=pulse.during, args=("train_steps", sleeps_for_ever))
    assert pulse.report().what == "" and pulse.report().calls == 0
    thread.start()
    begun.wait(60)
    found = pulse.report()
    over.set()
    thread.join(60)
    assert (found.calls, found.what, found.waits) == (1, "train_steps", False)
    assert any(frame.startswith("sleeps_for_ever (test_pulse.py:") for frame in found.frames)
    assert "over.wait(60)" in found.stack and pulse.report().what == ""


def test_the_rank_that_the_others_wait_for_is_named():
    frames = ("sleep (some.py:3)", "_backward (base.py:5)")
    sleeps = Report(4, "train_steps", 61.0, False, frames, "")
    waits = replace(sleeps, waits=True)
    at = "is in train_steps for 61 s, at sleep (some.py:3) < _backward (base.py:5)"
    assert hang([waits, sleeps, waits]) == f"rank 1 of 3 {at}"
    assert hang([waits, waits, IDLE]) == "rank 2 of 3 is in no call for 0 s, at an unknown place"  # a command behind
    assert hang([waits, None]).startswith("rank 1 of 2 does not even report")
    assert hang([waits, waits]).startswith("all 2 ranks are in train_steps, at sleep")
    assert hang([sleeps]) == f"rank 0 of 1 {at}"
