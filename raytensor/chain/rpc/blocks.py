"""Blocks of a chain by JSON-RPC alone: heads, headers, bodies. What needs no metadata.

In: a connection. Out: `Head`s, hashes, extrinsics as bytes.
Waits for: the node, at most the time-out of the connection per request. An answer that is not what it should be leaves
the endpoint. Bounds: not thread-safe. Knows nothing of runtimes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from raytensor.chain.rpc.connection import Connection, RpcError
from raytensor.chain.rpc.head import Head, head_of
from raytensor.chain.rpc.identity import ChainIdentity
from raytensor.chain.rpc.runtime import extrinsic_hash
from raytensor.errors import BlockUnknown, ChainUnavailable

# Phrases of a node's answer for a block, or the state of a block, that it does not have (client errors 4003).
_NO_BLOCK = ("UnknownBlock", "State already discarded", "Header was not found")


class Blocks:
    """The blocks of one chain. A context manager: the connection ends with it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def endpoint(self) -> str:
        return self._connection.endpoint

    @property
    def genesis(self) -> str:
        """Hash of block 0."""
        return self._connection.genesis

    def pin(self) -> ChainIdentity:
        """Record the newest final block, so that endpoints of another chain with the same block 0 are refused, too."""
        final = self.finalized()
        identity = ChainIdentity(self.genesis, final.number, final.hash)
        self._connection.pin(identity)
        return identity

    def pin_to(self, identity: ChainIdentity) -> None:
        """Use only endpoints of a chain that was recorded earlier. Raises ChainUnavailable if none serves it."""
        self._connection.pin(identity, examine=True)
        self.head()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def rpc(self, method: str, params: Sequence[Any] = (), *, timeout_s: float | None = None) -> Any:
        """Any JSON-RPC method. Raises RpcError, ChainUnavailable, FateUnknown (see connection.py), BlockUnknown."""
        try:
            return self._connection.rpc(method, params, timeout_s=timeout_s)
        except RpcError as error:
            if any(words in str(error) for words in _NO_BLOCK):
                raise BlockUnknown(f"{self.endpoint}: {error}") from error
            raise

    def head(self) -> Head:
        """The best block."""
        with self._parsing("chain_getHeader"):
            head = head_of(self.rpc("chain_getHeader"))
        self._connection.saw(head.number)
        return head

    @property
    def block_age_s(self) -> float:
        """Seconds since a new block was seen."""
        return self._connection.block_age_s

    def finalized(self) -> Head:
        """The newest final block."""
        return self.header(self.rpc("chain_getFinalizedHead"))

    def header(self, block_hash: str) -> Head:
        """Raises BlockUnknown for a block that the node does not know."""
        header = self.rpc("chain_getHeader", [block_hash])
        if header is None:
            raise BlockUnknown(f"{self.endpoint} does not know block {block_hash}")
        with self._parsing("chain_getHeader"):
            return Head(int(header["number"], 16), block_hash, header["parentHash"])

    def block_hash(self, number: int) -> str:
        """Hash of the block with this number on the best chain. Raises BlockUnknown if there is none (yet)."""
        found = self.find_block_hash(number)
        if found is None:
            raise BlockUnknown(f"{self.endpoint} has no block {number} (yet)")
        return found

    def find_block_hash(self, number: int) -> str | None:
        """Hash of the block with this number on the best chain, None if there is none (yet)."""
        return self.rpc("chain_getBlockHash", [number])

    def block(self, block_hash: str) -> tuple[Head, list[str]]:
        """A block and the hashes of its extrinsics, in order. Raises BlockUnknown for a block that is not known."""
        head, extrinsics = self.extrinsics(block_hash)
        return head, [extrinsic_hash(data) for data in extrinsics]

    def extrinsics(self, block_hash: str) -> tuple[Head, list[bytes]]:
        """A block and the bytes of its extrinsics, in order. Raises BlockUnknown for a block that is not known."""
        found = self.rpc("chain_getBlock", [block_hash])
        if found is None:
            raise BlockUnknown(f"{self.endpoint} does not know block {block_hash}")
        with self._parsing("chain_getBlock"):
            header, extrinsics = found["block"]["header"], found["block"]["extrinsics"]
            head = Head(int(header["number"], 16), block_hash, header["parentHash"])
            return head, [bytes.fromhex(x[2:]) for x in extrinsics]

    def wait_for_block(self, number: int, timeout_s: float, poll_s: float = 0.1) -> Head:
        """The head, once it is at or past `number`. Raises ChainUnavailable at the time-out."""
        deadline = time.monotonic() + timeout_s
        while (head := self.head()).number < number:
            if time.monotonic() > deadline:
                where = f"{self.endpoint} is at {head.number}"
                raise ChainUnavailable(f"waited {timeout_s:.1f} s for block {number}; {where}")
            time.sleep(poll_s)
        return head

    @contextmanager
    def _parsing(self, method: str) -> Iterator[None]:
        """An answer that is not what it should be is the endpoint's fault: raises ChainUnavailable and leaves it."""
        try:
            yield
        except (TypeError, KeyError, ValueError, IndexError, AttributeError) as error:
            raise self._connection.malformed(method, error) from error
