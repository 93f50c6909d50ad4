"""The chain client: reads of a chain and single submissions over one connection.

In: endpoints. Out: heads, storage values, constants, runtime API results, events, fees; for signed bytes, the node's
answer. Works with any Substrate endpoint whose runtime has the names that are asked for, the embedded chain included.
Waits for: the node, at most `timeout_s` per request. A submission is sent at most once, see `submit`.
Bounds: not thread-safe and not picklable; use one per process or actor. Knows nothing of intents, journals or Ray.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from raytensor.chain.calls import Call, Cost
from raytensor.chain.errors import PoolRefusal, pool_refusal
from raytensor.chain.rpc.blocks import Blocks
from raytensor.chain.rpc.connection import Connection, RpcError
from raytensor.chain.rpc.events import Event
from raytensor.chain.rpc.head import Head, head_of
from raytensor.chain.rpc.identity import ChainIdentity
from raytensor.chain.rpc.runtime import Era, Runtime, Signed, Storage
from raytensor.chain.rpc.scale_reader import ScaleReader
from raytensor.chain.rpc.versions import BlockEvents, decode_events, runtime_at
from raytensor.chain.wallet import Signer
from raytensor.errors import BlockUnknown, ChainError, ChainRefused, ChainUnavailable

KEYS_PER_PAGE = 1000  # the limit of nodes for one state_getKeysPaged
KEYS_PER_READ = 20_000  # keeps a request below the 15 MB limit of nodes


class ChainClient(Blocks):
    """One connection to a chain; `timeout_s` bounds each request.

    runtime   of another client of the same chain, to avoid reading the metadata again.
    identity  the chain that every endpoint must serve; None takes that of the first one that answers.

    Raises ConfigError for unusable endpoints and ChainUnavailable if none answers.
    """

    def __init__(
        self,
        endpoints: Sequence[str] | str,
        timeout_s: float = 20.0,
        *,
        runtime: Runtime | None = None,
        identity: ChainIdentity | None = None,
    ) -> None:
        super().__init__(Connection(endpoints, timeout_s, identity=identity))
        self._runtime = self._current_runtime(runtime)

    @property
    def runtime(self) -> Runtime:
        return self._runtime

    @property
    def spec_version(self) -> int:
        return self._runtime.spec_version

    def next_head(self, timeout_s: float) -> Head | None:
        """The newest best block that the endpoint has pushed since the last call, None if none came in time.

        Only the first call costs requests: it subscribes to heads and to the version of the runtime. After an upgrade
        the new runtime is read before the head is returned. Raises ChainUnavailable when the connection is dead.
        """
        header = self._connection.next_header(timeout_s)
        if self._connection.spec_version not in (None, self._runtime.spec_version):
            self.refresh_runtime()
        with self._parsing("chain_subscribeNewHeads"):
            return None if header is None else head_of(header)

    def block_events(self, block_hash: str, parent: str | None = None) -> BlockEvents:
        """The events of a block, decoded by the runtime that made it, as far as they can be decoded.

        parent  hash of its parent, which is read if it is not given.

        Raises BlockUnknown if the node does not have the block or its state.
        """
        parent = parent or self.header(block_hash).parent
        key = self._runtime.key(self._runtime.storage("System", "Events"))
        raw = self._read([key], block_hash)[0]
        try:
            try:
                runtime = self.runtime_at(parent)
            except BlockUnknown:  # the state of the parent is discarded already, and that of the block is not
                runtime = self.runtime_at(block_hash)
        except ChainUnavailable:
            raise
        except ChainError as error:
            return BlockEvents((), self._runtime, str(error))
        return decode_events(runtime, raw)

    def events(self, block_hash: str, parent: str | None = None) -> list[tuple[int | None, Event]]:
        """(index of the extrinsic or None, event) of a block, in order. Raises ChainError if one can't be decoded."""
        found = self.block_events(block_hash, parent)
        if found.unreadable:
            raise ChainError(f"the events of block {block_hash} can't be decoded: {found.unreadable}")
        return list(found.events)

    def runtime_at(self, block_hash: str) -> Runtime:
        """The runtime by the state of a block, in which the next block is made."""
        with self._parsing("state_getRuntimeVersion"):
            return runtime_at(self.rpc, lambda: self.genesis, block_hash, self._runtime)

    # State

    def query(self, pallet: str, name: str, params: Sequence[Any] = (), block_hash: str | None = None) -> Any:
        """A storage value; None for an absent one without a default."""
        return self.query_many([(pallet, name, params)], block_hash)[0]

    def query_many(self, items: Sequence[tuple[str, str, Sequence[Any]]], block_hash: str | None = None) -> list[Any]:
        """Storage values of (pallet, name, params), all at one block, in one request."""
        storages = [self._runtime.storage(pallet, name) for pallet, name, _ in items]
        for storage, (_, _, params) in zip(storages, items):
            if len(params) != len(storage.keys):
                raise ValueError(f"{storage.pallet}.{storage.name} takes {len(storage.keys)} keys, got {len(params)}")
        keys = [self._runtime.key(storage, params) for storage, (_, _, params) in zip(storages, items)]
        raws = self._read(keys, block_hash)
        return [self._runtime.value(storage, raw) for storage, raw in zip(storages, raws)]

    def query_raw(self, keys: Sequence[bytes], block_hash: str | None = None) -> list[bytes | None]:
        """Undecoded values of storage keys at one block, in one request."""
        return self._read(keys, block_hash)

    def query_map(
        self, pallet: str, name: str, params: Sequence[Any] = (), block_hash: str | None = None
    ) -> dict[Any, Any]:
        """All entries of a map whose keys begin with `params`: {key or tuple of keys: value}, at one block."""
        storage = self._runtime.storage(pallet, name)
        found = {}
        for key, raw in self.query_map_raw(storage, params, block_hash):
            rest = self._runtime.key_params(storage, key, len(params))
            found[rest[0] if len(rest) == 1 else rest] = self._runtime.value(storage, raw)
        return found

    def query_map_raw(
        self, storage: Storage, params: Sequence[Any] = (), block_hash: str | None = None
    ) -> Iterator[tuple[bytes, bytes | None]]:
        """(key, undecoded value) of all entries of a map, two requests per 1000 entries."""
        block_hash = block_hash or self.head().hash
        prefix = "0x" + self._runtime.key(storage, params).hex()
        start = prefix
        while True:
            page = self.rpc("state_getKeysPaged", [prefix, KEYS_PER_PAGE, start, block_hash])
            with self._parsing("state_getKeysPaged"):
                keys = [bytes.fromhex(key[2:]) for key in page]
            if keys:
                yield from zip(keys, self._read(keys, block_hash))
            if len(keys) < KEYS_PER_PAGE:
                return
            start = page[-1]

    def constant(self, pallet: str, name: str) -> Any:
        return self._runtime.constant(pallet, name)

    def runtime_call(self, method: str, data: bytes = b"", block_hash: str | None = None) -> bytes:
        """The undecoded result of a runtime API method, "Trait_method", for SCALE-encoded arguments."""
        params = [method, "0x" + data.hex()] + ([block_hash] if block_hash else [])
        with self._parsing("state_call"):
            return bytes.fromhex(self.rpc("state_call", params)[2:])

    def balance(self, address: str, block_hash: str | None = None) -> int:
        """Free balance in rao."""
        account = self.query("System", "Account", [address], block_hash)
        return account["data"]["free"]

    def _read(self, keys: Sequence[bytes], block_hash: str | None) -> list[bytes | None]:
        texts = ["0x" + key.hex() for key in keys]
        found = {}
        for at in range(0, len(texts), KEYS_PER_READ):
            page = texts[at : at + KEYS_PER_READ]
            with self._parsing("state_queryStorageAt"):
                for group in self.rpc("state_queryStorageAt", [page] + ([block_hash] if block_hash else [])):
                    found.update(group["changes"])
        with self._parsing("state_queryStorageAt"):
            return [None if found.get(text) is None else bytes.fromhex(found[text][2:]) for text in texts]

    # Accounts, signing, submitting

    def account_next_index(self, address: str) -> int:
        """The next nonce, counting what is in the node's pool."""
        with self._parsing("system_accountNextIndex"):
            return int(self.rpc("system_accountNextIndex", [address]))

    def account_nonce(self, address: str, block_hash: str | None = None) -> int:
        """The next nonce by the state of a block alone."""
        return self.query("System", "Account", [address], block_hash)["nonce"]

    def refresh_runtime(self) -> Runtime:
        """Read the runtime version, and the metadata if the version is a new one. Call before signing."""
        self._runtime = self._current_runtime(self._runtime)
        return self._runtime

    def _current_runtime(self, known: Runtime | None) -> Runtime:
        with self._parsing("state_getRuntimeVersion"):
            return runtime_at(self.rpc, lambda: self.genesis, None, known)

    def sign(self, call: Call, signer: Signer, *, nonce: int, era: Era, birth_hash: str | None = None) -> Signed:
        """A signed extrinsic, not sent."""
        birth = birth_hash or (self.genesis if era.death is None else self.block_hash(era.birth))
        data = self._runtime.encode_call(call)
        return self._runtime.sign(data, signer, nonce=nonce, era=era, genesis=self.genesis, birth_hash=birth)

    def submit(self, data: bytes) -> PoolRefusal | None:
        """Send a signed extrinsic once. Returns None if the node accepted it into its pool, else the refusal.

        Raises FateUnknown if it was sent and no answer came, ChainUnavailable if it was not sent for certain.
        """
        try:
            self.rpc("author_submitExtrinsic", ["0x" + data.hex()])
        except RpcError as error:
            return pool_refusal(error.error)
        return None

    def fee(self, call: Call, public_key: bytes, nonce: int = 0) -> tuple[int, Cost]:
        """(fee in rao, cost) of a call (TransactionPaymentApi_query_info), exact with the nonce to be used."""
        signed = self._runtime.unsigned_like(self._runtime.encode_call(call), public_key, nonce)
        argument = signed.data + len(signed.data).to_bytes(4, "little")
        raw = self.runtime_call("TransactionPaymentApi_query_info", argument)
        # RuntimeDispatchInfo: Weight {Compact ref_time, Compact proof_size}, class u8, fee of the balance's type.
        reader = ScaleReader(raw)
        ref_time = reader.compact()
        reader.compact()
        reader.byte()
        return reader.number(reader.left), Cost(ref_time, len(signed.data))

    def send(self, call: Call, signer: Signer, *, timeout_s: float = 60.0, period: int = 64) -> tuple[int, list[Event]]:
        """Sign, send and wait until it is in a block: (block number, events). For tools and development chains.

        Nothing is journalled: use the chain writer for what must survive a crash. Raises ChainRefused with the error's
        name.
        """
        self.refresh_runtime()
        born = self.finalized()
        era = Era.mortal(born.number, period)
        nonce = self.account_next_index(signer.ss58)
        signed = self.sign(call, signer, nonce=nonce, era=era, birth_hash=born.hash)
        if refusal := self.submit(signed.data):
            raise ChainRefused(f"{call.name}: {refusal.text}", name=refusal.name, action=str(refusal.action))
        return self.find(signed.hash, era, timeout_s)

    def find(self, hash: str, era: Era, timeout_s: float, poll_s: float = 0.1) -> tuple[int, list[Event]]:
        """Wait for the block that has an extrinsic: (block number, the extrinsic's events)."""
        deadline = time.monotonic() + timeout_s
        number = era.birth + 1
        while True:
            head = self.wait_for_block(number, max(0.0, deadline - time.monotonic()), poll_s)
            while number <= head.number:
                block_hash = self.block_hash(number)
                block, hashes = self.block(block_hash)
                if hash in hashes:
                    index = hashes.index(hash)
                    return number, [event for at, event in self.events(block_hash, block.parent) if at == index]
                number += 1
            if era.death is not None and number > era.death:
                raise ChainRefused(f"extrinsic {hash} was in no block up to {era.death}", name="Expired")
