"""The committed weights of a writer on disk, with everything that revealing them needs.

In: commits, before they are sent. Out: those that are still pending, also after a restart or a kill. Kept in the
writer's journal (table `commits`): losing it means losing the weights. What happened to a commit is read from the
chain; the book holds what the chain cannot know. A salt is no secret key: it has no value once the weights are
revealed.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from raytensor.chain.weights import Row
from raytensor.chain.writer.journal import Journal

HASH, TIMELOCKED = "hash", "timelocked"


@dataclass(frozen=True, slots=True)
class WeightCommit:
    """A commitment to one row of a validator's weights.

    digest        "0x...": what the chain stores of a hash commit; blake2-256 of the ciphertext of a timelocked one.
    kind          "hash": this writer reveals it with its salt; "timelocked": the chain opens it.
    salt          u16 values of a hash commit.
    reveal_round  beacon round that opens a timelocked commit.
    due           block in which it can be revealed, as estimated when it was made.
    epoch         commit epoch on the chain (SubnetEpochIndex), None until it was seen there.
    """

    digest: str
    kind: str
    intent_id: str
    signer: str
    row: Row
    salt: tuple[int, ...] = ()
    reveal_round: int | None = None
    due: int | None = None
    epoch: int | None = None

    @property
    def place(self) -> tuple[str, int, int]:
        return self.signer, self.row.netuid, self.row.mecid


class CommitBook:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def add(self, commits: Iterable[WeightCommit]) -> None:
        """Record commits, before they are sent."""
        now = time.time()
        rows = [
            (c.digest, c.kind, c.intent_id, c.signer, c.row.netuid, c.row.mecid, _body(c), c.due, c.epoch, now)
            for c in commits
        ]
        with self._journal.transaction() as db:
            db.executemany("INSERT INTO commits VALUES (?,?,?,?,?,?,?,?,?,'pending',?)", rows)

    def pending(self, signer: str | None = None) -> list[WeightCommit]:
        """Commits that have not ended, oldest first."""
        columns = "digest, kind, intent_id, signer, netuid, mecid, body, due, epoch"
        where = "state = 'pending'" + (" AND signer = ?" if signer else "")
        query = f"SELECT {columns} FROM commits WHERE {where} ORDER BY at, rowid"
        return [_commit(*row) for row in self._journal.rows(query, (signer,) if signer else ())]

    def seen(self, commit: WeightCommit, epoch: int) -> WeightCommit:
        """Record the epoch of a commit on the chain."""
        with self._journal.transaction() as db:
            db.execute("UPDATE commits SET epoch = ? WHERE digest = ?", (epoch, commit.digest))
        return replace(commit, epoch=epoch)

    def end(self, digest: str, state: str) -> None:
        """Record how a commit ended: "revealed", "expired", "superseded", "void", "dropped", "lost" or "unsent"."""
        with self._journal.transaction() as db:
            db.execute("UPDATE commits SET state = ? WHERE digest = ?", (state, digest))

    def due(self, intent_id: str) -> int | None:
        """Block in which the newest pending commit of an intent can be revealed, None if there is none."""
        where = "intent_id = ? AND state = 'pending' ORDER BY at DESC, rowid DESC LIMIT 1"
        rows = self._journal.rows(f"SELECT due FROM commits WHERE {where}", (intent_id,))
        return rows[0][0] if rows else None

    def unrevealed_since(self, signer: str) -> dict[tuple[int, int], tuple[float, int]]:
        """(netuid, mecid) -> (Unix time of the first, number) of commits that expired unrevealed since a reveal."""
        found: dict[tuple[int, int], tuple[float, int]] = {}
        query = "SELECT netuid, mecid, state, at FROM commits WHERE signer = ? ORDER BY at, rowid"
        for netuid, mecid, state, at in self._journal.rows(query, (signer,)):
            if state == "revealed":
                found.pop((netuid, mecid), None)
            elif state in ("expired", "dropped", "lost"):
                first, count = found.get((netuid, mecid), (at, 0))
                found[netuid, mecid] = (first, count + 1)
        return found


def _body(commit: WeightCommit) -> str:
    row = {"uids": commit.row.uids, "values": commit.row.values, "version_key": commit.row.version_key}
    return json.dumps({**row, "salt": commit.salt, "reveal_round": commit.reveal_round})


def _commit(digest, kind, intent_id, signer, netuid, mecid, body, due, epoch) -> WeightCommit:
    data = json.loads(body)
    row = Row(netuid, mecid, tuple(data["uids"]), tuple(data["values"]), data["version_key"])
    return WeightCommit(digest, kind, intent_id, signer, row, tuple(data["salt"]), data["reveal_round"], due, epoch)
