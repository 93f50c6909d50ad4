"""system_* and rpc_methods: the node's identity, account nonces, the served methods."""

from collections.abc import Callable
from typing import Any

from raytensor.devnet.chain import Chain
from raytensor.devnet.rpc.protocol import Connection, hex_bytes, invalid_params, method
from raytensor.devnet.ss58 import decode_account

CHAIN_NAME, NODE_NAME = "Bittensor", "RayTensor devnet"
NODE_VERSION = "1.0.0"


class SystemMethods:
    def __init__(self, chain: Chain, served: Callable[[], list[str]]) -> None:
        """served: returns the names of all methods of the node, sorted."""
        self.chain, self._served = chain, served

    @method("rpc_methods")
    def methods(self, connection: Connection) -> dict:
        return {"methods": self._served()}

    @method("system_chain")
    def chain_name(self, connection: Connection) -> str:
        return CHAIN_NAME

    @method("system_name")
    def name(self, connection: Connection) -> str:
        return NODE_NAME

    @method("system_version")
    def version(self, connection: Connection) -> str:
        return NODE_VERSION

    @method("system_chainType")
    def chain_type(self, connection: Connection) -> str:
        return "Local"

    @method("system_properties")
    def properties(self, connection: Connection) -> dict:
        return {"ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO"}

    @method("system_health")
    def health(self, connection: Connection) -> dict:
        return {"peers": 0, "isSyncing": False, "shouldHavePeers": False}

    @method("system_peers")
    def peers(self, connection: Connection) -> list:
        return []

    @method("system_nodeRoles")
    def roles(self, connection: Connection) -> list[str]:
        return ["Authority"]

    @method("system_syncState")
    def sync_state(self, connection: Connection) -> dict:
        best = self.chain.best.number
        return {"startingBlock": 0, "currentBlock": best, "highestBlock": best}

    @method("system_accountNextIndex", "account_nextIndex", params=("account",))
    def next_index(self, connection: Connection, account: Any) -> int:
        if not isinstance(account, str):
            raise invalid_params(f"{account!r:.80} is no account")
        try:
            public_key = hex_bytes(account, "account") if account.startswith("0x") else decode_account(account)
        except ValueError as error:
            raise invalid_params(str(error)) from None
        if len(public_key) != 32:
            raise invalid_params(f"{account!r:.80} is no account")
        return self.chain.pool.next_nonce(public_key)
