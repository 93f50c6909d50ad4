"""How a file survives a crash: files replaced whole, logs appended line by line, torn last lines cut off.

In: paths and bytes. Out: files that hold the old or the new content, never a part of one.
Bounds: none of its own; a file is held in memory once while it is written from one `bytes`.
The only module that calls `fsync` and renames files into place. Knows nothing of what the files contain.
"""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

SUFFIX = ".tmp"  # of files that are being written
MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "9p"}
_NETWORK |= {"ocfs2", "gfs2", "pvfs2", "orangefs", "glusterfs", "coda", "fuse"}
_LOCAL_FUSE = {"fuse-overlayfs", "mergerfs", "gocryptfs", "encfs", "ntfs-3g", "exfat", "exfat-fuse", "bindfs"}


def home() -> Path:
    """The user's folder with the journals and the audit log of commands and the tracebacks of errors."""
    return Path(os.environ.get("RAYTENSOR_HOME") or "~/.raytensor").expanduser()


def write_bytes(path: Path, content: bytes | Iterable[bytes | memoryview], *, mode: int = 0o644) -> None:
    """Replace a file. Readers see the old or the new content; after a crash either is there, whole.

    content  the bytes, or chunks of them.
    mode     permissions of the new file; 0o600 for keys and salts.

    Safe while other processes replace the same file: the last one wins. Raises `OSError`; the old file is then
    unchanged.
    """
    path = Path(path)
    with unfinished(path) as new:
        _fill(new, content, mode)
        os.replace(new, path)
    sync_folder(path.parent)


def create_bytes(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a new file, whole or not at all. Raises `FileExistsError` where there is one, and `OSError`."""
    path = Path(path)
    with unfinished(path) as new:
        _fill(new, content, mode)
        publish(new, path)


def publish(new: Path, path: Path) -> None:
    """Give a finished file its name unless there is a file of that name. Raises `FileExistsError`."""
    try:
        os.link(new, path)  # of two processes that create the same file, one fails here
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # a filesystem without hard links
        os.replace(new, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """An empty file of mode 600 beside `path`, to fill and to rename; removed when the block ends, however it ends."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=SUFFIX)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _fill(path: Path, content: bytes | Iterable[bytes | memoryview], mode: int) -> None:
    with path.open("wb") as file:
        os.fchmod(file.fileno(), mode)
        file.writelines([content] if isinstance(content, bytes) else content)
        sync(file)


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode(), mode=mode)


def remove_unfinished(folder: Path) -> None:
    """Delete what killed processes left of files that they were writing. Call it only while no other process writes."""
    for path in folder.glob(f".*{SUFFIX}"):
        path.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append one line to a log; it is on the disk when this returns. A torn last line is cut off first."""
    cut_torn_line(path)
    with path.open("ab") as file:
        file.write(line.encode() + b"\n")
        sync(file)


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without its end) of a log; a torn last line is left out. The log may be written meanwhile.

    Raises `FileNotFoundError` when there is no file.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield number, line[:-1]


def cut_torn_line(path: Path) -> int:
    """Cut off what follows the end of the last whole line. Returns the number of bytes removed; 0 without a file."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            sync(file)
        return size - end


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill. It becomes `target` when the block ends, and is removed when the block raises.

    An older `target` is moved aside first, so that a crash leaves either folder or none, never a mixed one. Leftovers
    of a killed writer of the same `target` are removed: there must be one writer at a time. The files in the folder
    are not flushed to the disk; their format must be able to detect damage.
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
    except BaseException:  # also an interruption: nothing unfinished is left
        shutil.rmtree(new, ignore_errors=True)
        raise


def replace(source: Path, target: Path) -> None:
    """Rename a finished file or folder into place, on the disk when this returns. `source` must be synced before."""
    os.replace(source, target)
    sync_folder(target.parent)


def network_filesystem(path: Path) -> str:
    """The type of the network filesystem that holds a path ("nfs4", "cifs", "fuse.sshfs"); "" for a local one.

    From /proc/self/mountinfo; "" where there is none. A filesystem in user space counts as a network's unless it is
    known to be local.
    """
    try:
        mounts = MOUNTS.read_text()
    except OSError:
        return ""
    where, longest, found = Path(path).expanduser().resolve(), -1, ""
    for line in mounts.splitlines():  # id parent device root MOUNT-POINT options ... - TYPE source options
        before, _, after = line.partition(" - ")
        if len(before.split()) < 5 or not after:
            continue
        mount = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4]))
        if len(mount.parts) >= longest and where.is_relative_to(mount):
            longest, found = len(mount.parts), after.split()[0]
    kind, _, name = found.partition(".")
    return found if kind in _NETWORK and name not in _LOCAL_FUSE else ""


def sync(file: IO[bytes]) -> None:
    """Flush an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, so that a rename survives a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
