"""Compiles the kernels and caches the result on disk.

In: Python functions over numpy arrays. Out: machine code that releases the interpreter lock.

The cache is in `NUMBA_CACHE_DIR`, else `$XDG_CACHE_HOME/raytensor`, else `~/.cache/raytensor`, in a folder named after
the hash of all kernels' source, so that an edit or an upgrade never uses old code and a read-only installation works.
If no folder can be written, each process compiles the kernels again.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba


def _digest() -> str:
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(text).hexdigest()[:16]


def cache_dir() -> str | None:
    given = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "raytensor" / f"kernels-{_digest()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(folder) if os.access(folder, os.W_OK) else None


CACHE_DIR = cache_dir()


@contextlib.contextmanager
def one_compiler() -> Iterator[None]:
    """Hold the lock of the cache folder, which one process of the machine holds at a time."""
    if CACHE_DIR is None:
        yield
        return
    with (Path(CACHE_DIR) / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kernel(function: Callable) -> Callable:
    """A compiled entry point, cached on disk. It is compiled per combination of argument types, at the first call."""
    if CACHE_DIR is None:
        return numba.njit(nogil=True, error_model="numpy")(function)
    config: Any = numba.config  # pyright: ignore[reportPrivateImportUsage]  # numba's only way to set the folder
    before, config.CACHE_DIR = config.CACHE_DIR, CACHE_DIR
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    finally:
        config.CACHE_DIR = before


def part(function: Callable) -> Callable:
    """A compiled function that only kernels call; it is cached as a part of them."""
    return numba.njit(nogil=True, error_model="numpy")(function)
