"""Which chain it is: the hash of its block 0, and of one later block that was final.

Two chains may have the same block 0: an embedded chain that was started anew without its state, a test network that was
set back. In: what the endpoint answers. Out: why an endpoint is refused, or nothing.
Knows nothing of sockets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WAY_OUT = (
    "the chain was started anew, or this is another chain of the same genesis: start this program again, the chain "
    "writer with another journal"
)


@dataclass(frozen=True, slots=True)
class ChainIdentity:
    """genesis: hash of block 0. number, hash: of a block that was final; 0 and "" if none was recorded."""

    genesis: str
    number: int = 0
    hash: str = ""

    def refusal(self, genesis: str, best: int, block_hash: Callable[[int], Any]) -> str:
        """Why an endpoint with this block 0 and best block serves another chain, or lags; "" if it does not.

        block_hash  returns the hash of a block on the endpoint's best chain, None if it has none.
        """
        if genesis != self.genesis:
            return f"serves another chain: genesis {genesis}, not {self.genesis}"
        if not self.number:
            return ""
        if best < self.number:
            return f"is at block {best}, below block {self.number}, which was final: it lags, or {WAY_OUT}"
        found = block_hash(self.number)
        if found not in (None, self.hash):  # None: blocks as old as that are pruned
            return f"has another block {self.number} than the final one that was recorded: {WAY_OUT}"
        return ""
