"""The journal of a writer: intents, extrinsics and receipts in a SQLite file (WAL) that survives the process.

In: an intent before it is planned, an extrinsic with its signed bytes before it is sent, a fate as soon as the chain
shows it. Out: the same after a restart: a writer finds here what it may have sent, and looks it up on the chain before
it sends more.

    intents     one row per intent, with its fate and newest receipt
    extrinsics  one row per signed extrinsic: hash, signer, nonce, first and last block of its era, bytes, state
    items       the intents of an extrinsic, in the order of its items
    receipts    every receipt, in order: what `receipts_since` reads
    standing    the newest weights of each (signer, netuid, mecid) that are set as soon as the chain allows
    commits     committed weights, with what revealing them needs (commit_book.py)

Several threads may use one journal. Knows nothing of the chain; holds no key, and no signature outside the bytes of
extrinsics.
"""

import enum
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raytensor.chain.calls import Intent
from raytensor.chain.intents import SetWeights, intent_from_json
from raytensor.types import Fate, Receipt


class Sent(str, enum.Enum):
    """State of a signed extrinsic."""

    WRITTEN = "written"  # in the journal; it may have reached a node
    POOLED = "pooled"  # accepted by a node
    REFUSED = "refused"  # refused by a node, for certain
    INCLUDED = "included"  # in a block
    EXPIRED = "expired"  # its era ended, or another extrinsic used its nonce


@dataclass(frozen=True, slots=True)
class Extrinsic:
    """A signed extrinsic. Valid in the blocks birth < n <= death, where death is None for one that never expires."""

    hash: str
    signer: str
    nonce: int
    birth: int
    death: int | None
    data: bytes
    call_json: str
    intent_ids: tuple[str, ...]
    state: Sent = Sent.WRITTEN
    block: int | None = None


