"""Work in a child process that is forked from this one: a crash or a hang costs a fork, and nothing is loaded again.

In: an object that is expensive to construct (a model), and calls of its methods. Out: their results.
Waits for: the result of each call, at most `limit_s`. Bounds: one child, one call at a time.
The child shares the parent's memory (copy on write), and none of its network sockets: a port that the parent stops
serving is free at once, and a peer sees the parent close a connection. It is forked again after it died or ran past the
limit; the call that was running then raises `WorkLost`. For a method that yields results one by one (`each`), the error
carries the results that were yielded before. Arguments and results are pickled through pipes between the two processes,
so the work must take longer than the copy. Linux only. Not for objects that hold a GPU, because a CUDA context does not
survive a fork: there, the actor itself is replaced.
"""

import ctypes
import os
import pickle
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

from raytensor.errors import WorkLost

_RESULT, _END, _RAISED = "result", "end", "raised"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before any fork


class ForkedWorker:
    """Calls methods of `target` in a forked child.

    target   its methods must keep no state between calls, because the child may be a new one.
    limit_s  seconds that one call may take; None: no limit.
    """

    def __init__(self, target: Any, limit_s: float | None = None) -> None:
        self._target = target
        self._limit_s = limit_s
        self._child: tuple[int, int, int] | None = None  # process id, pipe to it, pipe from it
        self.forks = 0

    @property
    def child(self) -> int | None:
        """Process id of the present child; None when there is none."""
        return None if self._child is None else self._child[0]

    def call(self, method: str, *args: Any) -> Any:
        """The result of `target.method(*args)`. Raises what it raised, or `WorkLost`."""
        (value,) = self._results(False, method, *args)
        return value

    def each(self, method: str, *args: Any) -> list[Any]:
        """All values that `target.method(*args)` yields.

        Raises what it raised, or `WorkLost` with the values yielded before the loss in `done`.
        """
        found: list[Any] = []
        try:
            for value in self._results(True, method, *args):
                found.append(value)
        except WorkLost as lost:
            lost.done = found
            raise
        return found

    def _results(self, yields: bool, method: str, *args: Any) -> Iterator[Any]:
        if self._child is None:
            self._fork()
        assert self._child is not None
        process, to_child, from_child = self._child
        end = None if self._limit_s is None else time.monotonic() + self._limit_s
        try:
            _send(to_child, pickle.dumps((yields, method, args), pickle.HIGHEST_PROTOCOL))
            while True:
                kind, value = pickle.loads(_receive(from_child, end))
                if kind == _RESULT:
                    yield value
                if kind != _RESULT or not yields:
                    break
        except TimeoutError:
            self.close()
            raise WorkLost(f"{method} ran past {self._limit_s:g} s", timed_out=True) from None
        except (EOFError, BrokenPipeError):
            _, status = os.waitpid(process, 0)
            self._child = None
            os.close(to_child)
            os.close(from_child)
            raise WorkLost(f"the process that ran {method} {_exit_text(status)}") from None
        if kind == _RAISED:
            raise value

    def close(self) -> None:
        """End the child."""
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
    """The child's main function: serves calls until the pipe closes. Exits the process and never returns."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # the child ends when the parent is killed
    status = 1
    try:
        if os.getppid() != parent:
            return
        _close_sockets()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        while True:
            yields, method, args = pickle.loads(_receive(source, None))
            try:
                found = getattr(target, method)(*args)
                for value in found if yields else (found,):
                    _send(sink, _dumps(_RESULT, value))
                last = (_END, None)
            except Exception as error:  # the edge of the child: the parent raises it
                last = (_RAISED, error)
            if yields or last[0] == _RAISED:
                _send(sink, _dumps(*last))
    except EOFError:
        status = 0
    finally:
        os._exit(status)


def _close_sockets() -> None:
    """Close the parent's connections and whatever it listens on, in the child only.

    /dev/null takes the place of each, because objects copied from the parent will close these numbers again.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:
        try:
            one = socket.socket(fileno=number)
        except OSError:  # no socket
            continue
        network = one.family in (socket.AF_INET, socket.AF_INET6)
        listens = one.type == socket.SOCK_STREAM and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        one.detach()
        if number > 2 and (network or listens):
            os.dup2(null, number, inheritable=False)


def _dumps(kind: str, value: Any) -> bytes:
    """A message to the parent. An exception that can't be pickled is sent as a `RuntimeError` with its text."""
    try:
        data = pickle.dumps((kind, value), pickle.HIGHEST_PROTOCOL)
        if kind == _RAISED:
            pickle.loads(data)  # some exceptions can be pickled and not unpickled
        return data
    except Exception:
        if kind == _RESULT:  # becomes an exception of the call
            raise RuntimeError(f"a {type(value).__name__} can't be sent") from None
        return pickle.dumps((_RAISED, RuntimeError(f"{type(value).__name__}: {value}")))


def _send(pipe: int, data: bytes) -> None:
    view = memoryview(struct.pack("<Q", len(data)) + data)
    while view:
        view = view[os.write(pipe, view) :]


def _receive(pipe: int, end: float | None) -> bytes:
    (size,) = struct.unpack("<Q", _read(pipe, 8, end))
    return _read(pipe, size, end)


def _read(pipe: int, size: int, end: float | None) -> bytes:
    """Exactly `size` bytes. Raises `TimeoutError` at `end` (monotonic seconds), `EOFError` at the pipe's end."""
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


def _exit_text(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"
