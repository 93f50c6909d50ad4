"""Work in a child process that was forked from this one: a crash or a hang costs a fork, and nothing is loaded again.

In: an object whose construction was expensive (a model) and calls of its methods. Out: their results. The child shares
the parent's memory (copy on write), serves one call after another, and is forked anew after it died or ran past the
limit; the call that it had in hand raises `WorkLost`. Of a method that yields its results one by one (`each`), those that
were there before the loss come with it. Arguments and results travel through pipes, so this is for work
that takes longer than their copy.
Linux; not for objects that hold a GPU (a CUDA context does not survive a fork): there, the actor itself is replaced.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import struct
import time
from collections.abc import Iterator
from typing import Any

from raytensor.errors import WorkLost

_RESULT, _END, _RAISED = "result", "end", "raised"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before any fork


class Isolated:
    """target: serves the calls; its methods may keep nothing between calls, for the child may be a new one.

    limit_s: seconds that a call may take; None: for ever.
    """

    def __init__(self, target: Any, limit_s: float | None = None) -> None:
        self._target = target
        self._limit_s = limit_s
        self._child: tuple[int, int, int] | None = None  # process id, pipe to it, pipe from it
        self.forks = 0

    @property
    def child(self) -> int | None:
        """Process id of the present child."""
        return None if self._child is None else self._child[0]

    def call(self, method: str, *args: Any) -> Any:
        """The result of `target.method(*args)`. Raises what it raised, or WorkLost."""
        (value,) = self._results(False, method, *args)
        return value

    def each(self, method: str, *args: Any) -> list[Any]:
        """All that `target.method(*args)` yields. Raises what it raised, or WorkLost with what it had yielded."""
        found: list[Any] = []
        try:
            for value in self._results(True, method, *args):
                found.append(value)
        except WorkLost as lost:
            lost.done = found
            raise
        return found

    def _results(self, several: bool, method: str, *args: Any) -> Iterator[Any]:
        if self._child is None:
            self._fork()
        assert self._child is not None
        process, to_child, from_child = self._child
        end = None if self._limit_s is None else time.monotonic() + self._limit_s
        try:
            _send(to_child, pickle.dumps((several, method, args), pickle.HIGHEST_PROTOCOL))
            while True:
                what, value = pickle.loads(_receive(from_child, end))
                if what == _RESULT:
                    yield value
                if what != _RESULT or not several:
                    break
        except TimeoutError:
            self.close()
            raise WorkLost(f"{method} ran past {self._limit_s:g} s", timed_out=True) from None
        except (EOFError, BrokenPipeError):
            _, status = os.waitpid(process, 0)
            self._child = None
            os.close(to_child)
            os.close(from_child)
            raise WorkLost(f"the process that ran {method} {_ending(status)}") from None
        if what == _RAISED:
            raise value

    def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            process, to_child, from_child = self._child
            self._child = None
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            os.close(to_child)
            os.close(from_child)

    def _fork(self) -> None:
        to_child, from_child = os.pipe(), os.pipe()
        parent = os.getpid()
        process = os.fork()
        if process == 0:
            os.close(to_child[1])
            os.close(from_child[0])
            _serve(self._target, parent, to_child[0], from_child[1])
        os.close(to_child[0])
        os.close(from_child[1])
        self._child = (process, to_child[1], from_child[0])
        self.forks += 1


def _serve(target: Any, parent: int, source: int, sink: int) -> None:
    """The child's whole life; never returns into the parent's stack."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody is left behind when the parent is killed
    status = 1
    try:
        if os.getppid() != parent:
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        while True:
            several, method, args = pickle.loads(_receive(source, None))
            try:
                found = getattr(target, method)(*args)
                for value in found if several else (found,):
                    _send(sink, _dumps((_RESULT, value)))
                answer = (_END, None)
            except Exception as error:  # the edge of the child: told to the parent, which raises it
                answer = (_RAISED, error)
            if several or answer[0] == _RAISED:
                _send(sink, _dumps(answer))
    except EOFError:
        status = 0
    finally:
        os._exit(status)


def _dumps(answer: tuple[str, Any]) -> bytes:
    what, value = answer
    try:
        data = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
        if what == _RAISED:
            pickle.loads(data)  # some exceptions can be written and not read
        return data
    except Exception:
        if what == _RESULT:  # the method's edge tells it as an error of the call
            raise RuntimeError(f"a {type(value).__name__} can't be sent") from None
        return pickle.dumps((_RAISED, RuntimeError(f"{type(value).__name__}: {value}")))  # its text travels


def _send(pipe: int, data: bytes) -> None:
    view = memoryview(struct.pack("<Q", len(data)) + data)
    while view:
        view = view[os.write(pipe, view) :]


def _receive(pipe: int, end: float | None) -> bytes:
    (size,) = struct.unpack("<Q", _exactly(pipe, 8, end))
    return _exactly(pipe, size, end)


def _exactly(pipe: int, size: int, end: float | None) -> bytes:
    data = bytearray()
    waiter = select.poll()
    waiter.register(pipe, select.POLLIN)
    while len(data) < size:
        left = None if end is None else end - time.monotonic()
        if left is not None and (left <= 0 or not waiter.poll(1000 * left)):
            raise TimeoutError
        part = os.read(pipe, min(size - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"
