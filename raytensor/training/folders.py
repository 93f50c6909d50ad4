"""Folders that appear at once or not at all.

In: the path of a folder to write. Out: a new folder beside it that takes its place when all is written.
Knows nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill; it becomes `target` when the block ends, and goes when the block raises.

    An older `target` is moved aside first: after a crash in that instant there is none, never a mixed one.
    What a killed writer of the same `target` left is removed; there is one writer at a time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield new
        if target.exists():
            old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-")) / "old"
            os.replace(target, old)
            os.replace(new, target)
            shutil.rmtree(old.parent)
        else:
            os.replace(new, target)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
