"""Files that miners hand in: `<folder>/<hotkey>/<digest>.safetensors`, written whole, never changed.

In: the bytes of a file. Out: its digest, and its path for whoever asks for that digest. A new version is a new file, so
that what a validator was promised stays what it is. All nodes see the folder: scorers read there.
Bound: of each hotkey the file that the chain has a commitment to and the `KEPT` newest stay. Validators ask for what is
committed, and a version that is older than those was overtaken on the chain long ago.
Knows nothing of what is in a file.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from raytensor.training.single_file import digest

KEPT = 3
_DIGEST = re.compile(r"[0-9a-f]{64}")


class FileStore:
    """folder: of all miners of a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, hotkey: str, digest: str) -> Path | None:
        """Where a file lies; None when it does not, or when `digest` is none."""
        if not _DIGEST.fullmatch(digest):  # of a stranger's question: it must not name another place
            return None
        path = self._folder / hotkey / f"{digest}.safetensors"
        return path if path.is_file() else None

    def put(self, hotkey: str, data: bytes) -> str:
        """Keep a file; its digest. One that is there already becomes the newest."""
        name = digest(data)
        path = self._folder / hotkey / f"{name}.safetensors"
        if path.is_file():
            os.utime(path)
            return name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        return name

    def prune(self, hotkey: str, committed: str | None) -> None:
        """Remove what nobody can ask for any more (see the bound above), and what a killed writer left."""
        folder = self._folder / hotkey
        for torn in folder.glob(".new-*"):
            torn.unlink(missing_ok=True)
        newest = sorted(folder.glob("*.safetensors"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        for path in newest[:-KEPT]:
            if path.stem != committed:
                path.unlink(missing_ok=True)
