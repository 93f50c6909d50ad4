"""A block's header as JSON-RPC gives it: number, hash, parent.

In: the header as JSON. Out: a `Head`. Pure.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from raytensor.chain.rpc.codec import encode_compact


@dataclass(frozen=True, slots=True)
class Head:
    """A block: its number, hash and parent's hash."""

    number: int
    hash: str
    parent: str


def header_hash(header: dict[str, Any]) -> str:
    """Hash of a JSON-RPC header: blake2-256 of its SCALE encoding, as on all chains with BlakeTwo256."""
    parts = [bytes.fromhex(header[name][2:]) for name in ("parentHash", "stateRoot", "extrinsicsRoot")]
    logs = [bytes.fromhex(log[2:]) for log in header["digest"]["logs"]]
    parts.insert(1, encode_compact(int(header["number"], 16)))
    data = b"".join([*parts, encode_compact(len(logs)), *logs])
    return "0x" + hashlib.blake2b(data, digest_size=32).hexdigest()


def head_of(header: dict[str, Any]) -> Head:
    """The head of a JSON-RPC header. Raises TypeError, KeyError or ValueError for anything else."""
    return Head(int(header["number"], 16), header_hash(header), header["parentHash"])
