"""author_*: submit and watch extrinsics. engine_* and dev_*: blocks on demand.

In: raw extrinsics. Out: hashes, and the statuses of watched extrinsics, the last of which is final.
"""

from typing import Any

from raytensor.devnet.author import Author
from raytensor.devnet.chain import Chain
from raytensor.devnet.pool import PoolError
from raytensor.devnet.rpc.protocol import (
    Connection,
    RpcError,
    Subscription,
    TimeSlices,
    hex_bytes,
    invalid_params,
    method,
)
from raytensor.devnet.rpc.state import unsubscribe
from raytensor.devnet.scale import ScaleError

MAX_NEW_BLOCKS = 10_000
_FINAL = ("finalized", "finalityTimeout", "usurped")


class AuthorMethods:
    def __init__(self, chain: Chain, author: Author, slices: TimeSlices) -> None:
        self.chain, self.author, self._slices = chain, author, slices

    @method("author_submitExtrinsic", params=("bytes",))
    def submit(self, connection: Connection, extrinsic: Any) -> str:
        return f"0x{self.chain.pool.submit(hex_bytes(extrinsic, 'bytes')).hex()}"

    @method("author_submitAndWatchExtrinsic", params=("bytes",))
    def submit_and_watch(self, connection: Connection, extrinsic: Any) -> Subscription:
        raw = hex_bytes(extrinsic, "bytes")
        subscription = Subscription(connection, "author_extrinsicUpdate")
        ended = False

        def watch(status: Any) -> None:
            nonlocal ended
            if not subscription.closed and not ended:
                ended = status in ("invalid", "dropped") or (isinstance(status, dict) and next(iter(status)) in _FINAL)
                subscription.notify(status)

        try:
            self.chain.pool.submit(raw, watch)
        except PoolError:
            subscription.close()
            raise
        return subscription

    @method("author_unwatchExtrinsic", params=("bytes",))
    def unwatch(self, connection: Connection, subscription_id: Any) -> bool:
        return unsubscribe(connection, subscription_id)

    @method("author_pendingExtrinsics")
    def pending(self, connection: Connection) -> list[str]:
        return [f"0x{raw.hex()}" for raw in self.chain.pool.pending()]

    @method("engine_createBlock", params=("createEmpty", "finalize", "parentHash"))
    def create_block(self, connection: Connection, create_empty: Any, finalize: Any, parent: Any) -> dict:
        if parent is not None and hex_bytes(parent, "parentHash") != self.chain.best.hash:
            raise RpcError(20000, "Block import error: the devnet builds only on its best block")
        if not create_empty and not self.chain.pool.has_ready():
            raise RpcError(
                20000, "Transaction pool is empty, set create_empty to true, if you want to create empty blocks"
            )
        block = self.author.seal()
        if finalize:
            self.chain.finalize(block.number)
        aux = {
            "header_only": False,
            "clear_justification_requests": False,
            "needs_justification": False,
            "bad_justification": False,
            "is_new_best": True,
        }
        return {"hash": f"0x{block.hash.hex()}", "aux": aux}

    @method("engine_finalizeBlock", params=("hash", "justification"))
    def finalize_block(self, connection: Connection, at: Any, justification: Any) -> bool:
        block = self.chain.by_hash.get(hex_bytes(at, "hash"))
        if block is None:
            raise RpcError(20000, f"Block not found: {at}")
        self.chain.finalize(block.number)
        return True

    @method("dev_newBlock", params=("options",))
    async def new_block(self, connection: Connection, options: Any) -> str:
        """Seal `count` blocks (default 1), or up to block `to`. Returns the hash of the last one."""
        options = options or {}
        best = self.chain.best.number
        count = options.get("count", options["to"] - best if isinstance(options.get("to"), int) else 1)
        if not isinstance(count, int) or not 1 <= count <= MAX_NEW_BLOCKS:
            raise invalid_params(f"between 1 and {MAX_NEW_BLOCKS} blocks can be made at once, not {count!r}")
        block = self.chain.best
        for _ in range(count):
            block = self.author.seal()
            await self._slices.give_way()
        return f"0x{block.hash.hex()}"

    @method("dev_rollBack", params=("options",))
    def roll_back(self, connection: Connection, options: Any) -> str:
        """Remove the last `count` blocks (default 1), none of which may be final. Their extrinsics return to the pool,
        or are lost if `keep` is false. Returns the hash of the best block."""
        options = {} if options is None else options
        if not isinstance(options, dict):
            raise invalid_params(f"options are an object, not {options!r:.80}")
        count, keep = options.get("count", 1), options.get("keep", True)
        if type(count) is not int or not 1 <= count <= self.chain.best.number or not isinstance(keep, bool):
            raise invalid_params(f"count is 1 to {self.chain.best.number}, keep is true or false, not {options!r}")
        try:
            return f"0x{self.chain.roll_back(count, keep=keep).hash.hex()}"
        except ValueError as error:
            raise RpcError(20000, str(error)) from None

    @method("dev_upgradeRuntime")
    def upgrade_runtime(self, connection: Connection) -> int:
        """Replace the runtime in the state of the next block, whose number is returned: the spec version rises by one,
        every pallet has a new event before its others, and two calls move. Later blocks are made by the new runtime."""
        return self.chain.upgrade()

    @method("dev_setStorage", params=("values", "hash"))
    def set_storage(self, connection: Connection, values: Any, at: Any) -> str:
        """Overwrite raw storage: [[key, value | null], ...]. The change becomes part of the next block."""
        if not isinstance(values, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in values):
            raise invalid_params("values must be [[key, value], ...]")
        for key, value in values:
            try:
                raw = None if value is None else hex_bytes(value, "value")
                self.chain.runtime.store.write_raw(hex_bytes(key, "key"), raw)
            except ScaleError as error:
                raise invalid_params(f"{key}: {error}") from None
        return f"0x{self.chain.best.hash.hex()}"
