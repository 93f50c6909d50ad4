"""The chain writer of a job: a Ray actor that is made again when it has died for good.

In: how the actor is made, and errors of calls to it. Out: the handle of the actor to call now.
Ray restarts the actor after a crash of its process. An actor whose constructor fails meanwhile (the chain does not
answer, the disk is full) is dead for good, and so is one that was killed by hand: it is made again here, with
back-off. The new one loads the journal and reconciles with the chain first, so nothing is sent twice.
Waits for: in the constructor the end of an earlier job's actor, at most `ENDS_S`; later nothing.
Knows nothing of what is written.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from raytensor.errors import ChainRefused, cause_of
from raytensor.telemetry import events
from raytensor.telemetry.metrics import Meters

log = logging.getLogger(__name__)

ENDS_S = 30.0  # in which Ray ends the actors of a job that was killed
PAUSE_S = (1.0, 60.0)  # first and longest between two attempts to make the actor again


class JobWriter:
    """make: makes the actor; it is given the seconds to wait for another one with these keys, and raises
    `ChainRefused` while there is one.

    actor  the newest. remade: how often it was made again.
    """

    def __init__(
        self,
        make: Callable[[float], Any],
        show: Callable[[events.Event], None],
        meters: Meters,
        *,
        pause_s: tuple[float, float] = PAUSE_S,
    ) -> None:
        self._make, self._show, self._meters, self._pauses_s = make, show, meters, pause_s
        self._pause_s, self._next_at = pause_s[0], 0.0
        self.actor = make(ENDS_S)
        self.remade = 0

    def revive(self, error: BaseException) -> Any:
        """The actor to call after `error`: a new one where the present one is dead for good, else the present one."""
        now = time.monotonic()
        if not isinstance(error, RayActorError) or now < self._next_at:
            return self.actor
        first, longest = self._pauses_s
        self._pause_s = first if now - self._next_at > 2 * longest else min(longest, 2 * self._pause_s)
        self._next_at = now + self._pause_s
        try:
            made = self._make(0.0)
        except ChainRefused:  # Ray restarts it, or its name is not free yet: looked at again after the next error
            return self.actor
        except Exception as wrong:  # the supervisor's edge: the job goes on, and tries again
            log.exception("the chain writer can't be made")
            self._show(events.Warned(text=f"the chain writer can't be started: {cause_of(wrong)}"))
            return self.actor
        self.actor, self.remade = made, self.remade + 1
        self._meters.count("raytensor_writer_remade_total")
        text = f"the chain writer has died and is started again: {cause_of(error)}"
        self._show(events.Warned(text=text, fix="what it was given is in its journal, and goes on"))
        return made

    def close(self) -> None:
        """End the actor; it gives its lease back, and what is open stays in its journal."""
        with suppress(RayError, TimeoutError):  # a lease of a process that is gone on this machine is free at once
            ray.get(self.actor.close.remote(), timeout=10)
        ray.kill(self.actor)
