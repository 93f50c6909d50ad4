"""A sealed block and its header.

Header hash = blake2_256(SCALE(parent, Compact<number>, state root, extrinsics root, digest)), as in Substrate.
"""

from typing import Any

from raytensor.devnet.builtin import compact
from raytensor.devnet.hashing import blake2_256


class Block:
    """A sealed block. `extrinsics`: length-prefixed bytes; None if the body is no longer in memory."""

    __slots__ = ("number", "hash", "parent", "state_root", "extrinsics_root", "logs", "extrinsics")

    def __init__(
        self,
        number: int,
        parent: bytes,
        state_root: bytes,
        extrinsics_root: bytes,
        logs: tuple[bytes, ...],
        extrinsics: list[bytes] | None,
    ) -> None:
        self.number, self.parent, self.state_root, self.extrinsics_root = number, parent, state_root, extrinsics_root
        self.logs, self.extrinsics = logs, extrinsics
        digest = compact(len(logs)) + b"".join(logs)
        self.hash = blake2_256(parent + compact(number) + state_root + extrinsics_root + digest)

    def header(self) -> dict[str, Any]:
        """The header in the form of Substrate's JSON-RPC."""
        return {
            "parentHash": f"0x{self.parent.hex()}",
            "number": hex(self.number),
            "stateRoot": f"0x{self.state_root.hex()}",
            "extrinsicsRoot": f"0x{self.extrinsics_root.hex()}",
            "digest": {"logs": [f"0x{log.hex()}" for log in self.logs]},
        }
