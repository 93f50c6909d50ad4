"""Asks miners over signed HTTP, in a process without keys. A plain class; an actor where it is used.

In: tasks of its validators, and the addresses of their miners. Out: the answer to each task as it arrives. This is the
only process of a validator that parses what miners send; a `Notary` signs for it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from raytensor.config.wire import Client
from raytensor.types import Failure, Reason, Task
from raytensor.wire.client import Addresses, Answer, WireClient
from raytensor.wire.notary import RemoteSigner


class Asker:
    """notary: handle of the `Notary` actor; schemes: hotkey -> crypto_type of each key that it holds."""

    def __init__(self, notary: Any, schemes: Mapping[str, int], settings: Client) -> None:
        self._signers = {hotkey: RemoteSigner(notary, hotkey, scheme) for hotkey, scheme in schemes.items()}
        self._settings, self._addresses = settings, Addresses(settings)
        self._clients: dict[str, WireClient] = {}

    async def ready(self) -> bool:
        """Returns when the constructor has finished."""
        return True

    async def ask(self, tasks: Sequence[Task], axons: Mapping[str, str]) -> AsyncIterator[Answer]:
        """One answer to each of `tasks`, as they arrive. axons: hotkey of a miner -> "ip:port"."""
        by_validator: dict[str, list[Task]] = {}
        for task in tasks:
            by_validator.setdefault(task.validator, []).append(task)
        queue: asyncio.Queue[Answer | None] = asyncio.Queue()

        async def ask_of(validator: str, mine: list[Task]) -> None:
            unanswered = {task.task_id: task for task in mine}
            try:
                client = await self._client(validator)
                async for answer in client.ask_each(mine, axons):
                    unanswered.pop(answer.item_id if isinstance(answer, Failure) else answer.task_id)
                    await queue.put(answer)
            except Exception as error:  # the edge of this actor: each task gets its one answer, whatever failed
                detail = f"{type(error).__name__}: {error}"
                for task in unanswered.values():
                    await queue.put(Failure(task.task_id, task.hotkey, Reason.CANCELLED, detail))
            finally:
                await queue.put(None)

        running = [asyncio.create_task(ask_of(validator, mine)) for validator, mine in by_validator.items()]
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
        """The client of a validator; its connections stay open between rounds."""
        if validator not in self._clients:
            client = WireClient(self._signers[validator], self._settings, addresses=self._addresses)
            await client.__aenter__()
            self._clients[validator] = client
        return self._clients[validator]
