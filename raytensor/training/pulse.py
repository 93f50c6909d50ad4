"""What a rank is doing: the call that it executes, for how long, and where. So a rank that hangs is found and named.

In: the calls of a rank. Out: a `Report` from any other thread of the process; from the reports of all ranks, a line
that names the rank which the others wait for. A rank that waits in a collective is not to blame for it.
Bounds: one call at a time. Knows nothing of Ray. A rank whose interpreter is blocked as a whole gives no report.
"""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
# Files in which a thread waits for other ranks: collectives, and the backward pass that runs them.
WAITS = ("/torch/distributed/", "/torch/autograd/", "/torch/nn/parallel/", "/training/ranks.py")
FRAMES = 4  # innermost ones in a line


@dataclass(frozen=True)
class Report:
    """calls: commands executed or begun. what: the one under way, "" for none; for `seconds`. waits: for other ranks.

    frames  "function (file:line)", innermost first. stack: all of it, as text.
    """

    calls: int
    what: str
    seconds: float
    waits: bool
    frames: tuple[str, ...]
    stack: str


class Pulse:
    """Of one rank."""

    def __init__(self) -> None:
        self._calls, self._what, self._since, self._thread = 0, "", time.monotonic(), 0

    def during(self, what: str, call: Callable[..., T], *args: Any) -> T:
        """`call(*args)`, reported as `what`."""
        self._calls, self._since, self._thread = self._calls + 1, time.monotonic(), threading.get_ident()
        self._what = what
        try:
            return call(*args)
        finally:
            self._what = ""

    def report(self) -> Report:
        """Where the rank is now."""
        what, frame = self._what, sys._current_frames().get(self._thread)
        stack = traceback.extract_stack(frame) if what and frame is not None else traceback.StackSummary()
        frames = tuple(f"{one.name} ({one.filename.rpartition('/')[2]}:{one.lineno})" for one in reversed(stack))
        waits = any(part in one.filename for one in stack[-FRAMES:] for part in WAITS)
        return Report(self._calls, what, time.monotonic() - self._since, waits, frames, "".join(stack.format()))


def hang(reports: Sequence[Report | None]) -> str:
    """Which rank the others wait for, and where it is. None: a rank that gave no report."""
    if silent := [str(rank) for rank, report in enumerate(reports) if report is None]:
        return f"rank {', '.join(silent)} of {len(reports)} does not even report: its interpreter is blocked or stopped"
    found = [report for report in reports if report is not None]
    behind = [rank for rank, report in enumerate(found) if report.calls < max(one.calls for one in found)]
    stuck = behind or [rank for rank, report in enumerate(found) if report.what and not report.waits]
    if len(stuck) in (0, len(found)) and len(found) > 1:
        return f"all {len(found)} ranks are in {found[0].what or 'no call'}, at {_place(found[0])}"
    return "; ".join(
        f"rank {rank} of {len(found)} is in {found[rank].what or 'no call'} for {found[rank].seconds:.0f} s, at "
        f"{_place(found[rank])}"
        for rank in stuck
    )


def _place(report: Report) -> str:
    return " < ".join(report.frames[:FRAMES]) or "an unknown place"
