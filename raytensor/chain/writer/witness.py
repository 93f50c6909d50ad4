"""A second endpoint that has to agree before an order that moves money counts as applied, failed or expired.

In: what the endpoint in use says of an extrinsic. Out: whether another of the configured endpoints says the same. One
endpoint that lies, or has another chain, decides nothing about money: the extrinsic stays open, its nonce is taken by
nothing else, and `disagreement` says so. Weights wait for nobody.

    in a block    the same block is on the other's chain, has the extrinsic at this place, with these outcomes
    final         the other calls the block final
    ended         no block of its era has it, and its nonce is used or its era over, at a block that both call final

An endpoint that does not answer is no disagreement: after `PATIENCE_S` (of success at once) one is believed alone.
Waits for: the other endpoint, at most `TIMEOUT_S` per request; one that does not answer is left alone for a while.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from raytensor.chain.calls import Call
from raytensor.chain.reads.agreement import agree
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.rpc.connection import endpoint_urls
from raytensor.chain.rpc.events import Outcome
from raytensor.chain.rpc.identity import ChainIdentity
from raytensor.chain.writer.extrinsic_table import Extrinsic
from raytensor.errors import ChainError

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
PAUSE_S = 30.0  # between two attempts to reach one that does not answer
LAG_S, PATIENCE_S = 20.0, 300.0  # how long a success, and a failure, waits for an endpoint that lags or is silent

Check = Callable[[ChainClient], bool | None]  # None: it does not know the block yet


class Witness:
    """client: the connection in use. endpoints: all that are configured.

    disagreement  what the endpoints disagree on, "" for nothing.
    """

    def __init__(self, client: ChainClient, endpoints: Sequence[str] | str, timeout_s: float) -> None:
        self._client, self._urls = client, endpoint_urls(endpoints)
        self._timeout_s = min(timeout_s, TIMEOUT_S)
        self._other: ChainClient | None = None
        self._retry_at = 0.0
        self._unsure_since: dict[str, float] = {}  # by statement: since when it has been asked about in vain
        self.disagreement = ""

    def has_included(self, extrinsic: Extrinsic, block: Head, index: int, call: Call, found: Sequence[Outcome]) -> bool:
        """Whether it counts as included in this block as number `index`, with these outcomes of its items."""

        def check(other: ChainClient) -> bool | None:
            known = other.find_block_hash(block.number)
            if known != block.hash:
                return None if known is None else False
            head, hashes = other.block(block.hash)
            if hashes[index : index + 1] != [extrinsic.hash]:
                return False
            return list(other.block_events(block.hash, head.parent).outcomes(call, index)) == list(found)

        good = all(outcome.ok for outcome in found)
        return self._agrees(check, f"extrinsic {extrinsic.hash} in block {block.number}", succeeds=good)

    def has_finalized(self, extrinsic: Extrinsic) -> bool:
        """Whether the block that has it counts as final."""
        number = extrinsic.block or 0

        def check(other: ChainClient) -> bool | None:
            if other.finalized().number < number:
                return None
            return other.find_block_hash(number) == self._client.find_block_hash(number)

        return self._agrees(check, f"final block {number}", succeeds=True)

    def has_ended(self, extrinsic: Extrinsic, final: Head) -> bool:
        """Whether it counts as in no block, with its era over or its nonce used at a final block."""
        x, over = extrinsic, extrinsic.over(final.number)
        last = final.number if x.death is None else min(final.number, x.death)

        def check(other: ChainClient) -> bool | None:
            agreed = agree([self._client, other], [x.signer])
            if agreed.disagreement:
                log.error("%s", agreed.disagreement)
                return False
            if agreed.final.number < last:
                return None
            numbers = range(x.birth + 1, last + 1)
            if any(x.hash in other.block(other.block_hash(number))[1] for number in numbers):
                return False
            return over or other.account_nonce(x.signer, agreed.final.hash) > x.nonce

        return self._agrees(check, f"extrinsic {x.hash}, which ended by block {last}", succeeds=False)

    def close(self) -> None:
        if self._other is not None:
            with suppress(ChainError):
                self._other.close()
            self._other = None

    def _agrees(self, check: Check, what: str, *, succeeds: bool) -> bool:
        """Whether the statement counts: the other endpoint says so, or has been asked in vain for long enough."""
        if len(set(self._urls)) < 2:
            return True
        answer = reached = None
        try:
            reached = self._reach()
            answer = check(reached) if reached is not None else None
        except ChainError as error:
            log.warning("a second endpoint was asked about %s: %s", what, error)
            self.close()
            self._retry_at, reached = time.monotonic() + PAUSE_S, None
        if answer is not None:
            self._unsure_since.pop(what, None)
            asked = f"{self._client.endpoint} and {reached.endpoint if reached else ''}"
            self.disagreement = "" if answer else f"{asked} disagree on {what}: money waits until they agree"
            return answer
        patience_s = PATIENCE_S if not succeeds else LAG_S if reached is not None else 0.0
        now = time.monotonic()
        believed = now - self._unsure_since.setdefault(what, now) >= patience_s
        if believed:
            del self._unsure_since[what]
        return believed

    def _reach(self) -> ChainClient | None:
        """A connection to another endpoint than the one in use; None while none is tried."""
        if self._other is not None and self._other.endpoint == self._client.endpoint:
            self.close()  # the one in use has changed
        if self._other is None and time.monotonic() >= self._retry_at:
            others = [url for url in self._urls if url != self._client.endpoint]
            identity = ChainIdentity(self._client.genesis)
            self._other = ChainClient(others, self._timeout_s, runtime=self._client.runtime, identity=identity)
        return self._other
