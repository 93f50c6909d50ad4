"""A second program that uses a key of this writer: what its extrinsics mean, and how a person takes a key over.

In: extrinsics of our signers that the journal does not have. Out: whether the key goes on or stops, and why; the
request of `raytensor weights take-over`, which is kept in the journal, where a running writer finds it.

    free calls (addresses, commitments)   reported; the nonce is read again, and weights go on
    weights of a place of ours, money     the key stops until it is taken over
"""

import logging
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.runtime import extrinsic_hash, signer_of
from raytensor.chain.writer.journal import Journal
from raytensor.errors import BlockUnknown, ChainRefused

log = logging.getLogger(__name__)

LOOK_BACK_S = 30.0  # longest look back at a start
PROGRESS_S = 3.0  # between two lines about it

# Calls that take nothing from an account and compete with nothing that a writer keeps.
HARMLESS = {
    "SubtensorModule.serve_axon",
    "SubtensorModule.serve_axon_tls",
    "SubtensorModule.serve_prometheus",
    "SubtensorModule.associate_evm_key",
    "Commitments.set_commitment",
}
TAKE_OVER = "take over "  # name of a fact in the journal, before the address


@dataclass(frozen=True, slots=True)
class Foreign:
    """An extrinsic of one of our signers that this journal does not have. call: "" if it can't be read."""

    signer: str
    hash: str
    block: int
    call: str = ""

    @property
    def harmless(self) -> bool:
        return self.call in HARMLESS

    @property
    def sentence(self) -> str:
        what = f" ({self.call})" if self.call else ""
        return f"block {self.block} has extrinsic {self.hash}{what} of {self.signer}, which this writer did not send"


def look_back(
    client: ChainClient,
    journal: Journal,
    keys: dict[bytes, str],
    blocks: int,
    *,
    runs: Path | None = None,
    limit_s: float = LOOK_BACK_S,
) -> list[Foreign]:
    """The extrinsics with weights of our keys in the last blocks that no journal has, newest first, except those from
    before a key was taken over.

    runs     a folder of run folders: what their journals have was sent by jobs that have ended, since their lease is
             this writer's.
    limit_s  the look back ends after so many seconds, and at the first block that the node has discarded: a warning
             says how far it came.
    """
    since = taken_over(journal)
    head, found = client.head(), []
    taken = min((since.get(signer, 0) for signer in keys.values()), default=0)
    first, hash = max(1, head.number - blocks + 1, taken + 1), head.hash
    started = told = time.monotonic()
    for number in range(head.number, first - 1, -1):
        now = time.monotonic()
        if now - started > limit_s:
            log.warning("%.0f seconds are over: only blocks %d to %d were looked at", limit_s, number + 1, head.number)
            break
        if now - told > PROGRESS_S:
            told = now
            log.warning("looking for weights of other programs: block %d, down to %d", number, first)
        try:
            block, extrinsics = client.extrinsics(hash)
        except BlockUnknown as error:
            log.warning("only blocks %d to %d were looked at: %s", number + 1, head.number, error)
            break
        hash = block.parent
        for data in extrinsics:
            signer = keys.get(signer_of(data) or b"")
            if signer is None or number <= since.get(signer, 0):
                continue
            read, sent = client.runtime.call_of(data), extrinsic_hash(data)
            call = read.name if read is not None else ""
            if "weights" in call and not journal.knows_extrinsic(sent) and not _sent_by_a_run(runs, sent):
                found.append(Foreign(signer, sent, number, call))
    return found


def refuse_beside_others(
    client: ChainClient, journal: Journal, keys: dict[bytes, str], blocks: int, runs: Path | None = None
) -> None:
    """Raise ChainRefused "KeyInUse" if another program has set weights with one of the keys in the last blocks."""
    found = look_back(client, journal, keys, blocks, runs=runs) if blocks > 0 else []
    if found:
        who = f"--hotkey {found[0].signer} --journal {journal.path}"
        fix = f"fix: stop the program that sent it, then run `raytensor weights take-over {who}` and start again"
        raise ChainRefused(found[0].sentence, name="KeyInUse", action=fix)


def _sent_by_a_run(runs: Path | None, hash: str) -> bool:
    for path in sorted(runs.glob("*/journal.sqlite")) if runs is not None else ():
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
            try:
                if db.execute("SELECT 1 FROM extrinsics WHERE hash = ?", (hash,)).fetchone():
                    return True
            finally:
                db.close()
        except sqlite3.Error as error:  # a damaged journal of another run proves nothing
            log.warning("journal %s can't be read: %s", path, error)
    return False


def take_over(journal: Journal, signers: Iterable[str], block: int) -> None:
    """Record that these keys are this writer's alone from a block on: the other program was stopped."""
    with journal.transaction() as db:
        rows = [(TAKE_OVER + signer, str(block)) for signer in signers]
        db.executemany("INSERT OR REPLACE INTO facts VALUES (?,?)", rows)


def taken_over(journal: Journal) -> dict[str, int]:
    """signer -> block at which it was last taken over."""
    rows = journal.rows("SELECT name, value FROM facts WHERE name LIKE ?", (f"{TAKE_OVER}%",))
    return {name.removeprefix(TAKE_OVER): int(value) for name, value in rows}
