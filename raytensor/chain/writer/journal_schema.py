"""The tables of a journal, and how a journal of an earlier version gets them.

In: a connection to a SQLite file, new or written by an earlier version. Out: the present tables, and the states of
orders and extrinsics that earlier versions did not record. Knows nothing of what is written later.

    intents.state     state of the order (order_states.State)
    extrinsics.final  1: its block is final
"""

import json
import sqlite3
import time

from raytensor.chain.writer.database import Kind
from raytensor.chain.writer.order_states import restored

SETTLED_S = 86_400.0  # what an earlier version recorded as included so long ago is final
SCHEMA = """
CREATE TABLE IF NOT EXISTS intents (
    intent_id TEXT PRIMARY KEY, call TEXT NOT NULL, signer TEXT NOT NULL, netuid INTEGER, body TEXT NOT NULL,
    fate TEXT, receipt TEXT, at REAL NOT NULL, state TEXT NOT NULL DEFAULT 'queued');
CREATE TABLE IF NOT EXISTS extrinsics (
    hash TEXT PRIMARY KEY, signer TEXT NOT NULL, nonce INTEGER NOT NULL, birth INTEGER NOT NULL, death INTEGER,
    data BLOB NOT NULL, call TEXT NOT NULL, state TEXT NOT NULL, block INTEGER, detail TEXT, at REAL NOT NULL,
    final INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS items (
    hash TEXT NOT NULL, place INTEGER NOT NULL, intent_id TEXT NOT NULL, PRIMARY KEY (hash, place));
CREATE INDEX IF NOT EXISTS items_by_intent ON items (intent_id);
CREATE INDEX IF NOT EXISTS open_intents ON intents (fate) WHERE fate IS NULL OR fate = 'unknown';
CREATE INDEX IF NOT EXISTS intents_by_place ON intents (signer, netuid);
CREATE INDEX IF NOT EXISTS unfinished_extrinsics ON extrinsics (state) WHERE final = 0;
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


def upgrade(db: sqlite3.Connection) -> None:
    """Bring the tables of an earlier version up to date, in one transaction."""
    columns = "SELECT 1 FROM pragma_table_info('intents') WHERE name = ?"
    if not db.execute(columns, ("body",)).fetchone() or db.execute(columns, ("state",)).fetchone():
        return  # new, or up to date
    db.execute("BEGIN IMMEDIATE")
    try:
        if not db.execute(columns, ("state",)).fetchone():  # another process may have done it meanwhile
            _add_states(db)
    except BaseException:  # also an interruption: the old tables stay whole
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _add_states(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE intents ADD COLUMN state TEXT NOT NULL DEFAULT 'queued'")
    db.execute("ALTER TABLE extrinsics ADD COLUMN final INTEGER NOT NULL DEFAULT 0")
    db.execute("DROP INDEX IF EXISTS open_extrinsics")
    old = time.time() - SETTLED_S
    db.execute("UPDATE extrinsics SET final = 1 WHERE state = 'included' AND at < ?", (old,))
    carried = "SELECT DISTINCT intent_id FROM items JOIN extrinsics USING (hash) WHERE state IN ('written', 'pooled')"
    is_open = {intent_id for (intent_id,) in db.execute(carried)}
    moves = []
    for intent_id, fate, receipt in db.execute("SELECT intent_id, fate, receipt FROM intents"):
        error = json.loads(receipt).get("error") if receipt else None
        state = restored(fate, error=error, is_open=intent_id in is_open)
        moves.append((state.value, intent_id))
    db.executemany("UPDATE intents SET state = ? WHERE intent_id = ?", moves)
    recent = "SELECT intent_id FROM items JOIN extrinsics USING (hash) WHERE state = 'included' AND final = 0"
    db.execute(f"UPDATE intents SET state = 'in_block' WHERE fate = 'included' AND intent_id IN ({recent})")


DAMAGED = """\
stop the writer, wait until no extrinsic of its keys can be open (8 to 128 blocks, at most 25 minutes), then start it.
  Lost are receipts and ids (an order with an old --id is carried out again), and the salts of hash commits that are not
  revealed yet: those weights never take effect."""
KIND = Kind("journal", SCHEMA, DAMAGED, timeout_s=30.0, upgrade=upgrade, reserve_bytes=4 << 20)
