"""A part of a chain's state in one file: storage items by name, with plain values.

In: `StateSnapshot`. Out: a file, and back without loss. The first line is a JSON object, the manifest: format, chain
(genesis, spec_version), block (number, hash), netuids, pools_only, left_out, sha256. Each later line is one storage
item: {"item": "SubtensorModule.Weights", "keys": ["u16", "u16"], "default": value or null, "entries": [[[keys],
value], ...]}. Accounts are ss58 addresses, bytes 0x and hexadecimal digits, fixed-point numbers {"bits": integer}.
sha256 is the hash of the manifest without it and of all later lines, so that a damaged or changed file is refused.
Bounds: a file has at most 1 GiB. Knows nothing of connections.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytensor import disk
from raytensor.errors import ConfigError, DataError

FORMAT = "raytensor.state/1"
MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One storage item. keys: kinds of its keys ("u16", "AccountId32"). default: the value of an absent entry, or None.

    entries: (keys, value) of what is stored.
    """

    keys: tuple[str, ...]
    default: Any
    entries: list[tuple[tuple, Any]]


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """Subnets of a chain at one block.

    block, block_hash  the block whose state it is. genesis: of the chain.
    netuids            subnets with all that consensus and emission read; root (0) is among them.
    pools_only         subnets of which only the pool, prices and other single values are there.
    left_out           storage item -> why it was not read.
    items              by "Pallet.Item". digest: sha256 in hexadecimal digits, of the file.
    """

    genesis: str
    spec_version: int
    block: int
    block_hash: str
    netuids: tuple[int, ...]
    pools_only: tuple[int, ...]
    left_out: Mapping[str, str]
    items: Mapping[str, StoredItem]

    @property
    def digest(self) -> str:
        return _digest(self._manifest(), self._lines())

    @property
    def num_entries(self) -> int:
        return sum(len(item.entries) for item in self.items.values())

    def value(self, item: str, *keys: Any) -> Any:
        """A stored value, the item's default, or None where the snapshot has neither."""
        found = self.items.get(item)
        if found is None:
            return None
        return next((value for key, value in found.entries if key == keys), found.default)

    def neurons(self, netuid: int) -> list[str]:
        """The hotkeys of a subnet by uid."""
        keys = self.items["SubtensorModule.Keys"].entries
        return [hotkey for (_, uid), hotkey in sorted(entry for entry in keys if entry[0][0] == netuid)]

    def _manifest(self) -> dict:
        return {
            "format": FORMAT,
            "chain": {"genesis": self.genesis, "spec_version": self.spec_version},
            "block": {"number": self.block, "hash": self.block_hash},
            "netuids": list(self.netuids),
            "pools_only": list(self.pools_only),
            "left_out": dict(self.left_out),
        }

    def _lines(self) -> list[bytes]:
        return [
            _line({"item": name, "keys": item.keys, "default": item.default, "entries": item.entries})
            for name, item in sorted(self.items.items())
        ]


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=_hex).encode() + b"\n"


def _hex(value: Any) -> str:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    raise TypeError(f"{value!r:.80} is no JSON value")


def _digest(manifest: dict, lines: Iterable[bytes]) -> str:
    found = hashlib.sha256(_line(manifest))
    for line in lines:
        found.update(line)
    return found.hexdigest()


def write_state(snapshot: StateSnapshot, path: str | Path) -> None:
    """Write the file; an existing one is replaced. Raises ConfigError where it cannot be written."""
    manifest, lines = snapshot._manifest(), snapshot._lines()
    try:
        disk.write_bytes(Path(path), [_line(manifest | {"sha256": _digest(manifest, lines)}), *lines])
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; name a file in a folder that exists") from error


def read_state(path: str | Path) -> StateSnapshot:
    """Read a file. Raises ConfigError where there is none, DataError for one that is damaged or of another format."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; write one with `raytensor snapshot`") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{path} has more than {MAX_BYTES >> 20} MiB")
    first, *lines = data.splitlines(keepends=True) or [b""]
    try:
        manifest = json.loads(first)
        known = manifest["format"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is no snapshot of a chain's state; write one with `raytensor snapshot`") from None
    if known != FORMAT:
        raise DataError(f"{path} has the format {known!r}; this version reads {FORMAT}")
    stored = manifest.pop("sha256", None)
    if stored != _digest(manifest, lines):
        raise DataError(f"{path} is damaged or changed: its content does not have the sha256 of its first line")
    try:
        return _parse(manifest, [json.loads(line) for line in lines])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: {error!r} in a snapshot with a right sha256") from error


def _parse(manifest: dict, items: list[dict]) -> StateSnapshot:
    return StateSnapshot(
        genesis=manifest["chain"]["genesis"],
        spec_version=manifest["chain"]["spec_version"],
        block=manifest["block"]["number"],
        block_hash=manifest["block"]["hash"],
        netuids=tuple(manifest["netuids"]),
        pools_only=tuple(manifest["pools_only"]),
        left_out=manifest["left_out"],
        items={
            item["item"]: StoredItem(
                tuple(item["keys"]), item["default"], [(tuple(keys), value) for keys, value in item["entries"]]
            )
            for item in items
        },
    )
