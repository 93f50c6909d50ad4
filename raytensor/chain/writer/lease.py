"""Who may write with a key: a lease on disk, with an expiry, for each (chain, key).

In: a folder that all who might write with these keys can see (by default the journal's), and the keys. Out: a lease that
is to be renewed, or a refusal that says who has it, until when, and what to do. Whoever dies without a word keeps its
lease until it expires; one that died on this very machine is found dead, and its lease is free at once.

One SQLite file; clocks of machines that share it may differ by a few seconds, which the length of a lease outweighs.
The chain is the second guard: extrinsics that are not ours stop the writer (outbox.py). Knows nothing of connections.
"""

from __future__ import annotations

import datetime
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raytensor.errors import ChainRefused

LEASE_S = 30.0
FILE = "leases.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    chain TEXT NOT NULL, key TEXT NOT NULL, token TEXT NOT NULL, owner TEXT NOT NULL, host TEXT NOT NULL,
    pid INTEGER NOT NULL, born TEXT NOT NULL, since REAL NOT NULL, renewed REAL NOT NULL, expires REAL NOT NULL,
    PRIMARY KEY (chain, key));
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the lease of a key. born: when its process began, as the machine counts; expires: Unix time."""

    key: str
    token: str
    owner: str
    host: str
    pid: int
    born: str
    since: float
    expires: float

    @property
    def sentence(self) -> str:
        until = datetime.datetime.fromtimestamp(self.expires).astimezone().isoformat(timespec="seconds")
        since = datetime.datetime.fromtimestamp(self.since).astimezone().isoformat(timespec="seconds")
        name = self.host.split("/")[0]
        return (
            f"{self.owner} (process {self.pid} on {name}) writes with {self.key} since {since}, its lease ends {until}"
        )


class Lease:
    """The lease of some keys on one chain, held from the constructor to `release`.

    owner   what people call this writer; the refusal of others names it.
    wait_s  how long to wait for a holder whose lease runs out; 0 refuses at once.
    Raises ChainRefused "KeyInUse" with the holder and the fix.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        chain: str,
        keys: Sequence[str],
        *,
        owner: str = "",
        length_s: float = LEASE_S,
        wait_s: float = 0.0,
    ) -> None:
        self._chain, self._keys, self._length_s = chain, sorted(keys), length_s
        self._token, self._owner = uuid.uuid4().hex, owner or "a chain writer"
        self._valid_until = 0.0
        path = Path(folder).expanduser()
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = path / FILE
        self._db = sqlite3.connect(self._file, timeout=10.0, isolation_level=None, check_same_thread=False)
        self._db.executescript(_SCHEMA)
        deadline = time.monotonic() + wait_s
        while (holder := self._take()) is not None:
            if time.monotonic() >= deadline:
                self._db.close()
                raise ChainRefused(
                    f"{holder.sentence}: two writers with one key fight over its nonces",
                    name="KeyInUse",
                    action=_fix(holder, self._file),
                )
            time.sleep(min(0.2, max(0.01, wait_s / 20)))

    @property
    def valid(self) -> bool:
        """Whether nobody else can have it yet: false once it was not renewed in time."""
        return time.monotonic() < self._valid_until

    def renew(self) -> Holder | None:
        """Makes it last another length. Who has it now, if somebody else has taken it (we were too slow); else None."""
        return self._take()

    def release(self) -> None:
        """Gives it back."""
        self._valid_until = 0.0
        self._db.execute("DELETE FROM leases WHERE token = ?", (self._token,))
        self._db.close()

    def _take(self) -> Holder | None:
        """Takes or renews the lease of every key, or of none: then who has one of them."""
        asked = time.monotonic()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            now = time.time()
            for key in self._keys:
                holder = self._holder(key)
                if holder is not None and holder.token != self._token and holder.expires > now and not _is_dead(holder):
                    return holder
            rows = [
                (
                    self._chain,
                    key,
                    self._token,
                    self._owner,
                    _host(),
                    os.getpid(),
                    _born(os.getpid()) or "",
                    now,
                    now,
                    now + self._length_s,
                )
                for key in self._keys
            ]
            self._db.executemany(
                "INSERT INTO leases VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (chain, key) DO UPDATE SET "
                "token = excluded.token, owner = excluded.owner, host = excluded.host, pid = excluded.pid, "
                "born = excluded.born, since = CASE token WHEN excluded.token THEN since ELSE excluded.since END, "
                "renewed = excluded.renewed, expires = excluded.expires",
                rows,
            )
        self._valid_until = asked + self._length_s
        return None

    def _holder(self, key: str) -> Holder | None:
        row = self._db.execute(
            "SELECT key, token, owner, host, pid, born, since, expires FROM leases WHERE chain = ? AND key = ?",
            (self._chain, key),
        ).fetchone()
        return Holder(*row) if row else None


def holders(folder: str | os.PathLike) -> list[Holder]:
    """Who holds what in a folder, expired leases too."""
    file = Path(folder).expanduser() / FILE
    if not file.exists():
        return []
    db = sqlite3.connect(file, timeout=10.0)
    try:
        rows = db.execute("SELECT key, token, owner, host, pid, born, since, expires FROM leases").fetchall()
    finally:
        db.close()
    return [Holder(*row) for row in rows]


def _fix(holder: Holder, file: Path) -> str:
    where = "on this machine" if holder.host == _host() else f"on {holder.host.split('/')[0]}"
    return f"fix: stop process {holder.pid} {where}, or wait until its lease in {file} ends; then start again"


def _is_dead(holder: Holder) -> bool:
    """Whether the holder ran on this very machine (and in this process namespace) and runs no more."""
    return holder.host == _host() and _born(holder.pid) != (holder.born or None)


def _host() -> str:
    """Name of this machine, of this start of it, and of the namespace in which process numbers mean something."""
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    for read in (lambda: boot.read_text().strip(), lambda: os.readlink("/proc/self/ns/pid")):
        try:
            parts.append(read())
        except OSError:
            parts.append("?")
    return "/".join(parts)


def _born(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, None if there is no such process (or no /proc)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None
