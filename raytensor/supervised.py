"""Threads that never die in silence: one that repeats a step and outlives its errors, and one that runs once.

In: a step, which does one piece of work and waits itself. Out: the step is called again until `close`; an exception
is counted, logged and followed by a pause that doubles. `alive`, `errors`, `last_error` and `age_s` may be read from
any thread, so that the caller judges the thread by its progress. `Unexpected` counts the unexpected errors of all
threads of the process, so that a job can tell them.
Waits for: the pauses, and in `close` for the step in hand. Knows nothing of what a step does.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)


class Unexpected:
    """The unexpected errors of the supervised threads of this process. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: dict[str, tuple[int, str]] = {}
        self._failing: dict[int, tuple[str, str]] = {}

    @property
    def errors(self) -> Mapping[str, tuple[int, str]]:
        """(number of errors, the newest) by the thread's name, since the process began."""
        with self._lock:
            return dict(self._errors)

    @property
    def failing(self) -> Mapping[str, str]:
        """The error of each thread whose last step failed, or that has ended by an error."""
        with self._lock:
            return dict(self._failing.values())

    def count(self, key: int, name: str, words: str) -> None:
        """A thread has failed. key: of the thread, for `end`."""
        with self._lock:
            self._errors[name] = self._errors.get(name, (0, ""))[0] + 1, words
            self._failing[key] = name, words

    def end(self, key: int) -> None:
        """The thread works again, or has ended in order."""
        with self._lock:
            self._failing.pop(key, None)


UNEXPECTED = Unexpected()


def tell(name: str, call: Callable[..., object], *args: object, **more: object) -> None:
    """Call what only tells (a view, a log, a metric): what it raises is logged and counted, and control goes on."""
    try:
        call(*args, **more)
        UNEXPECTED.end(hash(name))
    except Exception as error:  # telemetry's edge: it never raises into control
        words = f"{type(error).__name__}: {error}"
        if UNEXPECTED.errors.get(name, (0, ""))[1] != words:  # the same again says nothing new
            log.exception("%s can't be told", name)
        UNEXPECTED.count(hash(name), name, words)


def run_once(name: str, work: Callable[[], object]) -> threading.Thread:
    """A daemon thread, not started, that calls `work` once. What it raises is logged and counted in `UNEXPECTED`."""

    def target() -> None:
        try:
            work()
        except BaseException as error:  # the thread's edge: nobody else sees what is raised here
            log.exception("%s has ended", name)
            UNEXPECTED.count(id(thread), name, f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=target, name=name, daemon=True)
    return thread


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
                UNEXPECTED.end(id(self))
                pause = self._pause_s[0]
                if again is False:
                    break
            except BaseException as error:  # the supervisor's edge: the thread outlives whatever its step raises
                self._failed(error)
                self.wait(pause)
                pause = min(longest, 2 * pause)
        UNEXPECTED.end(id(self))

    def _failed(self, error: BaseException) -> None:
        self.errors += 1
        expected = isinstance(error, self._expected)
        words = str(error) if expected else f"{type(error).__name__}: {error}"
        if words != self.last_error:  # the same again says nothing new
            log.warning("%s: %s", self.name, words, exc_info=None if expected else error)
        self.last_error = words
        if not expected:
            UNEXPECTED.count(id(self), self.name, words)
        try:  # SystemExit, which a library may raise, is an error like others here
            self._on_error(error if isinstance(error, Exception) else RuntimeError(words))
        except Exception:  # a callback must not end the thread either
            log.exception("%s: after an error", self.name)
