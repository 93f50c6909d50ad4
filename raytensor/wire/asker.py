"""Asks miners over the wire, in a process that holds no key. A plain class; an actor where it is used.

In: tasks of any of its validators, and where their miners listen. Out: each task's answer as it comes. This is the only
process of a validator that reads what miners send; signatures come from a `Notary`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from raytensor.config.wire import Client
from raytensor.types import Failure, Reason, Response, Submission, Task
from raytensor.wire.client import WireClient
from raytensor.wire.notary import RemoteSigner

Answer = Response | Submission | Failure


class Asker:
    """notary: handle of the `Notary` actor; schemes: hotkey -> crypto_type, of the keys that it holds."""

    def __init__(self, notary: Any, schemes: Mapping[str, int], settings: Client) -> None:
        self._signers = {hotkey: RemoteSigner(notary, hotkey, scheme) for hotkey, scheme in schemes.items()}
        self._settings = settings
        self._clients: dict[str, WireClient] = {}

    async def ready(self) -> bool:
        """Answers once the constructor is through."""
        return True

    async def ask(self, tasks: Sequence[Task], axons: Mapping[str, str]) -> AsyncIterator[Answer]:
        """The answer to each of `tasks` once, as they come. axons: miner's hotkey -> "ip:port"."""
        by_validator: dict[str, list[Task]] = {}
        for task in tasks:
            by_validator.setdefault(task.validator, []).append(task)
        queue: asyncio.Queue[Answer | None] = asyncio.Queue()

        async def of(validator: str, mine: list[Task]) -> None:
            left = {task.task_id: task for task in mine}
            try:
                client = await self._client(validator)
                async for answer in client.ask_each(mine, axons):
                    left.pop(answer.item_id if isinstance(answer, Failure) else answer.task_id)
                    await queue.put(answer)
            except Exception as error:  # whatever it was, each task still has its one answer
                for task in left.values():
                    await queue.put(
                        Failure(task.task_id, task.hotkey, Reason.CANCELLED, f"{type(error).__name__}: {error}")
                    )
            finally:
                await queue.put(None)

        running = [asyncio.create_task(of(validator, mine)) for validator, mine in by_validator.items()]
        try:
            ended = 0
            while ended < len(running):
                answer = await queue.get()
                if answer is None:
                    ended += 1
                else:
                    yield answer
        finally:
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _client(self, validator: str) -> WireClient:
        """The validator's client; connections are kept from round to round."""
        if validator not in self._clients:
            client = WireClient(self._signers[validator], self._settings)
            await client.__aenter__()
            self._clients[validator] = client
        return self._clients[validator]
