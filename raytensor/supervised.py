"""One thread that repeats a step and outlives its errors.

In: a step, which does one piece of work and waits itself. Out: the step is called again until `close`; an exception
is counted, logged and followed by a pause that doubles. `alive`, `errors`, `last_error` and `age_s` may be read from
any thread, so that the caller judges the thread by its progress.
Waits for: the pauses, and in `close` for the step in hand. Knows nothing of what a step does.
"""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class SupervisedThread:
    """A daemon thread. It begins with `start` and ends with `close`, with `stop` or when `step` returns False.

    step      called again and again with the thread, whose `wait(seconds)` is its pause; False ends the thread.
    on_error  called with each exception, in the thread; what it raises itself is logged.
    expected  exceptions that are logged without a traceback.
    pause_s   (first, longest) pause after an error, in seconds.
    """

    def __init__(
        self,
        name: str,
        step: Callable[["SupervisedThread"], bool | None],
        *,
        on_error: Callable[[Exception], None] = lambda error: None,
        expected: tuple[type[Exception], ...] = (),
        pause_s: tuple[float, float] = (0.2, 30.0),
    ) -> None:
        self.name, self._step, self._on_error = name, step, on_error
        self._expected, self._pause_s = expected, pause_s
        self._stopping = threading.Event()
        self._good_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.errors = 0
        self.last_error = ""  # of the last step; "" after one without an error

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether it is to end."""
        return self._stopping.is_set()

    @property
    def age_s(self) -> float:
        """Seconds since a step ended without an error, or since the start."""
        return time.monotonic() - self._good_at

    def start(self) -> None:
        """Begin to call the step."""
        self._good_at = time.monotonic()
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Pause within a step; True at once when the thread is to end."""
        return self._stopping.wait(max(0.0, seconds))

    def stop(self) -> None:
        """Let the thread end after the step in hand; does not wait."""
        self._stopping.set()

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop, and wait for the end at most `timeout_s`."""
        self.stop()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=timeout_s)

    def _run(self) -> None:
        pause, longest = self._pause_s
        while not self.stopping:
            try:
                again = self._step(self)
                self._good_at, self.last_error = time.monotonic(), ""
                pause = self._pause_s[0]
                if again is False:
                    return
            except Exception as error:  # the supervisor's edge: the thread outlives every error of its step
                self._failed(error)
                self.wait(pause)
                pause = min(longest, 2 * pause)

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        expected = isinstance(error, self._expected)
        words = str(error) if expected else f"{type(error).__name__}: {error}"
        if words != self.last_error:  # the same again says nothing new
            log.warning("%s: %s", self.name, words, exc_info=None if expected else error)
        self.last_error = words
        try:
            self._on_error(error)
        except Exception:  # a callback must not end the thread either
            log.exception("%s: after an error", self.name)
