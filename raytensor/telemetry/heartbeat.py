"""A dead man's switch: an address that is called while all is well, so that a silent death is noticed elsewhere.

In: `tick` from the loop that must not stand still, with whether all is well. Out: a GET of the address, at most every
`every_s` seconds; any 2xx counts as heard. Whoever runs the address alarms when the calls stop: for a job that was
killed, a machine without power or network, a loop that hangs, and for every alarm that stands.
Bounds: one call at a time in a thread of its own; one that fails is not repeated before the next is due.
Knows nothing of what "well" means.
"""

import logging
import threading
import time

from raytensor.supervised import SupervisedThread
from raytensor.telemetry.alarms import LIMIT_S, Refused, request

log = logging.getLogger(__name__)


class Heartbeat:
    """url: "" for none. num_heard, num_failed: calls that were answered with 2xx, and the others."""

    def __init__(self, url: str, every_s: float, limit_s: float = LIMIT_S) -> None:
        self._url, self._every_s, self._limit_s = url, every_s, limit_s
        self._due = threading.Event()
        self._last_s = -every_s + time.monotonic()
        self._closed = False
        self.num_heard = self.num_failed = 0
        if url:
            SupervisedThread("heartbeat", self._call).start()

    def tick(self, well: bool) -> None:
        """Call the address if all is well and a call is due; returns at once."""
        now = time.monotonic()
        if self._url and well and now - self._last_s >= self._every_s:
            self._last_s = now
            self._due.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._due.set()

    def _call(self, thread: SupervisedThread) -> bool:
        """Wait until a call is due and make it. False: closed."""
        self._due.wait()
        self._due.clear()
        if self._closed:
            return False
        try:
            request("GET", self._url, self._limit_s)
            self.num_heard += 1
        except Exception as error:  # the thread's edge: the address, which may be a secret, is in no message
            self.num_failed += 1
            why = str(error) if isinstance(error, Refused) else type(error).__name__
            log.warning("the heartbeat was not heard: %s", why)
        return True
