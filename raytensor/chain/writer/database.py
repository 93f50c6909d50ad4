"""The SQLite files of a writer: created whole, readable by their owner only, checked before they are used.

In: a path, a schema, and what to say when the file is damaged. Out: an open connection (WAL, synchronous=FULL).
Refuses a file on a network volume: WAL needs shared memory, and their locks are not reliable
(https://www.sqlite.org/wal.html, "all processes must be on the same host"). RAYTENSOR_NETWORK_STATE=1 allows it.
Waits for: locks of other processes, at most `timeout_s`. Knows nothing of what the tables mean.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from raytensor import disk
from raytensor.chain.writer.reserve import checkpoint_pages, is_full
from raytensor.errors import ConfigError, DataError

NETWORK_ENV = "RAYTENSOR_NETWORK_STATE"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file. what: its name in errors. damaged: what to do when it is damaged, and what is lost then.

    upgrade        brings the tables of an earlier version up to date.
    reserve_bytes  space that the file keeps for writing while the disk is full (reserve.py).
    """

    what: str
    schema: str
    damaged: str
    timeout_s: float
    upgrade: Callable[[sqlite3.Connection], None] = lambda db: None
    reserve_bytes: int = 0


def open_database(path: Path, kind: Kind) -> sqlite3.Connection:
    """Open a file, or create it with its tables. The file and SQLite's files beside it get mode 600.

    Raises `DataError` for a damaged file and for one that can't be opened, `ConfigError` on a network volume.
    """
    _refuse_network(path, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _create(path, kind)
        if path.stat().st_size == 0:  # SQLite would take it for a new one
            raise _damaged(path, kind, "it is empty")
        for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            with suppress(FileNotFoundError, PermissionError):  # another user's file keeps its mode
                file.chmod(0o600)
    except OSError as error:
        raise DataError(f"{path}: the {kind.what} can't be opened ({error.strerror})") from error
    db = _connect(path, kind)
    try:
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise _damaged(path, kind, " ".join(found.split()))
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA temp_store=MEMORY")  # the disk of temporary files may be full, too
        db.execute(f"PRAGMA wal_autocheckpoint={checkpoint_pages(kind.reserve_bytes)}")
        kind.upgrade(db)
        db.executescript(kind.schema)
    except sqlite3.Error as error:
        db.close()
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):  # locked, full, not writable
            raise DataError(f"{path}: the {kind.what} can't be opened ({error})") from error
        raise _damaged(path, kind, str(error)) from error
    except DataError:
        db.close()
        raise
    return db


@contextmanager
def transaction(db: sqlite3.Connection, path: Path, kind: Kind) -> Iterator[None]:
    """One transaction, on disk when it ends; rolled back if it raises. Raises DataError where the disk is full."""
    try:
        with db:
            db.execute("BEGIN IMMEDIATE")
            yield
    except sqlite3.OperationalError as error:
        if not is_full(error):
            raise
        why = "the disk is full, and what the file keeps for that case is used up"
        raise DataError(f"{path}: the {kind.what} can't be written: {why}\n  fix: free some space") from error


def _create(path: Path, kind: Kind) -> None:
    """Make the file beside its place and give it its name when it is whole, so that no crash leaves half of one."""
    with disk.unfinished(path) as new:
        try:
            with closing(_connect(new, kind)) as db:
                db.executescript(kind.schema)
        except sqlite3.Error as error:
            raise DataError(f"{path}: the {kind.what} can't be created ({error})") from error
        with suppress(FileExistsError):  # another process was first
            disk.publish(new, path)


def _connect(path: Path, kind: Kind) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=kind.timeout_s, isolation_level=None, check_same_thread=False)


def _damaged(path: Path, kind: Kind, why: str) -> DataError:
    aside = f"move it aside: mv {path} {path}.damaged (also {path.name}-wal and {path.name}-shm, if they are there)"
    return DataError(f"{path}: the {kind.what} is damaged ({why})\n  fix: {kind.damaged}\n  {aside}")


def _refuse_network(path: Path, kind: Kind) -> None:
    found = disk.network_filesystem(path.parent)
    if found and os.environ.get(NETWORK_ENV) != "1":
        fix = f"use a folder on a local disk, or accept the risk with {NETWORK_ENV}=1"
        raise ConfigError(
            f"{path}: the {kind.what} can't lie on a network volume ({found}): SQLite's locks fail there; {fix}"
        )
