"""Compiles the kernels and keeps the result on disk.

In: Python functions over numpy arrays. Out: machine code, that releases the interpreter while it runs.

The kept code lies under `NUMBA_CACHE_DIR`, or else under `$XDG_CACHE_HOME/raytensor` or `~/.cache/raytensor`, in a
folder named after the text of all kernels: an edit or an upgrade never meets old code, and a read-only installation
works. Where no folder can be written the kernels are compiled again in each process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numba


def _digest() -> str:
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(text).hexdigest()[:16]


def _cache_dir() -> str | None:
    given = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "raytensor" / f"kernels-{_digest()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(folder) if os.access(folder, os.W_OK) else None


CACHE_DIR = _cache_dir()


def kernel(function: Callable) -> Callable:
    """A compiled entry point, kept on disk. Compiled for each combination of argument types when first called."""
    if CACHE_DIR is None:
        return numba.njit(nogil=True, error_model="numpy")(function)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = CACHE_DIR
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    finally:
        numba.config.CACHE_DIR = before


def part(function: Callable) -> Callable:
    """A compiled function that only kernels call; it is kept as a part of them."""
    return numba.njit(nogil=True, error_model="numpy")(function)
