"""Serves miners to validators elsewhere: signed HTTP for each hotkey, answered by the miner's own host.

In: requests on the wire, hosts by hotkey, metagraph snapshots. Out: the hosts' answers. One actor listens for all
hotkeys, on one port or on one each; it holds addresses only, never a private key. A question goes to the host's
"serving" concurrency group, so it waits for at most one training step. Prompts are continued together (`streams`).
Several hotkeys may be answered by the model of one of them. Waits for and bounds: those of the wire's server; a
question at most its own deadline. Knows nothing of the chain: the caller publishes ports and supplies snapshots.
"""

import asyncio
import contextlib
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from raytensor.config import MinersJob
from raytensor.data.text import load_tokenizer
from raytensor.mechanisms import base
from raytensor.miners.completion import complete
from raytensor.miners.gauges import Gauges
from raytensor.miners.streams import RETRY_S, Streams
from raytensor.types import Failure, Metagraph, Reason, Response, Submission, Task
from raytensor.wire.codec import Prompt
from raytensor.wire.server import WireServer


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What a frontend has done so far.

    outcomes  numbers of requests by outcome: "ok", or the name of the refusal.
    callers   numbers of questions by the hotkey of the validator that asked.
    """

    outcomes: dict[str, int]
    callers: dict[str, int]


class WireFrontend:
    """Serves `hotkeys` once `start` has returned. `route` sets which host answers, `update` who may ask.

    job      settings; the ports are miners.wire.port, and the next ones in the order of `hotkeys` unless they share it.
    answers  hotkey -> the hotkey whose model answers for it; a hotkey that is not in it answers for itself.
    """

    def __init__(self, hotkeys: Sequence[str], job: MinersJob, answers: Mapping[str, str] | None = None) -> None:
        cfg = job.miners.wire
        self._answers = dict(answers or {})
        # It is in the cache of this node, where the job's text was prepared.
        self._coder = load_tokenizer(job.data, job.paths.cache)
        self._hosts: dict[str, Any] = {}
        self._asked: Counter[Any] = Counter()  # questions and prompts that a host is answering
        self._streams = Streams(self._hosts.get, self._asked)
        self._gauges = Gauges("wire")
        self._callers: Counter[str] = Counter()
        schemas = base.needs(job.mechanism).schemas
        groups = [list(hotkeys)] if cfg.one_port else [[hotkey] for hotkey in hotkeys]
        self._servers: list[tuple[list[str], WireServer]] = []
        for place, group in enumerate(groups):
            own = dataclasses.replace(cfg, port=cfg.port + place if cfg.port else 0)
            self._servers.append((group, WireServer(group, self._ask, own, complete=self._complete, schemas=schemas)))

    def route(self, hotkeys: Sequence[str], actor: Any) -> None:
        """Send questions to these hotkeys to `actor`, which has `serve`, in place of an earlier one."""
        self._hosts.update(dict.fromkeys(hotkeys, actor))

    async def answered(self, actor: Any, limit_s: float = 120.0) -> None:
        """Return once `actor`, which gets no more questions, has answered those it has; at most `limit_s` later."""
        end = asyncio.get_running_loop().time() + limit_s
        while self._asked[actor._actor_id] and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)

    async def start(self) -> dict[str, int]:
        """Listen. Returns the port of each hotkey. Raises `OSError` when a port is in use."""
        bound = await asyncio.gather(*(server.start() for _, server in self._servers))
        ports = [port for _, port in bound]
        return {hotkey: port for (group, _), port in zip(self._servers, ports, strict=True) for hotkey in group}

    async def server_ids(self) -> list[str]:
        """What /health answers as "server" on the ports of this frontend."""
        return [server.gate.server_id for _, server in self._servers]

    async def update(self, metagraph: Metagraph) -> None:
        """Use this snapshot of a subnet to decide who may ask."""
        for _, server in self._servers:
            server.update(metagraph)

    async def traffic(self) -> Traffic:
        """Requests so far, over all hotkeys."""
        total: Counter[str] = Counter()
        for _, server in self._servers:
            total.update(server.gate.totals())
        return Traffic(dict(total), dict(self._callers))

    async def stop(self) -> None:
        """Close the ports."""
        await asyncio.gather(*(server.stop(1.0) for _, server in self._servers))

    async def _complete(self, prompt: Prompt) -> AsyncIterator[str]:
        self._callers[prompt.validator] += 1
        own, began = self._answers.get(prompt.hotkey, prompt.hotkey), asyncio.get_running_loop().time()
        outcome = "error"
        try:
            async with contextlib.aclosing(complete(prompt, own, self._streams.tokens, self._coder)) as pieces:
                async for piece in pieces:
                    yield piece
            outcome = "answered"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        finally:
            self._gauges.ended(outcome, asyncio.get_running_loop().time() - began)

    async def _ask(self, task: Task) -> Response | Submission | Failure:
        """The answer of the miner's host; a question that finds its host lost waits for the replacement once."""
        self._callers[task.validator] += 1
        own = self._answers.get(task.hotkey, task.hotkey)
        began = asyncio.get_running_loop().time()
        asked = task if own == task.hotkey else dataclasses.replace(task, hotkey=own)
        answer = await self._ask_host(own, asked)
        if own != task.hotkey:
            answer = dataclasses.replace(answer, hotkey=task.hotkey)
        self._gauges.answered(answer, asyncio.get_running_loop().time() - began)
        return answer

    async def _ask_host(self, hotkey: str, task: Task) -> Response | Submission | Failure:
        lost: Any = None
        while True:  # the server's own time-out, the question's deadline, ends the wait
            actor = self._hosts.get(hotkey)
            if actor is None or actor is lost:
                await asyncio.sleep(RETRY_S)
                continue
            self._asked[actor._actor_id] += 1
            try:
                return await actor.serve.options(concurrency_group="serving").remote(task)
            except RayTaskError as error:
                why = f"the miner failed: {type(error.cause).__name__}"
                return Failure(task.task_id, task.hotkey, Reason.ERROR, why)
            except RayActorError:
                if lost is not None:
                    return Failure(task.task_id, task.hotkey, Reason.CRASHED, "the miner's host is being replaced")
                lost = actor
            finally:
                self._asked[actor._actor_id] -= 1


def node_ip() -> str:
    """The address of this node in the cluster."""
    return ray.util.get_node_ip_address()
