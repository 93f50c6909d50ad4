"""The journal of a writer: intents, extrinsics and receipts in a SQLite file (WAL) that survives the process.

In: an intent before it is planned, an extrinsic with its signed bytes before it is sent, a fate as soon as the chain
shows it. Out: the same after a restart: a writer finds here what it may have sent, and looks it up on the chain before
it sends more. A state of an order changes in `move` and `settle` only, by the table in order_states.py, in one
transaction with the extrinsic and the receipts that change it.

    intents     one row per intent, with the state of its order, its fate and newest receipt
    extrinsics  one row per signed extrinsic: hash, signer, nonce, first and last block of its era, bytes, state
    items       the intents of an extrinsic, in the order of its items
    receipts    every receipt, in order: what `receipts_since` reads
    standing    the newest weights of each (signer, netuid, mecid) that are set as soon as the chain allows
    commits     committed weights, with what revealing them needs (commit_book.py)

Several threads may use one journal. Knows nothing of the chain; holds no key, and no signature outside the bytes of
extrinsics.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from raytensor.chain.calls import Intent
from raytensor.chain.intents import SetWeights, intent_from_json
from raytensor.chain.writer.database import open_database, transaction
from raytensor.chain.writer.extrinsic_table import OPEN, Extrinsic, Sent
from raytensor.chain.writer.journal_schema import KIND
from raytensor.chain.writer.order_states import EVENT_OF, UNUSED, Event, State, move
from raytensor.chain.writer.reserve import keep_reserve
from raytensor.types import Fate, Receipt

_COLUMNS = "hash, signer, nonce, birth, death, data, call, state, block"  # of an extrinsic, without the time
_OPEN = ", ".join(f"'{state.value}'" for state in OPEN)


class Journal:
    """One writer's journal. Each method is one transaction that is on disk when it returns.

    genesis  hash of block 0 of the chain. Raises ValueError for a journal of another chain, DataError if it is damaged.
    """

    def __init__(self, path: str | os.PathLike, genesis: str | None = None) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.RLock()
        self._db = open_database(self.path, KIND)
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
            with transaction(self._db, self.path, KIND):
                yield self._db

    def keep_reserve(self) -> bool:
        """Keep the space for writing while the disk is full. False if the disk has none for it."""
        with self._lock:
            return keep_reserve(self._db, self.path, KIND.reserve_bytes)

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
        """Record a signed extrinsic and its items, before it is sent: its orders are open from now on."""
        x = extrinsic
        row = x.hash, x.signer, x.nonce, x.birth, x.death, x.data, x.call_json, x.state.value, x.block
        with self.transaction() as db:
            db.execute(f"INSERT INTO extrinsics ({_COLUMNS}, at) VALUES (?,?,?,?,?,?,?,?,?,?)", (*row, time.time()))
            rows = [(x.hash, place, intent_id) for place, intent_id in enumerate(x.intent_ids)]
            db.executemany("INSERT INTO items VALUES (?,?,?)", rows)
            self.move(x.intent_ids, Event.SIGNED)

    def mark(self, hash: str, state: Sent, *, block: int | None = None, detail: str | None = None) -> None:
        """Record the state of an extrinsic."""
        with self.transaction() as db:
            changed = db.execute(
                "UPDATE extrinsics SET state = ?, block = COALESCE(?, block), detail = COALESCE(?, detail) "
                "WHERE hash = ?",
                (state.value, block, detail, hash),
            ).rowcount
        assert changed == 1, f"extrinsic {hash} is not in the journal"

    def state(self, intent_id: str) -> State | None:
        """The state of an order, None if the journal does not have it."""
        rows = self.rows("SELECT state FROM intents WHERE intent_id = ?", (intent_id,))
        return State(rows[0][0]) if rows else None

    def move(self, intent_ids: Iterable[str], event: Event) -> None:
        """Record an event of orders."""
        with self.transaction() as db:
            for intent_id in intent_ids:
                if (state := self.state(intent_id)) is not None and (new := move(state, event)) is not state:
                    db.execute("UPDATE intents SET state = ? WHERE intent_id = ?", (new.value, intent_id))

    def settle(
        self,
        receipts: Sequence[Receipt],
        extrinsic: tuple[str, Sent, int | None] | None = None,
        *,
        events: Mapping[str, Event] | None = None,
    ) -> list[Receipt]:
        """Record receipts and, in the same transaction, the state (hash, state, block) of their extrinsic.

        events  what the receipts mean for their orders, where it is not what `order_states.EVENT_OF` says.

        Returns the receipts that were recorded. One that would change an order that has ended is not. UNKNOWN never
        replaces a known fate: it comes from a caller whose deadline passed meanwhile.
        """
        now, recorded = time.time(), []
        with self.transaction() as db:
            for receipt in receipts:
                event = (events or {}).get(receipt.intent_id) or _event_of(receipt)
                state = self.state(receipt.intent_id)
                if state is not None:
                    new = move(state, event)
                    ended = state.terminal and new is state and not self._same_end(receipt)
                    if ended or (receipt.fate is Fate.HELD and state in (State.UNSENT, State.IN_BLOCK)):
                        continue
                    if new is not state:
                        row = (new.value, receipt.intent_id)
                        db.execute("UPDATE intents SET state = ? WHERE intent_id = ?", row)
                text = json.dumps(_plain(receipt))
                db.execute(
                    "UPDATE intents SET fate = ?1, receipt = ?2 WHERE intent_id = ?3 "
                    "AND (?1 != 'unknown' OR fate IS NULL OR fate IN ('unknown', 'held', 'not_sent'))",
                    (receipt.fate.value, text, receipt.intent_id),
                )
                db.execute(
                    "INSERT INTO receipts (intent_id, receipt, at) VALUES (?,?,?)", (receipt.intent_id, text, now)
                )
                recorded.append(receipt)
            if extrinsic is not None:
                hash, sent, block = extrinsic
                row = (sent.value, block, hash)
                db.execute("UPDATE extrinsics SET state = ?, block = ?, final = 0 WHERE hash = ?", row)
        return recorded

    def _same_end(self, receipt: Receipt) -> bool:
        """Whether an order that has ended ended with this fate: its block may be another one after a fork."""
        rows = self.rows("SELECT fate FROM intents WHERE intent_id = ?", (receipt.intent_id,))
        return rows[0][0] == receipt.fate.value and receipt.fate.done

    def finalize(self, extrinsics: Iterable[Extrinsic]) -> None:
        """The blocks of these extrinsics are final: what took effect in them is done."""
        with self.transaction() as db:
            for extrinsic in extrinsics:
                db.execute("UPDATE extrinsics SET final = 1 WHERE hash = ?", (extrinsic.hash,))
                done = "SELECT intent_id FROM intents WHERE fate = 'included' AND state = 'in_block' AND intent_id = ?"
                self.move([i for i in extrinsic.intent_ids if self.rows(done, (i,))], Event.FINAL)

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
                f"                     WHERE extrinsics.state IN ({_OPEN}) "
                "                      OR extrinsics.state = 'included' AND final = 0) "
                "AND intent_id NOT IN (SELECT intent_id FROM standing) "
                "AND intent_id NOT IN (SELECT intent_id FROM commits WHERE state = 'pending')",
                (SetWeights.name, before),
            ).rowcount
            db.execute("DELETE FROM items WHERE intent_id NOT IN (SELECT intent_id FROM intents)")
            db.execute("DELETE FROM extrinsics WHERE hash NOT IN (SELECT hash FROM items)")
            db.execute("DELETE FROM commits WHERE state != 'pending' AND at < ?", (before,))
            db.execute("DELETE FROM receipts WHERE at < ?", (before,))
        return gone

    def reopen(self, extrinsic: Extrinsic, intent_ids: Sequence[str] | None = None) -> None:
        """Open an extrinsic and its intents again, or those of its intents: its block left the best chain."""
        intent_ids = extrinsic.intent_ids if intent_ids is None else intent_ids
        with self.transaction() as db:
            db.execute(
                "UPDATE extrinsics SET state = 'pooled', block = NULL, final = 0 WHERE hash = ?", (extrinsic.hash,)
            )
            self.move(intent_ids, Event.LOST_BLOCK)
            rows = [(intent_id,) for intent_id in intent_ids]
            lost = "UPDATE intents SET fate = 'unknown', receipt = NULL WHERE intent_id = ? AND state = 'open'"
            db.executemany(lost, rows)

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

    def ended_receipt(self, intent_id: str) -> Receipt | None:
        """The receipt of an order that is not queued and not in flight."""
        ended = self.state(intent_id) not in (None, State.QUEUED, State.OPEN)
        return self.receipt(intent_id) if ended else None

    def is_settled(self, extrinsic: Extrinsic) -> bool:
        """Whether every item of an extrinsic in a block has the receipt that the block decided."""
        return not any(self._awaits_final(intent_id) for intent_id in extrinsic.intent_ids)

    def _awaits_final(self, intent_id: str) -> bool:
        rows = self.rows("SELECT state, fate FROM intents WHERE intent_id = ?", (intent_id,))
        return bool(rows) and (rows[0][0] == "open" or rows[0][0] == "in_block" and rows[0][1] != "included")

    def knows_extrinsic(self, hash: str) -> bool:
        return bool(self.rows("SELECT 1 FROM extrinsics WHERE hash = ?", (hash,)))

    def open_extrinsics(self) -> list[Extrinsic]:
        """Extrinsics without a known fate, by signer and nonce."""
        return self._extrinsics(f"final = 0 AND state IN ({_OPEN})")

    def in_block(self) -> list[Extrinsic]:
        """Extrinsics in blocks that were not final when the journal was last written, by signer and nonce."""
        return self._extrinsics("final = 0 AND state = 'included'")

    def _extrinsics(self, where: str, values: Sequence = ()) -> list[Extrinsic]:
        query = f"SELECT {_COLUMNS}, detail FROM extrinsics WHERE {where} ORDER BY signer, nonce"
        found = []
        for *row, state, block, detail in self.rows(query, values):
            sent = Sent(state)
            refusal = (detail or "") if sent is Sent.DOUBTED else ""
            found.append(Extrinsic(*row, intent_ids=self._items(row[0]), state=sent, block=block, refusal=refusal))
        return found

    def latest(self, signer: str, call: str) -> list[tuple[Intent, float, Receipt | None]]:
        """The newest intent of a signer and call on each (netuid, mecid): (intent, Unix time, receipt if any)."""
        query = "SELECT body, at, receipt FROM intents WHERE signer = ? AND call = ? ORDER BY at, rowid"
        newest = {}
        for body, at, receipt in self.rows(query, (signer, call)):
            intent = intent_from_json(json.loads(body))
            newest[intent.subnet, vars(intent).get("mecid", 0)] = (intent, at, _receipt(receipt) if receipt else None)
        return list(newest.values())

    def effective_since(self, at: float, block: int | None = None) -> list[Intent]:
        """Intents recorded since a Unix time, or signed since a block, that had an effect or may yet have one."""
        signed = "SELECT intent_id FROM items JOIN extrinsics USING (hash) WHERE birth >= ?"
        span = f"(at >= ? OR intent_id IN ({signed}))"
        query = f"SELECT body FROM intents WHERE {span} AND (fate IS NULL OR fate IN ('unknown', 'included'))"
        return [intent_from_json(json.loads(body)) for (body,) in self.rows(query, (at, block))]

    def count(self, table: str = "extrinsics") -> dict[str, int]:
        """Number of extrinsics by state, or of intents by fate."""
        column = {"extrinsics": "state", "intents": "COALESCE(fate, 'open')"}[table]
        return dict(self.rows(f"SELECT {column}, COUNT(*) FROM {table} GROUP BY 1"))

    def _items(self, hash: str) -> tuple[str, ...]:
        rows = self.rows("SELECT intent_id FROM items WHERE hash = ? ORDER BY place", (hash,))
        return tuple(intent_id for (intent_id,) in rows)


def _event_of(receipt: Receipt) -> Event:
    unused = receipt.fate is Fate.FAILED and receipt.error in UNUSED
    return Event.ENDED if unused else EVENT_OF[receipt.fate]


def _plain(receipt: Receipt) -> dict:
    return {name: getattr(receipt, name) for name in Receipt.__dataclass_fields__}


def _receipt(text: str) -> Receipt:
    data = json.loads(text)
    return Receipt(**{**data, "fate": Fate(data["fate"])})
