"""API keys of the gateway, their quotas, and what was used of them.

In: a file of keys, requests with their tokens, the time. Out: the owner of a key, or why a request is over its quota.
The file holds SHA-256 hashes of keys, never a key; a key has 256 random bits, so its hash can't be searched.
Bounds: one entry per key. Knows nothing of HTTP or miners.
"""

import dataclasses
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raytensor import disk
from raytensor.errors import ConfigError

PREFIX = "rt-"
SPANS_S = {"minute": 60, "day": 86_400}


@dataclass(frozen=True)
class Key:
    """An API key. Quotas: None is without limit; windows are whole minutes and days of UTC."""

    name: str
    sha256: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None


class KeyFile:
    """The keys of a file. `find` reads it again when it changed, so that a removed key is refused at once."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._seen: tuple[int, int] | None = None  # inode and time of the content
        self._keys: dict[str, Key] = {}

    def find(self, key: str) -> Key | None:
        """The entry of a key, None for an unknown one. Raises `ConfigError` for a file that can't be used."""
        self._refresh()
        return self._keys.get(_hash(key))

    @property
    def names(self) -> list[Key]:
        """All entries, by name. Raises `ConfigError` as `find`."""
        self._refresh()
        return sorted(self._keys.values(), key=lambda one: one.name)

    def add(self, name: str, **quotas: int | None) -> str:
        """Store a new key and return it; it can't be read again. Raises `ConfigError` for a name that is taken."""
        known = self.names if self.path.exists() else []
        if any(one.name == name for one in known):
            raise ConfigError(f"{name!r}: a key of that name is in {self.path}; take another name, or remove it first")
        key = PREFIX + secrets.token_urlsafe(32)
        self._write([*known, Key(name, _hash(key), **quotas)])
        return key

    def remove(self, name: str) -> None:
        """Remove a key. Raises `ConfigError` when there is none of that name."""
        left = [one for one in self.names if one.name != name]
        if len(left) == len(self._keys):
            raise ConfigError(f"{name!r}: there is no key of that name in {self.path}")
        self._write(left)

    def _write(self, keys: list[Key]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        rows = [dataclasses.asdict(one) for one in keys]
        disk.write_text(self.path, json.dumps({"keys": rows}, indent=2) + "\n", mode=0o600)

    def _refresh(self) -> None:
        try:
            info = os.stat(self.path)
        except FileNotFoundError:
            raise ConfigError(f"{self.path}: there are no API keys\n  fix: raytensor gateway keys add NAME") from None
        if (now := (info.st_ino, info.st_mtime_ns)) == self._seen:
            return
        if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = f"{stat.S_IMODE(info.st_mode):o}"
            raise ConfigError(f"{self.path}: has mode {mode}, others may use it\n  fix: chmod 600 {self.path}")
        try:
            keys = [Key(**row) for row in json.loads(self.path.read_text())["keys"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.path}: is not a file of API keys ({error})") from None
        self._keys, self._seen = {one.sha256: one for one in keys}, now


class OverQuota(Exception):
    """The request does not fit into a quota of its key; it may after `retry_after_s`, None: never."""

    def __init__(self, message: str, retry_after_s: int | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Usage:
    """Requests and tokens by key's name: of this minute, of this day, in total.

    `reserve` counts the most that a request may use, before it is asked, so that concurrent requests can't pass a quota
    together; `settle` replaces that by what it used.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._used: dict[str, dict[str, list[int]]] = {}  # name -> span -> [number of the window, requests, tokens]
        self._changed = False
        if path.exists():
            self._used = json.loads(path.read_text())

    def reserve(self, key: Key, tokens: int) -> None:
        """Count one request and its tokens. Raises `OverQuota`; then nothing is counted."""
        now_s = self._clock()
        spans = {span: self._window(key.name, span, now_s) for span in SPANS_S}
        for span, (_, requests, used) in spans.items():
            left_s = int(SPANS_S[span] - now_s % SPANS_S[span]) + 1
            most_requests: int | None = getattr(key, f"requests_per_{span}")
            most_tokens: int | None = getattr(key, f"tokens_per_{span}")
            if most_requests is not None and requests >= most_requests:
                raise OverQuota(f"your key {key.name!r} has {most_requests} requests per {span}, all used", left_s)
            if most_tokens is not None and used + tokens > most_tokens:
                what = f"your key {key.name!r} has {most_tokens} tokens per {span}, {max(0, most_tokens - used)} left"
                message = f"{what}; this request may use {tokens} (its prompt and max_tokens)"
                raise OverQuota(message, left_s if tokens <= most_tokens else None)
        for window in [*spans.values(), self._window(key.name, "total", now_s)]:
            window[1] += 1
            window[2] += tokens
        self._changed = True

    def settle(self, key: Key, reserved: int, used: int) -> None:
        """Replace the reserved tokens of a request by those that it used."""
        now_s = self._clock()
        for span in (*SPANS_S, "total"):
            window = self._window(key.name, span, now_s)
            window[2] = max(0, window[2] + used - reserved)
        self._changed = True

    def of(self, name: str) -> dict[str, tuple[int, int]]:
        """(requests, tokens) of a key by "minute", "day" and "total"."""
        now_s = self._clock()
        found = {span: self._window(name, span, now_s) for span in (*SPANS_S, "total")}
        return {span: (requests, tokens) for span, (_, requests, tokens) in found.items()}

    def save(self) -> None:
        """Replace the file, if something changed. After a crash it holds the old or the new numbers, never a part."""
        if self._changed:
            disk.write_text(self._path, json.dumps(self._used, indent=1) + "\n", mode=0o600)
            self._changed = False

    def _window(self, name: str, span: str, now_s: float) -> list[int]:
        """The counts of the present window; those of an earlier one are dropped."""
        number = int(now_s // SPANS_S[span]) if span in SPANS_S else 0
        windows = self._used.setdefault(name, {})
        if span not in windows or windows[span][0] != number:
            windows[span] = [number, 0, 0]
        return windows[span]


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