_SCHEMA = """
CREATE TABLE IF NOT EXISTS intents (
    intent_id TEXT PRIMARY KEY, call TEXT NOT NULL, signer TEXT NOT NULL, netuid INTEGER, body TEXT NOT NULL,
    fate TEXT, receipt TEXT, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS extrinsics (
    hash TEXT PRIMARY KEY, signer TEXT NOT NULL, nonce INTEGER NOT NULL, birth INTEGER NOT NULL, death INTEGER,
    data BLOB NOT NULL, call TEXT NOT NULL, state TEXT NOT NULL, block INTEGER, detail TEXT, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    hash TEXT NOT NULL, place INTEGER NOT NULL, intent_id TEXT NOT NULL, PRIMARY KEY (hash, place));
CREATE INDEX IF NOT EXISTS items_by_intent ON items (intent_id);
CREATE INDEX IF NOT EXISTS open_intents ON intents (fate) WHERE fate IS NULL OR fate = 'unknown';
CREATE INDEX IF NOT EXISTS intents_by_place ON intents (signer, netuid);
CREATE INDEX IF NOT EXISTS open_extrinsics ON extrinsics (state) WHERE state IN ('written', 'pooled');
CREATE TABLE IF NOT EXISTS receipts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, intent_id TEXT NOT NULL, receipt TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS standing (
    signer TEXT NOT NULL, netuid INTEGER NOT NULL, mecid INTEGER NOT NULL, intent_id TEXT NOT NULL,
    PRIMARY KEY (signer, netuid, mecid));
CREATE TABLE IF NOT EXISTS commits (
    digest TEXT PRIMARY KEY, kind TEXT NOT NULL, intent_id TEXT NOT NULL, signer TEXT NOT NULL, netuid INTEGER NOT NULL,
    mecid INTEGER NOT NULL, body TEXT NOT NULL, due INTEGER, epoch INTEGER, state TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS pending_commits ON commits (state) WHERE state = 'pending';
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_COLUMNS = "hash, signer, nonce, birth, death, data, call, state, block"  # of an extrinsic, without the time


class Journal:
    """One writer's journal. Each method is one transaction that is on disk when it returns.

    genesis  hash of block 0 of the chain. Raises ValueError for a journal of another chain.
    """

    def __init__(self, path: str | os.PathLike, genesis: str | None = None) -> None:
        self.path = Path(path).expanduser()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(self.path, timeout=30.0, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        if genesis is not None:
            self._db.execute("INSERT OR IGNORE INTO facts VALUES ('genesis', ?)", (genesis,))
            (known,) = self._db.execute("SELECT value FROM facts WHERE name = 'genesis'").fetchone()
            if known != genesis:
                self._db.close()
                raise ValueError(
                    f"journal {self.path} belongs to the chain with genesis {known[:18]}, not {genesis[:18]}: "
                    "use another journal file for this chain"
                )

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk when it ends; rolled back if it raises. Nested ones are part of the outermost."""
        with self._lock:
            if self._db.in_transaction:
                yield self._db
                return
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db

    def rows(self, query: str, values: Sequence = ()) -> list[tuple]:
        """The rows of a SELECT."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def add_intents(self, intents: Iterable[Intent]) -> None:
        """Record intents. One that is recorded already keeps its fate."""
        now = time.time()
        rows = [(i.intent_id, i.name, i.signer, i.subnet, json.dumps(i.to_json()), now) for i in intents]
        with self.transaction() as db:
            columns = "intent_id, call, signer, netuid, body, at"
            db.executemany(f"INSERT OR IGNORE INTO intents ({columns}) VALUES (?,?,?,?,?,?)", rows)

    def add_extrinsic(self, extrinsic: Extrinsic) -> None:
        """Record a signed extrinsic and its items, before it is sent."""
        x = extrinsic
        row = x.hash, x.signer, x.nonce, x.birth, x.death, x.data, x.call_json, x.state.value, x.block
        with self.transaction() as db:
            db.execute(f"INSERT INTO extrinsics ({_COLUMNS}, at) VALUES (?,?,?,?,?,?,?,?,?,?)", (*row, time.time()))
            rows = [(x.hash, place, intent_id) for place, intent_id in enumerate(x.intent_ids)]
            db.executemany("INSERT INTO items VALUES (?,?,?)", rows)

    def mark(self, hash: str, state: Sent, *, block: int | None = None, detail: str | None = None) -> None:
        """Record the state of an extrinsic."""
        with self.transaction() as db:
            changed = db.execute(
                "UPDATE extrinsics SET state = ?, block = COALESCE(?, block), detail = COALESCE(?, detail) "
                "WHERE hash = ?",
                (state.value, block, detail, hash),
            ).rowcount
        assert changed == 1, f"extrinsic {hash} is not in the journal"

    def settle(self, receipts: Sequence[Receipt], extrinsic: tuple[str, Sent, int | None] | None = None) -> None:
        """Record receipts and, in the same transaction, the state (hash, state, block) of their extrinsic.

        UNKNOWN never replaces a known fate: it comes from a caller whose deadline passed meanwhile.
        """
        now = time.time()
        rows = [(r.fate.value, json.dumps(_plain(r)), r.intent_id) for r in receipts]
        with self.transaction() as db:
            db.executemany(
                "UPDATE intents SET fate = ?1, receipt = ?2 WHERE intent_id = ?3 "
                "AND (?1 != 'unknown' OR fate IS NULL OR fate IN ('unknown', 'held', 'not_sent'))",
                rows,
            )
            log = [(intent_id, receipt, now) for _, receipt, intent_id in rows]
            db.executemany("INSERT INTO receipts (intent_id, receipt, at) VALUES (?,?,?)", log)
            if extrinsic is not None:
                hash, state, block = extrinsic
                row = (state.value, block, hash)
                db.execute("UPDATE extrinsics SET state = ?, block = ? WHERE hash = ?", row)

    def receipts_since(self, cursor: int | None, limit: int = 1000) -> tuple[int, list[Receipt]]:
        """(new cursor, receipts written after `cursor`, oldest first).

        Cursor 0 begins with the first receipt that is kept; None returns the newest cursor and no receipts.
        """
        if cursor is None:
            return self.rows("SELECT COALESCE(MAX(seq), 0) FROM receipts")[0][0], []
        rows = self.rows("SELECT seq, receipt FROM receipts WHERE seq > ? ORDER BY seq LIMIT ?", (cursor, limit))
        return (rows[-1][0] if rows else cursor), [_receipt(text) for _, text in rows]

    # The newest weights of each place

    def add_standing(self, intents: Iterable[SetWeights]) -> None:
        """Record these as the newest weights of their places, to be set as soon as the chain allows."""
        rows = [(i.signer, i.netuid, i.mecid, i.intent_id) for i in intents]
        with self.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO standing VALUES (?,?,?,?)", rows)

    def remove_standing(self, intent_id: str) -> None:
        """Remove weights from the standing ones: they need not be set any more."""
        with self.transaction() as db:
            db.execute("DELETE FROM standing WHERE intent_id = ?", (intent_id,))

    def remove_standing_at(self, place: tuple[str, int, int]) -> None:
        """Remove the standing weights of this (signer, netuid, mecid)."""
        with self.transaction() as db:
            db.execute("DELETE FROM standing WHERE signer = ? AND netuid = ? AND mecid = ?", place)

    def superseded(self, weights: Iterable[SetWeights]) -> set[str]:
        """The ids of the weights whose place has newer ones, which were set or may still be set."""
        newer = (
            "SELECT 1 FROM intents AS newer JOIN intents AS this USING (signer, netuid, call) "
            "WHERE this.intent_id = ? AND newer.rowid > this.rowid AND json_extract(newer.body, '$.mecid') = ? "
            "AND (newer.fate IS NULL OR newer.fate NOT IN ('failed', 'not_sent')) LIMIT 1"
        )
        return {i.intent_id for i in weights if self.rows(newer, (i.intent_id, i.mecid))}

    def standing(self) -> list[SetWeights]:
        """The newest weights of each place that are to be set, oldest first."""
        rows = self.rows("SELECT body FROM standing JOIN intents USING (intent_id) ORDER BY intents.at, intents.rowid")
        intents = [intent_from_json(json.loads(body)) for (body,) in rows]
        return [intent for intent in intents if isinstance(intent, SetWeights)]

    def prune(self, before: float) -> int:
        """Delete weights that ended before a Unix time, except the last of each place, and all older receipts.

        Other intents are kept forever: an id that paid once must not pay again. Returns the number of deleted intents.
        """
        with self.transaction() as db:
            gone = db.execute(
                "DELETE FROM intents WHERE call = ? AND at < ? "
                "AND fate IN ('included', 'revealed', 'failed', 'not_sent') "
                "AND rowid NOT IN (SELECT MAX(rowid) FROM intents GROUP BY signer, call, netuid, "
                "                  json_extract(body, '$.mecid')) "
                "AND intent_id NOT IN (SELECT intent_id FROM items JOIN extrinsics USING (hash) "
                "                      WHERE state IN ('written', 'pooled')) "
                "AND intent_id NOT IN (SELECT intent_id FROM standing) "
                "AND intent_id NOT IN (SELECT intent_id FROM commits WHERE state = 'pending')",
                (SetWeights.name, before),
            ).rowcount
            db.execute("DELETE FROM items WHERE intent_id NOT IN (SELECT intent_id FROM intents)")
            db.execute("DELETE FROM extrinsics WHERE hash NOT IN (SELECT hash FROM items)")
            db.execute("DELETE FROM commits WHERE state != 'pending' AND at < ?", (before,))
            db.execute("DELETE FROM receipts WHERE at < ?", (before,))
        return gone

    def reopen(self, extrinsic: Extrinsic) -> None:
        """Open an extrinsic and its intents again: its block left the best chain."""
        with self.transaction() as db:
            db.execute("UPDATE extrinsics SET state = 'pooled', block = NULL WHERE hash = ?", (extrinsic.hash,))
            rows = [(intent_id,) for intent_id in extrinsic.intent_ids]
            db.executemany("UPDATE intents SET fate = 'unknown', receipt = NULL WHERE intent_id = ?", rows)

    def receipt(self, intent_id: str) -> Receipt | None:
        """The newest receipt of an intent, None if it has none (yet) or its fate is unknown."""
        rows = self.rows("SELECT receipt FROM intents WHERE intent_id = ?", (intent_id,))
        found = _receipt(rows[0][0]) if rows and rows[0][0] else None
        return None if found is None or found.fate is Fate.UNKNOWN else found

    def known_intent(self, intent_id: str) -> Intent:
        """The intent, which must be in the journal."""
        intent = self.intent(intent_id)
        assert intent is not None, f"intent {intent_id} is not in the journal"
        return intent

    def intent(self, intent_id: str) -> Intent | None:
        rows = self.rows("SELECT body FROM intents WHERE intent_id = ?", (intent_id,))
        return intent_from_json(json.loads(rows[0][0])) if rows else None

    def knows_extrinsic(self, hash: str) -> bool:
        return bool(self.rows("SELECT 1 FROM extrinsics WHERE hash = ?", (hash,)))

    def open_extrinsics(self) -> list[Extrinsic]:
        """Extrinsics without a known fate, by signer and nonce."""
        return self._extrinsics("state IN ('written', 'pooled')")

    def included_after(self, block: int) -> list[Extrinsic]:
        """Extrinsics in blocks later than this one, by signer and nonce."""
        return self._extrinsics("state = 'included' AND block > ?", (block,))

    def _extrinsics(self, where: str, values: Sequence = ()) -> list[Extrinsic]:
        rows = self.rows(f"SELECT {_COLUMNS} FROM extrinsics WHERE {where} ORDER BY signer, nonce", values)
        return [Extrinsic(*row[:7], intent_ids=self._items(row[0]), state=Sent(row[7]), block=row[8]) for row in rows]

    def latest(self, signer: str, call: str) -> list[tuple[Intent, float, Receipt | None]]:
        """The newest intent of a signer and call on each (netuid, mecid): (intent, Unix time, receipt if any)."""
        query = "SELECT body, at, receipt FROM intents WHERE signer = ? AND call = ? ORDER BY at, rowid"
        newest = {}
        for body, at, receipt in self.rows(query, (signer, call)):
            intent = intent_from_json(json.loads(body))
            newest[intent.subnet, vars(intent).get("mecid", 0)] = (intent, at, _receipt(receipt) if receipt else None)
        return list(newest.values())

    def effective_since(self, at: float) -> list[Intent]:
        """Intents recorded since a Unix time that had an effect or may yet have one."""
        query = "SELECT body FROM intents WHERE at >= ? AND (fate IS NULL OR fate IN ('unknown', 'included'))"
        return [intent_from_json(json.loads(body)) for (body,) in self.rows(query, (at,))]

    def count(self, table: str = "extrinsics") -> dict[str, int]:
        """Number of extrinsics by state, or of intents by fate."""
        column = {"extrinsics": "state", "intents": "COALESCE(fate, 'open')"}[table]
        return dict(self.rows(f"SELECT {column}, COUNT(*) FROM {table} GROUP BY 1"))

    def _items(self, hash: str) -> tuple[str, ...]:
        rows = self.rows("SELECT intent_id FROM items WHERE hash = ? ORDER BY place", (hash,))
        return tuple(intent_id for (intent_id,) in rows)


def _plain(receipt: Receipt) -> dict:
    return {name: getattr(receipt, name) for name in Receipt.__dataclass_fields__}


def _receipt(text: str) -> Receipt:
    data = json.loads(text)
    return Receipt(**{**data, "fate": Fate(data["fate"])})
