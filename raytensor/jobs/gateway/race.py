"""One request to miners: the first that begins to answer gives the text.

In: a prompt, miners in order, a signed HTTP client. Out: pieces of text of one miner. A miner that fails before its
first piece is replaced by the next one at once; one that is slow gets a rival after `Router.hedge_after_s`. The others
are cancelled when the first piece arrives.
Waits for: the whole answer, until the deadline of the request. Knows nothing of OpenAI's API.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

from raytensor.commands.query_miners import MinerAnswer
from raytensor.config.gateway import Routing
from raytensor.errors import RayTensorError, WireError
from raytensor.jobs.gateway.routing import Router
from raytensor.wire.client import WireClient
from raytensor.wire.codec import Prompt


class NoAnswer(RayTensorError):
    """No miner answered; the message has each reason."""


class Race:
    """miners: in the order in which they are asked. make_prompt: (miner, seconds left) -> the prompt to send.
    end_s: monotonic time of the deadline.

    miner, num_hedges: who answers (after `start`), and how many miners were asked because others were slow.
    """

    def __init__(
        self,
        client: WireClient,
        router: Router,
        netuid: int,
        miners: Sequence[MinerAnswer],
        make_prompt: Callable[[MinerAnswer, float], Prompt],
        settings: Routing,
        end_s: float,
    ) -> None:
        self._client, self._router, self._netuid = client, router, netuid
        self._todo, self._make_prompt = list(miners), make_prompt
        self._end_s, self._settings = end_s, settings
        self._running: dict[asyncio.Task[str], tuple[MinerAnswer, float, AsyncIterator[str]]] = {}
        self._reasons: list[str] = []
        self._winner: tuple[MinerAnswer, str, AsyncIterator[str]] | None = None
        self.num_hedges = 0

    @property
    def miner(self) -> MinerAnswer:
        """The miner that answers."""
        assert self._winner is not None, "started"
        return self._winner[0]

    @property
    def reasons(self) -> str:
        """Why miners gave no answer, a line each."""
        return "; ".join(self._reasons) or "there is no miner to ask"

    async def start(self) -> None:
        """Ask until one miner begins to answer. Raises `NoAnswer`. May be called again after an answer broke off."""
        self._winner = None
        try:
            await self._race()
        finally:
            await self._stop_others()
        if self._winner is None:
            raise NoAnswer(self.reasons)

    async def pieces(self) -> AsyncIterator[str]:
        """The text of the winner, piece by piece. Raises `WireError` when it breaks off."""
        assert self._winner is not None, "started"
        miner, first, rest = self._winner
        yield first
        try:
            async for piece in rest:
                yield piece
        except WireError as error:
            self._router.broke_off(miner.hotkey, time.monotonic())
            self._reasons.append(f"uid {miner.uid} broke off: {error}")
            raise

    async def close(self) -> None:
        """End what still runs."""
        await self._stop_others()
        if self._winner is not None:
            await self._winner[2].aclose()  # pyright: ignore[reportAttributeAccessIssue] (a generator)

    async def _race(self) -> None:
        self._ask_next()
        hedge_at_s = time.monotonic() + self._router.hedge_after_s(self._netuid)
        while self._running and self._winner is None:
            now_s = time.monotonic()
            may_hedge = self._todo and len(self._running) < self._settings.max_parallel
            until_s = min(hedge_at_s, self._end_s) if may_hedge else self._end_s
            done, _ = await asyncio.wait(
                self._running, timeout=max(0.0, until_s - now_s), return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                self._take(done)
            elif until_s == self._end_s:
                self._reasons += [f"uid {miner.uid} gave no text in time" for miner, _, _ in self._running.values()]
                return
            else:
                self.num_hedges += 1
            if self._winner is None and (not done or not self._running or self._todo):
                self._ask_next()
                hedge_at_s = time.monotonic() + self._router.hedge_after_s(self._netuid)

    def _ask_next(self) -> None:
        if not self._todo or len(self._running) >= self._settings.max_parallel:
            return
        miner, now_s = self._todo.pop(0), time.monotonic()
        answer = self._client.complete(self._make_prompt(miner, max(0.001, self._end_s - now_s)), miner.axon)
        self._router.asked(miner.hotkey)
        self._running[asyncio.create_task(_first(answer, self._settings.first_piece_s))] = (miner, now_s, answer)

    def _take(self, done: set[asyncio.Task[str]]) -> None:
        """Winner is the first of `done` that has text; a second one at the same moment is stopped with the others."""
        for task in done:
            miner, sent_s, answer = self._running[task]
            error = task.exception()
            if error is None and self._winner is None:
                del self._running[task]
                self._winner = miner, task.result(), answer
                self._router.answered(self._netuid, miner.hotkey, time.monotonic() - sent_s)
            elif error is not None:
                del self._running[task]
                self._router.failed(miner.hotkey, time.monotonic())
                if not isinstance(error, WireError):
                    raise error
                self._reasons.append(f"uid {miner.uid}: {error}")

    async def _stop_others(self) -> None:
        running, self._running = self._running, {}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        now_s = time.monotonic()
        for miner, sent_s, answer in running.values():
            self._router.outrun(miner.hotkey, now_s - sent_s)
            async with aclosing(answer):  # pyright: ignore[reportArgumentType] (a generator)
                pass


async def _first(answer: AsyncIterator[str], limit_s: float) -> str:
    """The first piece that has text. Raises `WireError`."""
    try:
        async with asyncio.timeout(limit_s):
            async for piece in answer:
                if piece:
                    return piece
    except TimeoutError:
        raise WireError(f"gave no text within {limit_s:g} s") from None
    raise WireError("ended without any text")
