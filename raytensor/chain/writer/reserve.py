"""Space that a SQLite file of a writer keeps for itself: what is written while the disk is full goes there.

In: an open file in WAL mode. Out: free pages inside the file, and a log (FILE-wal) that is as long as they are. SQLite
fills the free pages of a file before it makes the file longer, and overwrites its log from the start after each
checkpoint, so neither needs more of the disk. No other program can take this space, as it could take a file that is
deleted when the disk is full. On a file system that copies what is overwritten (btrfs, ZFS) it helps less.
Source: https://www.sqlite.org/fileformat2.html#the_freelist, https://www.sqlite.org/wal.html#avoiding_excessively_large_wal_files
Waits for: the disk. Knows nothing of what the tables mean.
"""

import shutil
import sqlite3
from pathlib import Path

LEFT_TO_OTHERS = 3  # reserves that must be free on the disk before one is made


def is_full(error: sqlite3.Error) -> bool:
    """Whether SQLite found no space on the disk."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def checkpoint_pages(size_bytes: int) -> int:
    """Pages of 4 KiB after which the log is checkpointed, so that it stays within half of a reserve; 1000, SQLite's
    default, without one."""
    return size_bytes // 2 // 4096 or 1000


def keep_reserve(db: sqlite3.Connection, path: Path, size_bytes: int) -> bool:
    """Make the reserve again where less than half of it is left. False if it is short and the disk has no space for it.

    Call it outside a transaction. Raises sqlite3.Error.
    """
    if has_reserve(db, path, size_bytes):
        return True
    if shutil.disk_usage(path.parent).free < LEFT_TO_OTHERS * size_bytes:
        return False
    try:
        db.execute("DROP TABLE IF EXISTS reserve")  # of a process that was killed in between
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("CREATE TABLE reserve (filling BLOB)")
            db.execute("INSERT INTO reserve VALUES (zeroblob(?))", (size_bytes,))
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")  # the pages are in the file, not in the log alone
        db.execute("DROP TABLE reserve")
    except sqlite3.OperationalError as error:
        if not is_full(error):
            raise
        return False
    return has_reserve(db, path, size_bytes)


def has_reserve(db: sqlite3.Connection, path: Path, size_bytes: int) -> bool:
    """Whether at least half of the free pages are left, and the log is long enough."""
    (page_bytes,), (free,), (pages,) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("page_size", "freelist_count", "page_count")
    )
    log = path.with_name(f"{path.name}-wal")
    is_written = path.stat().st_size >= pages * page_bytes
    return is_written and 2 * free * page_bytes >= size_bytes and log.exists() and log.stat().st_size >= size_bytes
