"""Streams of new tokens from the miners' hosts: all requests of a host share one call at a time.

In: requests; which actor hosts a hotkey. Out: the tokens of each request as they are made.
Waits for: a host that is being replaced, until the caller gives up; a call, at most `CALL_TIMEOUT_S`. A stream whose
host is lost goes on once, at the replacement, with the tokens that it has. A closed stream leaves the host's batch.
Bounds: none of its own; the wire's server bounds the prompts. Knows nothing of text or HTTP.
"""

import asyncio
import dataclasses
import itertools
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
from ray.exceptions import RayActorError, RayTaskError

from raytensor.errors import cause_of
from raytensor.miners.actors import GenerationRequest, NewTokens

RETRY_S = 0.2  # between two looks for the host that replaces a lost one
CALL_TIMEOUT_S = 300.0  # of one call; the first one makes the copy of a model


class HostLost(Exception):
    """The host of a stream has died."""


class Streams:
    """host_of: the actor of a hotkey, None while there is none. asked: counts the streams by actor id."""

    def __init__(self, host_of: Callable[[str], Any], asked: Counter[Any]) -> None:
        self._host_of, self._asked = host_of, asked
        self._pumps: dict[Any, _Pump] = {}
        # Names of an earlier server, which a host may still know, are others.
        self._names = (f"{prefix}/{number}" for prefix in [secrets.token_hex(8)] for number in itertools.count())

    async def tokens(self, request: GenerationRequest) -> AsyncGenerator[Sequence[int]]:
        """New tokens, until the request is done. Raises `RuntimeError` with the reason when it ends early."""
        lost: Any = None
        made: list[int] = []
        while True:  # the caller's time-out ends the wait
            actor = self._host_of(request.hotkey)
            if actor is None or actor is lost:
                await asyncio.sleep(RETRY_S)
                continue
            before = np.concatenate([request.tokens, np.array(made, np.int32)])
            again = dataclasses.replace(request, name=next(self._names), tokens=before, num_made=len(made))
            pump = self._pumps.setdefault(actor._actor_id, _Pump(actor))
            self._asked[actor._actor_id] += 1
            try:
                async with aclosing(pump.follow(again)) as news:
                    async for new in news:
                        made += new.tokens
                        if new.tokens:
                            yield new.tokens
                        if new.error:
                            raise RuntimeError(new.error)
                return
            except HostLost:
                if lost is not None:
                    raise RuntimeError("the miner's host is being replaced") from None
                lost = actor
            finally:
                self._asked[actor._actor_id] -= 1
                if not pump.active:
                    self._pumps.pop(actor._actor_id, None)


class _Pump:
    """Calls `generate` of one host again and again while it has streams."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._joins: list[GenerationRequest] = []
        self._leaves: list[str] = []
        self._queues: dict[str, asyncio.Queue[NewTokens | Exception]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        """Whether it has streams."""
        return bool(self._queues)

    async def follow(self, request: GenerationRequest) -> AsyncGenerator[NewTokens]:
        """What a request gets. Raises `HostLost`, or `RuntimeError` when the host raised."""
        name = request.name
        queue = self._queues[name] = asyncio.Queue()
        self._joins.append(request)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            while True:
                new = await queue.get()
                if isinstance(new, Exception):
                    raise new
                yield new
                if new.done:
                    return
        finally:
            if self._queues.pop(name, None) is not None:
                self._leaves.append(name)  # also one that has not joined yet, after its join

    async def _run(self) -> None:
        while self._queues or self._leaves:
            joins, self._joins, leaves, self._leaves = self._joins, [], self._leaves, []
            call = self._actor.generate.options(concurrency_group="generating").remote(joins, leaves)
            try:
                found = await asyncio.wait_for(call, CALL_TIMEOUT_S)
            except RayActorError:
                return self._end(HostLost())
            except (RayTaskError, TimeoutError) as error:
                return self._end(RuntimeError(f"the miner failed: {cause_of(error)}"))
            for name, new in found.items():
                if (queue := self._queues.get(name)) is not None:
                    if new.done:
                        del self._queues[name]
                    queue.put_nowait(new)

    def _end(self, error: Exception) -> None:
        """End all streams; what is there of the host is left to its deadlines."""
        for queue in self._queues.values():
            queue.put_nowait(error)
        self._queues.clear()
        self._joins.clear()
        self._leaves.clear()
