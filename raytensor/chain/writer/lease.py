"""Ensures that one process writes with a key: a lease on disk, with an expiry, for each (chain, key).

In: a folder that all possible writers with these keys can access (by default the journal's), and the keys. Out: a lease
that must be renewed, or a refusal that names the holder, the expiry and the fix. The lease of a writer that crashed
ends when it expires; if it ran on this machine, its end is detected and the lease is free at once.

One SQLite file. Processes of one machine compare the time since its start, which no set clock changes and which counts
suspended time. The clocks of machines that share the file may differ by a few seconds, much less than a lease's length.
As a second guard, foreign extrinsics on the chain stop the writer (outbox.py). Knows nothing of connections.
"""

import datetime
import os
import socket
import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from raytensor.chain.writer.database import Kind, open_database, transaction
from raytensor.chain.writer.reserve import keep_reserve
from raytensor.clock import boot_id, since_boot
from raytensor.errors import ChainRefused

LEASE_S = 30.0
FILE = "leases.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    chain TEXT NOT NULL, key TEXT NOT NULL, token TEXT NOT NULL, owner TEXT NOT NULL, host TEXT NOT NULL,
    pid INTEGER NOT NULL, born TEXT NOT NULL, since REAL NOT NULL, renewed REAL NOT NULL, expires REAL NOT NULL,
    PRIMARY KEY (chain, key));
CREATE TABLE IF NOT EXISTS uptimes (token TEXT PRIMARY KEY, boot TEXT NOT NULL, expires REAL NOT NULL);
"""
_SELECT = """\
SELECT key, token, owner, host, pid, born, since, leases.expires, boot, uptimes.expires
FROM leases LEFT JOIN uptimes USING (token)"""
_DAMAGED = "stop every writer of the keys whose lease lies here, then start one; only the leases are lost"
_KIND = Kind("file of leases", _SCHEMA, _DAMAGED, timeout_s=10.0, reserve_bytes=256 << 10)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the lease of a key. born: start of its process in clock ticks since boot; since, expires: Unix time.

    boot, uptime_s  the machine's start, and the end of the lease in seconds since then; None where it was not recorded.
    """

    key: str
    token: str
    owner: str
    host: str
    pid: int
    born: str
    since: float
    expires: float
    boot: str | None = None
    uptime_s: float | None = None

    @property
    def has_expired(self) -> bool:
        """By the time since the start of this machine, or by the clock if another machine (or start) wrote it."""
        if self.uptime_s is not None and self.boot == boot_id() != "?":
            return self.uptime_s <= since_boot()
        return self.expires <= time.time()

    @property
    def sentence(self) -> str:
        where = f"process {self.pid} on {self.host.split('/')[0]}"
        times = f"since {_iso(self.since)}, its lease ends {_iso(self.expires)}"
        return f"{self.owner} ({where}) writes with {self.key} {times}"


class Lease:
    """The lease of some keys on one chain, held from the constructor to `release`.

    owner   name of this writer in the refusals that others get.
    wait_s  how long to wait for the lease of another writer to end; 0 refuses at once.
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
        self._file = path / FILE
        self._db = open_database(self._file, _KIND)
        deadline = time.monotonic() + wait_s
        while (holder := self._acquire()) is not None:
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
        """Whether no other writer can have it: false once it was not renewed in time."""
        return since_boot() < self._valid_until

    def renew(self) -> Holder | None:
        """Extend the lease. Returns the new holder if another writer has taken it after it expired, else None."""
        holder = self._acquire()
        if holder is None:
            keep_reserve(self._db, self._file, _KIND.reserve_bytes)
        return holder

    def release(self) -> None:
        """Delete the lease, so that another writer can start at once."""
        self._valid_until = 0.0
        self._db.execute("DELETE FROM leases WHERE token = ?", (self._token,))
        self._db.close()

    def _acquire(self) -> Holder | None:
        """Acquire or renew the leases of all keys. If another writer has one, acquire none and return its holder."""
        asked = since_boot()
        with transaction(self._db, self._file, _KIND):
            now = time.time()
            for key in self._keys:
                holder = self._holder(key)
                if (
                    holder is not None
                    and holder.token != self._token
                    and not holder.has_expired
                    and not _is_dead(holder)
                ):
                    return holder
            process = self._token, self._owner, _host(), os.getpid(), _born(os.getpid()) or ""
            rows = [(self._chain, key, *process, now, now, now + self._length_s) for key in self._keys]
            self._db.executemany(
                "INSERT INTO leases VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (chain, key) DO UPDATE SET "
                "token = excluded.token, owner = excluded.owner, host = excluded.host, pid = excluded.pid, "
                "born = excluded.born, since = CASE token WHEN excluded.token THEN since ELSE excluded.since END, "
                "renewed = excluded.renewed, expires = excluded.expires",
                rows,
            )
            uptime = self._token, boot_id(), asked + self._length_s
            self._db.execute("INSERT OR REPLACE INTO uptimes VALUES (?,?,?)", uptime)
            self._db.execute("DELETE FROM uptimes WHERE token NOT IN (SELECT token FROM leases)")
        self._valid_until = asked + self._length_s
        return None

    def _holder(self, key: str) -> Holder | None:
        row = self._db.execute(f"{_SELECT} WHERE chain = ? AND key = ?", (self._chain, key)).fetchone()
        return Holder(*row) if row else None


def holders(folder: str | os.PathLike) -> list[Holder]:
    """The holders of all leases in a folder, including expired ones."""
    file = Path(folder).expanduser() / FILE
    if not file.exists():
        return []
    with closing(open_database(file, _KIND)) as db:
        rows = db.execute(_SELECT).fetchall()
    return [Holder(*row) for row in rows]


def _iso(unix_time: float) -> str:
    return datetime.datetime.fromtimestamp(unix_time).astimezone().isoformat(timespec="seconds")


def _fix(holder: Holder, file: Path) -> str:
    where = "on this machine" if holder.host == _host() else f"on {holder.host.split('/')[0]}"
    return f"fix: stop process {holder.pid} {where}, or wait until its lease in {file} ends; then start again"


def _is_dead(holder: Holder) -> bool:
    """Whether the holder ran on this machine and in this process namespace, and has ended."""
    return holder.host == _host() and _born(holder.pid) != (holder.born or None)


def _host() -> str:
    """Host name, boot id and process namespace, by which a process id is unique."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = "?"
    return "/".join((socket.gethostname(), boot_id(), namespace))


def _born(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, None if there is no such process (or no /proc)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None
