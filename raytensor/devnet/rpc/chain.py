"""chain_*: blocks, headers, hashes, and the subscriptions to heads.

In: block numbers and hashes. Out: headers and bodies as JSON; a missing block is null, never an error.
"""

from typing import Any

from raytensor.devnet.block import Block
from raytensor.devnet.chain import Chain
from raytensor.devnet.rpc.protocol import Connection, Subscription, hex_bytes, invalid_params, method
from raytensor.devnet.rpc.state import unsubscribe


class ChainMethods:
    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._heads: dict[str, dict[str, Subscription]] = {"new": {}, "all": {}, "finalized": {}}
        chain.listeners.append(lambda block, changes: self._notify(block, "new", "all"))
        chain.on_finalized.append(lambda block: self._notify(block, "finalized"))

    def _find(self, value: Any) -> Block | None:
        return self.chain.best if value is None else self.chain.by_hash.get(hex_bytes(value, "hash"))

    @method("chain_getHeader", params=("hash",))
    def get_header(self, connection: Connection, at: Any) -> dict | None:
        block = self._find(at)
        return None if block is None else block.header()

    @method("chain_getBlock", params=("hash",))
    def get_block(self, connection: Connection, at: Any) -> dict | None:
        block = self._find(at)
        body = None if block is None else self.chain.body(block)
        if block is None or body is None:
            return None
        extrinsics = [f"0x{raw.hex()}" for raw in body]
        return {"block": {"header": block.header(), "extrinsics": extrinsics}, "justifications": None}

    @method("chain_getBlockHash", "chain_getHead", params=("hash",))
    def get_block_hash(self, connection: Connection, number: Any) -> Any:
        if isinstance(number, list):
            return [self.get_block_hash(connection, one) for one in number]
        if number is None:
            return f"0x{self.chain.best.hash.hex()}"
        if isinstance(number, str):
            try:
                number = int(number, 16 if number.lower().startswith("0x") else 10)
            except ValueError:
                raise invalid_params(f"{number!r:.80} is no block number") from None
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise invalid_params(f"{number!r:.80} is no block number")
        found = self.chain.block_hash(number)
        return None if found is None else f"0x{found.hex()}"

    @method("chain_getFinalizedHead", "chain_getFinalisedHead")
    def get_finalized_head(self, connection: Connection) -> str:
        return f"0x{self.chain.finalized.hash.hex()}"

    def _subscribe(self, connection: Connection, kind: str, notification: str, first: Block) -> Subscription:
        subscription = Subscription(connection, notification, lambda key: self._heads[kind].pop(key, None))
        self._heads[kind][subscription.id] = subscription
        subscription.notify(first.header())
        return subscription

    @method("chain_subscribeNewHeads", "chain_subscribeNewHead", "subscribe_newHead")
    def subscribe_new_heads(self, connection: Connection) -> Subscription:
        return self._subscribe(connection, "new", "chain_newHead", self.chain.best)

    @method("chain_subscribeAllHeads")
    def subscribe_all_heads(self, connection: Connection) -> Subscription:
        return self._subscribe(connection, "all", "chain_allHead", self.chain.best)

    @method("chain_subscribeFinalizedHeads", "chain_subscribeFinalisedHeads")
    def subscribe_finalized_heads(self, connection: Connection) -> Subscription:
        return self._subscribe(connection, "finalized", "chain_finalizedHead", self.chain.finalized)

    @method(
        "chain_unsubscribeNewHeads",
        "chain_unsubscribeNewHead",
        "unsubscribe_newHead",
        "chain_unsubscribeAllHeads",
        "chain_unsubscribeFinalizedHeads",
        "chain_unsubscribeFinalisedHeads",
        params=("id",),
    )
    def unsubscribe(self, connection: Connection, subscription_id: Any) -> bool:
        return unsubscribe(connection, subscription_id)

    def _notify(self, block: Block, *kinds: str) -> None:
        header = block.header() if any(self._heads[kind] for kind in kinds) else {}
        for kind in kinds:
            for subscription in list(self._heads[kind].values()):
                subscription.notify(header)
