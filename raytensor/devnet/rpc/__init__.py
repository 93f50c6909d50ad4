"""JSON-RPC of a Substrate node: the protocol, and the methods grouped by their prefix."""

from raytensor.devnet.author import Author
from raytensor.devnet.chain import Chain
from raytensor.devnet.rpc.author import AuthorMethods
from raytensor.devnet.rpc.chain import ChainMethods
from raytensor.devnet.rpc.protocol import Dispatcher, TimeSlices
from raytensor.devnet.rpc.state import StateMethods
from raytensor.devnet.rpc.system import SystemMethods


class NodeRpc(Dispatcher):
    """Serves all method groups of a chain and its author."""

    def __init__(self, chain: Chain, author: Author) -> None:
        slices = TimeSlices()
        groups = [StateMethods(chain, slices), ChainMethods(chain), AuthorMethods(chain, author, slices)]
        super().__init__([SystemMethods(chain, lambda: sorted(self.methods)), *groups], slices)
