"""Files that miners submit: `<folder>/<hotkey>/<digest>.safetensors`, written whole, never changed.

In: the bytes of a file. Out: its digest, and the path of a digest. A new version is a new file, so that a committed
file stays as it is. All nodes must see the folder, because scorers read there. Bounds: per hotkey, the file that the
chain has a commitment to and the `KEPT` newest files are kept. Validators ask for the committed file only. Knows
nothing of what is in a file.
"""

import os
import re
from pathlib import Path

from raytensor import disk
from raytensor.training.single_file import digest

KEPT = 3
_DIGEST = re.compile(r"[0-9a-f]{64}")


class FileStore:
    """folder: of all miners of a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, hotkey: str, digest: str) -> Path | None:
        """The path of a file; None when there is none, or when `digest` is not a digest."""
        if not _DIGEST.fullmatch(digest):  # it comes from a stranger, and must not name another path
            return None
        path = self._folder / hotkey / f"{digest}.safetensors"
        return path if path.is_file() else None

    def put(self, hotkey: str, data: bytes) -> str:
        """Store a file and return its digest. A file that exists already becomes the newest."""
        name = digest(data)
        path = self._folder / hotkey / f"{name}.safetensors"
        if path.is_file():
            os.utime(path)
            return name
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write_bytes(path, data)
        return name

    def prune(self, hotkey: str, committed: str | None) -> None:
        """Remove all but the kept files (see Bounds), and leftovers of a killed writer."""
        folder = self._folder / hotkey
        disk.remove_unfinished(folder)
        newest = sorted(folder.glob("*.safetensors"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        for path in newest[:-KEPT]:
            if path.stem != committed:
                path.unlink(missing_ok=True)
