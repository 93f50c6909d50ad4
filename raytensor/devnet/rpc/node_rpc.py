"""All method groups of the node behind one `handle(message, connection)`."""

from __future__ import annotations

from raytensor.devnet.author import Author
from raytensor.devnet.chain import Chain
from raytensor.devnet.rpc.author import AuthorMethods
from raytensor.devnet.rpc.chain import ChainMethods
from raytensor.devnet.rpc.protocol import Dispatcher, Turns
from raytensor.devnet.rpc.state import StateMethods
from raytensor.devnet.rpc.system import SystemMethods


class NodeRpc(Dispatcher):
    """The methods of a chain and its author."""

    def __init__(self, chain: Chain, author: Author) -> None:
        system, turns = SystemMethods(chain), Turns()
        groups = [system, StateMethods(chain, turns), ChainMethods(chain), AuthorMethods(chain, author, turns)]
        super().__init__(groups, turns)
        system.served = sorted(self.methods)
