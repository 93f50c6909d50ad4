"""The chain on disk: one SQLite file in the state folder, one transaction per block.

In: sealed blocks with their changed keys. Out: after a restart, the chain as of the last stored block; bodies of old
blocks. A block is on disk completely or not at all, even if the process is killed.
A separate thread writes: a slow disk delays the next block, but no answer to a client.
A folder of another chain (genesis or metadata differ), or one that another process uses, is refused with the reason.
The state of earlier blocks is not stored: after a restart, state is readable from the last stored block on.
"""

import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from raytensor.devnet.block import Block
from raytensor.devnet.builtin import ScaleError, compact, read_compact
from raytensor.devnet.runtime import Runtime
from raytensor.devnet.store import ABSENT, Store
from raytensor.errors import ChainError, ConfigError

FILE_NAME = "chain.sqlite"
FORMAT = "1"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS block (
    number INTEGER PRIMARY KEY, parent BLOB NOT NULL, state_root BLOB NOT NULL, extrinsics_root BLOB NOT NULL,
    logs BLOB NOT NULL, body BLOB NOT NULL
);
"""


class Disk:
    """The database of one chain. Raises `ConfigError` if the folder cannot be used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / FILE_NAME, timeout=1.0, isolation_level=None, check_same_thread=False)
            # The lock is held until the process ends; the write-ahead log undoes an interrupted transaction.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            reason = "another process uses it" if "locked" in str(error) else str(error)
            raise ConfigError(f"--state {folder}: {reason}; name another folder, or end that process") from None
        except (sqlite3.DatabaseError, OSError) as error:
            raise ConfigError(f"--state {folder} can't hold a chain: {error}; name another folder") from None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="disk")

    def meta(self, name: str) -> str | None:
        """A stored setting of the chain (format, genesis, finalized, block_time_ms); None in a new folder."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    @property
    def fork_digest(self) -> bytes:
        """What the chain was forked from; empty for a chain with a genesis of its own."""
        return bytes.fromhex(self.meta("fork") or "")

    def restore(self, genesis_hash: bytes, runtime: Runtime) -> tuple[list[Block], int]:
        """Load the state of the last stored block into a runtime at its genesis; in a new folder, store the genesis.

        Returns the stored blocks after the genesis and the number of the finalized one. Raises `ConfigError` if the
        folder belongs to another chain or is damaged.
        """
        genesis, known = genesis_hash.hex(), self.meta("genesis")
        if known is None:
            self._begin(runtime, genesis)
            return [], 0
        if (self.meta("format"), known) != (FORMAT, genesis):
            raise ConfigError(
                f"--state {self.folder} belongs to another chain (genesis 0x{known}, this is 0x{genesis}): it was "
                f"made by another version of RayTensor, with another genesis or from another snapshot; name another "
                f"folder, or remove it"
            )
        rows = self._db.execute(
            "SELECT number, parent, state_root, extrinsics_root, logs FROM block WHERE number > 0 ORDER BY number"
        )
        blocks = [
            Block(n, parent, state, extrinsics, _unpack(logs), None) for n, parent, state, extrinsics, logs in rows
        ]
        best = blocks[-1].number if blocks else 0
        borders = [int(border) for border in (self.meta("upgrades") or "").split()]
        for border in [border for border in borders if border < best]:
            runtime.upgrades.apply(border)
        try:
            runtime.store.load(best, self._db.execute("SELECT key, value FROM state"))
        except ScaleError as error:
            raise ConfigError(f"--state {self.folder} is damaged ({error}); name another folder") from None
        if best in borders:  # the events of this block are those of the runtime before
            runtime.upgrades.apply(best)
        return blocks, int(self.meta("finalized") or 0)

    def _begin(self, runtime: Runtime, genesis: str) -> None:
        entries = [(item.raw_key(key), item.codec.encode(item.current[key])) for item, key in runtime.genesis_changes]
        self._db.execute("BEGIN")
        settings = {"format": FORMAT, "genesis": genesis, "finalized": "0", "block_time_ms": str(runtime.block_time_ms)}
        self._db.executemany("INSERT INTO meta VALUES (?, ?)", settings.items())
        self._db.executemany("INSERT INTO state VALUES (?, ?)", entries)
        self._db.execute("COMMIT")

    def store_fork(self, block: Block, store: Store, digest: bytes) -> None:
        """Replace the state by that of a fork, whose block is final, in one transaction."""
        items = store.items.values()
        entries = [(item.raw_key(k), item.codec.encode(v)) for item in items for k, v in item.current.items()]
        self._db.execute("BEGIN")
        self._db.execute("DELETE FROM state")
        self._db.executemany("INSERT INTO state VALUES (?, ?)", entries)
        head = (block.number, block.parent, block.state_root, block.extrinsics_root)
        self._db.execute("INSERT INTO block VALUES (?, ?, ?, ?, ?, ?)", (*head, _pack(block.logs), b""))
        self._db.execute("INSERT INTO meta VALUES ('fork', ?)", (digest.hex(),))
        self._db.execute("UPDATE meta SET value = ? WHERE name = 'finalized'", (str(block.number),))
        self._db.execute("COMMIT")

    def store(self, block: Block, changes: list, finalized: int) -> Future[None]:
        """Store a block, its changed keys and the finalized number in one transaction, on the writing thread."""
        head = (block.number, block.parent, block.state_root, block.extrinsics_root)
        row = (*head, _pack(block.logs), _pack(block.extrinsics or []))
        return self._writer.submit(self._write, *_rows(changes), row, finalized)

    def _write(self, written: list, removed: list, row: tuple, finalized: int) -> None:
        try:
            self._commit(written, removed, row, finalized)
        except sqlite3.Error as error:
            raise ChainError(f"--state {self.folder}: block {row[0]} can't be written: {error}") from error

    def _commit(self, written: list, removed: list, row: tuple, finalized: int) -> None:
        db = self._db
        db.execute("BEGIN")
        self._put(written, removed)
        db.execute("INSERT INTO block VALUES (?, ?, ?, ?, ?, ?)", row)
        db.execute("UPDATE meta SET value = ? WHERE name = 'finalized'", (str(finalized),))
        db.execute("COMMIT")

    def revert(self, number: int, changes: list) -> None:
        """Delete the blocks above `number` and restore the keys that they changed, in one transaction."""
        self._db.execute("BEGIN")
        self._put(*_rows(changes))
        self._db.execute("DELETE FROM block WHERE number > ?", (number,))
        self._db.execute("COMMIT")

    def _put(self, written: list, removed: list) -> None:
        self._db.executemany(
            "INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", written
        )
        self._db.executemany("DELETE FROM state WHERE key = ?", removed)

    def body(self, number: int) -> list[bytes] | None:
        """Extrinsics of a stored block."""
        row = self._db.execute("SELECT body FROM block WHERE number = ?", (number,)).fetchone()
        return None if row is None else list(_unpack(row[0]))

    def store_finalized(self, number: int) -> Future[sqlite3.Cursor]:
        """Store the finalized number without a block."""
        command = "UPDATE meta SET value = ? WHERE name = 'finalized'"
        return self._writer.submit(self._db.execute, command, (str(number),))

    def store_upgrades(self, borders: list[int]) -> None:
        """Store the blocks in whose state the runtime was replaced."""
        command = "INSERT INTO meta VALUES ('upgrades', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        self._writer.submit(self._db.execute, command, (" ".join(map(str, borders)),)).result()

    def close(self) -> None:
        self._writer.shutdown()
        self._db.close()


def _rows(changes: list) -> tuple[list, list]:
    """The present state of changed keys, as SCALE: (keys and values that exist, keys that do not)."""
    written, removed = [], []
    for item, key in changes:
        value = item.current.get(key, ABSENT)
        if value is ABSENT:
            removed.append((item.raw_key(key),))
        else:
            written.append((item.raw_key(key), item.codec.encode(value)))
    return written, removed


def _pack(items: list[bytes] | tuple[bytes, ...]) -> bytes:
    return b"".join(compact(len(item)) + item for item in items)


def _unpack(data: bytes) -> tuple[bytes, ...]:
    items, pos = [], 0
    while pos < len(data):
        size, pos = read_compact(data, pos)
        items.append(data[pos : pos + size])
        pos += size
    return tuple(items)
