"""The blocks that a writer has read, up to the newest, and what to do when some of them leave the best chain.

In: a client. Out: the next block of the best chain with its extrinsics, each once; or how far the chain went back.
Blocks are read, not taken from a subscription. Waits for: the answers of the node.
"""

from raytensor.chain.rpc.client import ChainClient, Head


class Trail:
    """start: the first block that counts as read, by default the best one."""

    def __init__(self, client: ChainClient, start: Head | None = None) -> None:
        self._client = client
        head = start or client.head()
        self._number = head.number
        self._hashes: dict[int, str] = {head.number: head.hash}  # blocks that are not final yet

    @property
    def head(self) -> Head:
        """The newest block that was read: reads at its hash agree with what was found in the blocks so far."""
        return Head(self._number, self._hashes[self._number], "")

    def is_at(self, head: Head) -> bool:
        return self._number == head.number and self._hashes.get(head.number) == head.hash

    def next_block(self) -> tuple[Head, list[bytes]] | None:
        """The block after the newest, with the bytes of its extrinsics; None if the best chain has changed."""
        block, extrinsics = self._client.extrinsics(self._client.block_hash(self._number + 1))
        return (block, extrinsics) if block.parent == self._hashes[self._number] else None

    def add(self, block: Head) -> None:
        """A block was read."""
        self._hashes[block.number] = block.hash
        self._number = block.number

    def step_back(self) -> int | None:
        """Go back to the last block that is on the best chain. Returns its number, None if that is the newest."""
        before = self._number
        while self._client.find_block_hash(self._number) != self._hashes[self._number]:
            below = self._number - 1
            if below not in self._hashes:  # below the final block: only on a chain without finality
                self._hashes[below] = self._client.block_hash(below)
                self._number = below
                break
            self._number = below
        for number in [n for n in self._hashes if n > self._number]:
            del self._hashes[number]
        return None if self._number == before else self._number

    def jump(self, head: Head) -> None:
        """Leave out the blocks up to this one."""
        self._number, self._hashes = head.number, {head.number: head.hash}

    def forget_before(self, final: int) -> None:
        """Forget the hashes of final blocks."""
        for number in [n for n in self._hashes if n < min(final, self._number)]:
            del self._hashes[number]
