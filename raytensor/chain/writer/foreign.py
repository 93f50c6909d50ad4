"""A second program that uses a key of this writer: what its extrinsics mean, and how a person takes a key over.

In: extrinsics of our signers that the journal does not have. Out: whether the key goes on or stops, and why; the
request of `raytensor weights take-over`, which is kept in the journal, where a running writer finds it.

    free calls (addresses, commitments)   reported; the nonce is read again, and weights go on
    weights of a place of ours, money     the key stops until it is taken over
"""

import functools
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from raytensor import disk
from raytensor.chain.calls import Call
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.rpc.runtime import Runtime, extrinsic_hash, signer_of
from raytensor.chain.writer.journal import Journal
from raytensor.errors import BlockUnknown, ChainError, ChainRefused, ChainUnavailable

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
# What the calls that move funds have in their names; a start refuses beside them, not beside a new proxy, for example.
MONEY = ("Balances.", "stake", "register", "swap_", "burn", "recycle", "withdraw")
TAKE_OVER = "take over "  # name of a fact in the journal, before the address


@dataclass(frozen=True, slots=True)
class Foreign:
    """What an extrinsic that this journal does not have does in the name of one of our signers.

    calls  names of the innermost calls, those of batches and proxies one by one; none if they can't be read.
    """

    signer: str
    hash: str
    block: int
    calls: tuple[str, ...] = ()

    @property
    def harmless(self) -> bool:
        return bool(self.calls) and all(call in HARMLESS for call in self.calls)

    @property
    def competes(self) -> bool:
        """Whether it sets weights or moves funds."""
        names = [call for call in self.calls if call not in HARMLESS]
        return any("weights" in name or any(words in name for words in MONEY) for name in names)

    @property
    def sentence(self) -> str:
        what = f" ({', '.join(self.calls)})" if self.calls else ""
        return f"block {self.block} has extrinsic {self.hash}{what} of {self.signer}, which this writer did not send"


def acts(call: Call, signer: str) -> Iterator[tuple[str, str]]:
    """(account, name of the call) of everything that a call does, within batches, proxies and multisigs."""
    if call.name in ("Proxy.proxy", "Proxy.proxy_announced"):
        real = call.args["real"]
        signer = real.get("Id", "") if isinstance(real, dict) else real
    inner = call.inner()
    if not inner:
        yield signer, call.name
    for one in inner:
        yield from acts(one, signer)


def foreign_in(
    data: bytes, block: int, keys: Mapping[bytes, str], runtime: Callable[[], Runtime], knows: Callable[[str], bool]
) -> list[Foreign]:
    """What an extrinsic does in the name of our keys, unless it is known: signed by one, or by a proxy of one.

    runtime  reads the runtime of the block. knows: whether the extrinsic with this hash is ours.
    """
    own = keys.get(signer_of(data) or b"")
    if own is None and not any(key in data for key in keys):
        return []
    hash = extrinsic_hash(data)
    if knows(hash):
        return []
    call = runtime().call_of(data)
    done: dict[str, list[str]] = {} if own is None else {own: []}
    for account, name in acts(call, own or "") if call is not None else ():
        if account in keys.values():
            done.setdefault(account, []).append(name)
    return [Foreign(account, hash, block, tuple(names)) for account, names in done.items()]


def look_back(
    client: ChainClient,
    journal: Journal,
    keys: dict[bytes, str],
    blocks: int,
    *,
    runs: Path | None = None,
    limit_s: float = LOOK_BACK_S,
) -> list[Foreign]:
    """What sets weights or moves funds of our keys in the last blocks and is in no journal, newest first, except from
    before a key was taken over.

    runs     a folder of run folders: what their journals have was sent by jobs that have ended, since their lease is
             this writer's. What this user sent by commands (`disk.home`) is no other program's either.
    limit_s  the look back ends after so many seconds, and at the first block that the node has discarded: a warning
             says how far it came.
    """
    since = taken_over(journal)
    head, found = client.head(), []
    taken = min((since.get(signer, 0) for signer in keys.values()), default=0)
    first, hash = max(1, head.number - blocks + 1, taken + 1), head.hash
    started = reported_at = time.monotonic()
    for number in range(head.number, first - 1, -1):
        now = time.monotonic()
        if now - started > limit_s:
            log.warning("%.0f seconds are over: only blocks %d to %d were looked at", limit_s, number + 1, head.number)
            break
        if now - reported_at > PROGRESS_S:
            reported_at = now
            log.warning("looking for weights of other programs: block %d, down to %d", number, first)
        try:
            block, extrinsics = client.extrinsics(hash)
        except BlockUnknown as error:
            log.warning("only blocks %d to %d were looked at: %s", number + 1, head.number, error)
            break
        hash = block.parent
        runtime = functools.partial(runtime_of, client, block)
        for data in extrinsics:
            for one in foreign_in(data, number, keys, runtime, lambda sent: _is_ours(journal, runs, sent)):
                if number <= since.get(one.signer, 0):
                    continue
                if not one.calls:
                    log.warning("%s; its call can't be read", one.sentence)
                found += [one] if one.competes else []
    return found


def runtime_of(client: ChainClient, block: Head) -> Runtime:
    """The runtime that made a block; the present one where that can't be read any more."""
    try:
        return client.runtime_at(block.parent)
    except ChainError as error:
        if isinstance(error, ChainUnavailable) and not isinstance(error, BlockUnknown):
            raise
        log.warning("block %d is read with the present runtime: %s", block.number, error)
        return client.runtime


def _is_ours(journal: Journal, runs: Path | None, hash: str) -> bool:
    return journal.knows_extrinsic(hash) or _sent_from_here(runs, hash)


def refuse_beside_others(
    client: ChainClient, journal: Journal, keys: dict[bytes, str], blocks: int, runs: Path | None = None
) -> None:
    """Raise ChainRefused "KeyInUse" if another program has set weights or moved funds with a key in the last blocks."""
    found = look_back(client, journal, keys, blocks, runs=runs) if blocks > 0 else []
    if found:
        who = f"--hotkey {found[0].signer} --journal {journal.path}"
        fix = f"fix: stop the program that sent it, then run `raytensor weights take-over {who}` and start again"
        raise ChainRefused(found[0].sentence, name="KeyInUse", action=fix)


def _sent_from_here(runs: Path | None, hash: str) -> bool:
    journals = [*(runs.glob("*/journal.sqlite") if runs is not None else ()), *disk.home().glob("*.db")]
    for path in sorted(journals):
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
            try:
                if db.execute("SELECT 1 FROM extrinsics WHERE hash = ?", (hash,)).fetchone():
                    return True
            finally:
                db.close()
        except sqlite3.Error as error:  # a damaged journal proves nothing
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
