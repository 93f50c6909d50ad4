"""state_* and payment_*: storage, runtime API calls, metadata and version, at any block whose state is kept.

In: raw keys, SCALE arguments, block hashes. Out: hex, in the form of a Substrate node.
"""

from collections.abc import AsyncIterator
from typing import Any

from raytensor.devnet.block import Block
from raytensor.devnet.chain import Chain
from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.rpc.protocol import (
    Connection,
    RpcError,
    Subscription,
    TimeSlices,
    hex_bytes,
    invalid_params,
    method,
)
from raytensor.devnet.scale import ScaleError
from raytensor.devnet.store import ABSENT

MAX_PAGE = 1000
_CLIENT_ERROR = 4003


def _hex(value: bytes) -> str:
    return f"0x{value.hex()}"


def _hex_or_null(value: bytes | None) -> str | None:
    return None if value is None else _hex(value)


class StateMethods:
    def __init__(self, chain: Chain, slices: TimeSlices) -> None:
        self._slices = slices
        self.chain, self.runtime, self.store = chain, chain.runtime, chain.runtime.store
        self._storage_subscriptions: dict[str, tuple[Subscription, list[tuple[bytes, Any, Any]]]] = {}
        self._version_subscriptions: dict[str, Subscription] = {}
        chain.listeners.append(self._on_block)
        chain.on_upgrade.append(self._on_upgrade)

    def _block(self, value: Any) -> Block:
        """The block of a hash parameter; None is the best block. Error 4003 if it or its state is unknown."""
        if value is None:
            return self.chain.best
        block = self.chain.by_hash.get(hex_bytes(value, "hash"))
        if block is None:
            raise RpcError(_CLIENT_ERROR, f"Client error: UnknownBlock: Header was not found in the database: {value}")
        if block.number < self.store.oldest_block:
            raise RpcError(_CLIENT_ERROR, f"Client error: UnknownBlock: State already discarded for {value}")
        return block

    def _at(self, value: Any) -> int | None:
        block = self._block(value)
        return None if block is self.chain.best else block.number

    @method("state_getStorage", "state_getStorageAt", params=("key", "hash"))
    def get_storage(self, connection: Connection, key: Any, at: Any) -> str | None:
        return _hex_or_null(self.store.read_raw(hex_bytes(key, "key"), self._at(at)))

    @method("state_getStorageHash", "state_getStorageHashAt", params=("key", "hash"))
    def get_storage_hash(self, connection: Connection, key: Any, at: Any) -> str | None:
        value = self.store.read_raw(hex_bytes(key, "key"), self._at(at))
        return _hex_or_null(None if value is None else blake2_256(value))

    @method("state_getStorageSize", "state_getStorageSizeAt", params=("key", "hash"))
    def get_storage_size(self, connection: Connection, key: Any, at: Any) -> int | None:
        value = self.store.read_raw(hex_bytes(key, "key"), self._at(at))
        return None if value is None else len(value)

    @method("state_getKeysPaged", "state_getKeysPagedAt", params=("prefix", "count", "startKey", "hash"))
    def get_keys_paged(self, connection: Connection, prefix: Any, count: Any, start: Any, at: Any) -> list[str]:
        if not isinstance(count, int) or count < 0:
            raise invalid_params(f"count: {count!r} is no number")
        if count > MAX_PAGE:
            raise RpcError(4002, f"count exceeds maximum value. value: {count}, max: {MAX_PAGE}")
        start_key = None if start is None else hex_bytes(start, "startKey")
        keys = self.store.raw_keys(hex_bytes(prefix or "0x", "prefix"), start_key, count, self._at(at))
        return [f"0x{key.hex()}" for key in keys]

    @method("state_getKeys", params=("prefix", "hash"))
    def get_keys(self, connection: Connection, prefix: Any, at: Any) -> list[str]:
        keys = self.store.raw_keys(hex_bytes(prefix, "prefix"), None, None, self._at(at))
        return [f"0x{key.hex()}" for key in keys]

    @method("state_getPairs", params=("prefix", "hash"))
    async def get_pairs(self, connection: Connection, prefix: Any, at: Any) -> list[list[str | None]]:
        number = self._block(at).number
        keys = self.store.raw_keys(hex_bytes(prefix, "prefix"), None, None, number)
        return [[f"0x{key.hex()}", value] async for key, value in self._read(keys, number)]

    async def _read(self, keys: list[bytes], number: int) -> AsyncIterator[tuple[bytes, str | None]]:
        """(key, value at that block). Blocks may be sealed while many keys are read."""
        for i, raw in enumerate(keys):
            if i % 64 == 63:
                await self._slices.give_way()
            yield raw, _hex_or_null(self.store.read_raw(raw, number))

    @method("state_queryStorageAt", params=("keys", "hash"))
    async def query_storage_at(self, connection: Connection, keys: Any, at: Any) -> list[dict]:
        block, asked = self._block(at), self._keys(keys)
        values = [value async for _, value in self._read([raw for _, raw in asked], block.number)]
        changes = [[key, value] for (key, _), value in zip(asked, values)]
        return [{"block": _hex(block.hash), "changes": changes}]

    def _keys(self, keys: Any) -> list[tuple[str, bytes]]:
        if not isinstance(keys, list):
            raise invalid_params("keys must be a list of hex strings")
        return [(key, hex_bytes(key, "key")) for key in keys]

    @method("state_call", "state_callAt", params=("name", "bytes", "hash"))
    def call(self, connection: Connection, name: Any, data: Any, at: Any) -> str:
        if not isinstance(name, str):
            raise invalid_params("name must be a string")
        number, arguments = self._at(at), hex_bytes(data or "0x", "bytes")
        try:
            return _hex(self.runtime.api_call(name, arguments, number))
        except KeyError:
            message = f"Client error: Execution failed: Other: Exported method {name} is not found"
            raise RpcError(_CLIENT_ERROR, message) from None
        except ScaleError as error:
            message = (
                f"Client error: Execution failed: Execution aborted due to panic: Bad input data provided to {name}"
            )
            raise RpcError(_CLIENT_ERROR, f"{message}: {error}") from None

    @method("state_getMetadata", params=("hash",))
    def get_metadata(self, connection: Connection, at: Any) -> str:
        return _hex(self.runtime.upgrades.metadata(14, self._block(at).number))

    @method("state_getRuntimeVersion", "chain_getRuntimeVersion", params=("hash",))
    def get_runtime_version(self, connection: Connection, at: Any) -> dict:
        return self._version(self._block(at))

    def _version(self, block: Block) -> dict:
        version = self.runtime.upgrades.version(block.number)
        return {
            "specName": version.spec_name,
            "implName": version.impl_name,
            "authoringVersion": version.authoring_version,
            "specVersion": version.spec_version,
            "implVersion": version.impl_version,
            "apis": [[_hex(identifier), number] for identifier, number in version.apis],
            "transactionVersion": version.transaction_version,
            "systemVersion": version.system_version,
            "stateVersion": version.system_version,
        }

    @method("state_subscribeRuntimeVersion", "chain_subscribeRuntimeVersion")
    def subscribe_runtime_version(self, connection: Connection) -> Subscription:
        streams = self._version_subscriptions
        subscription = Subscription(connection, "state_runtimeVersion", lambda key: streams.pop(key, None))
        streams[subscription.id] = subscription
        subscription.notify(self.get_runtime_version(connection, None))
        return subscription

    @method("state_subscribeStorage", params=("keys",))
    def subscribe_storage(self, connection: Connection, keys: Any) -> Subscription:
        resolved = []
        for _, raw in self._keys(keys):
            item = self.store.items.get(raw[:32])
            try:
                resolved.append((raw, item, None if item is None else item.typed_key(raw)))
            except ScaleError:
                resolved.append((raw, None, None))
        subscription = Subscription(connection, "state_storage", lambda key: self._storage_subscriptions.pop(key, None))
        self._storage_subscriptions[subscription.id] = (subscription, resolved)
        values = [[_hex(raw), _hex_or_null(self.store.read_raw(raw))] for raw, _, _ in resolved]
        subscription.notify({"block": _hex(self.chain.best.hash), "changes": values})
        return subscription

    def _on_upgrade(self) -> None:
        for subscription in list(self._version_subscriptions.values()):
            subscription.notify(self._version(self.chain.best))

    def _on_block(self, block: Block, changes: list) -> None:
        if not self._storage_subscriptions:
            return
        changed = set(changes)
        for subscription, keys in list(self._storage_subscriptions.values()):
            values = []
            for raw, item, key in keys:
                if (item, key) in changed and item.at(key, block.number - 1) is not item.current.get(key, ABSENT):
                    values.append([_hex(raw), _hex_or_null(self.store.read_raw(raw))])
            if values:
                subscription.notify({"block": _hex(block.hash), "changes": values})

    @method(
        "state_unsubscribeRuntimeVersion", "chain_unsubscribeRuntimeVersion", "state_unsubscribeStorage", params=("id",)
    )
    def unsubscribe(self, connection: Connection, subscription_id: Any) -> bool:
        return unsubscribe(connection, subscription_id)

    @method("payment_queryInfo", params=("extrinsic", "hash"))
    def payment_query_info(self, connection: Connection, extrinsic: Any, at: Any) -> dict:
        raw = hex_bytes(extrinsic, "extrinsic")
        data = raw + len(raw).to_bytes(4, "little")
        try:
            info = self.runtime.codecs("RuntimeDispatchInfo").decode(
                self.runtime.api_call("TransactionPaymentApi_query_info", data, self._at(at))
            )
        except ScaleError as error:
            raise RpcError(9001, f"Unable to query dispatch info: {error}") from None
        weight = {"ref_time": info.weight.ref_time, "proof_size": info.weight.proof_size}
        return {"weight": weight, "class": info[1].lower(), "partialFee": str(info.partial_fee)}


def unsubscribe(connection: Connection, subscription_id: Any) -> bool:
    """End a subscription of this connection. Returns False if there is none of that id."""
    subscription = (connection.subscriptions or {}).get(subscription_id) if isinstance(subscription_id, str) else None
    return subscription is not None and subscription.close()
