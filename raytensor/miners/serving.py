"""Serves a run's miners to validators elsewhere: signed HTTP for each hotkey, answered by the miner's own host.

In: requests on the wire, hosts by hotkey, metagraph snapshots. Out: the hosts' answers. One actor listens for all
hotkeys, each on its own port; it holds addresses only, never a private key. A question goes to the host's "serving"
concurrency group, so it waits for at most one training step. A prompt is one question per token. Waits for and bounds:
those of the wire's server; a question at most its own deadline. Knows nothing of the chain: the caller publishes the
ports and supplies the snapshots.
"""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from raytensor.config import RunConfig
from raytensor.data import corpus, tokenizer
from raytensor.miners.completion import complete
from raytensor.miners.gauges import Gauges
from raytensor.types import Failure, Metagraph, Reason, Response, Task
from raytensor.wire.codec import Prompt
from raytensor.wire.server import WireServer


class WireFrontend:
    """Serves `hotkeys` once `start` has returned. `route` sets which host answers, `update` who may ask.

    run  settings; the ports are miners.wire.port and the next ones, in the order of `hotkeys`.
    """

    def __init__(self, hotkeys: Sequence[str], run: RunConfig) -> None:
        cfg = run.miners.wire
        self._context = run.miners.seq_len
        # It is in the cache of this node, where the run's text was prepared.
        data, cache = run.data, Path(run.paths.cache).expanduser()
        key, text = corpus.fingerprint(data), partial(corpus.documents, data, heldout=False)
        self._coder = tokenizer.load(data.tokenizer, data.vocab_size, key, text, cache)
        self._hosts: dict[str, Any] = {}
        self._gauges = Gauges("wire")
        self._servers: dict[str, WireServer] = {}
        for place, hotkey in enumerate(hotkeys):
            own = dataclasses.replace(cfg, port=cfg.port + place if cfg.port else 0)
            self._servers[hotkey] = WireServer(hotkey, self._ask, own, complete=self._complete)

    def route(self, hotkeys: Sequence[str], host: Any) -> None:
        """Send questions to these hotkeys to `host` (an actor with `serve`), in place of an earlier one."""
        self._hosts.update(dict.fromkeys(hotkeys, host))

    async def start(self) -> dict[str, int]:
        """Listen. Returns the port of each hotkey. Raises `OSError` when a port is in use."""
        bound = await asyncio.gather(*(server.start() for server in self._servers.values()))
        return {hotkey: port for hotkey, (_, port) in zip(self._servers, bound, strict=True)}

    async def update(self, metagraph: Metagraph) -> None:
        """Use this snapshot of the subnet to decide who may ask."""
        for server in self._servers.values():
            server.update(metagraph)

    async def counts(self) -> dict[str, int]:
        """Numbers of refusals and answers by name, over all hotkeys."""
        total: Counter[str] = Counter()
        for server in self._servers.values():
            total.update(server.gate.counts)
        return dict(total)

    async def stop(self) -> None:
        """Close the ports."""
        await asyncio.gather(*(server.stop(1.0) for server in self._servers.values()))

    def _complete(self, prompt: Prompt) -> AsyncIterator[str]:
        return complete(prompt, self._ask, self._coder, self._context)

    async def _ask(self, task: Task) -> Response | Failure:
        host = self._hosts.get(task.hotkey)
        if host is None:
            return Failure(task.task_id, task.hotkey, Reason.REFUSED, "the miner has not started yet")
        began = asyncio.get_running_loop().time()
        try:
            answer = await host.serve.options(concurrency_group="serving").remote(task)
        except RayTaskError as error:
            answer = Failure(task.task_id, task.hotkey, Reason.ERROR, f"the miner failed: {type(error.cause).__name__}")
        except RayActorError:
            answer = Failure(task.task_id, task.hotkey, Reason.CRASHED, "the miner's host is being replaced")
        self._gauges.answered(answer, asyncio.get_running_loop().time() - began)
        return answer


def node_ip() -> str:
    """The address of this node in the cluster."""
    return ray.util.get_node_ip_address()
