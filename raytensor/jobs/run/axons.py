"""Serves a run's miners over HTTP, publishes their axons, refreshes the metagraph that decides who may ask.

In: the fleet, the subnet, an endpoint, the chain writer. Out: a `WireFrontend` that listens, axons on the chain.
Waits for: the ports, and for the extrinsics to be in a block. Knows nothing of how a question is answered.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raytensor.chain.calls import Intent
from raytensor.chain.intents import ServeAxon
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.config import RunConfig
from raytensor.errors import ChainError, ClusterError, cause_of
from raytensor.miners.fleet import Fleet
from raytensor.miners.serving import WireFrontend, node_ip
from raytensor.types import Metagraph, Receipt

REFRESH_S = 60.0  # between two reads of the metagraph, which says who may ask
Submit = Callable[[Sequence[Intent]], list[Receipt]]


class AxonPublisher:
    """Started by the constructor; `close` ends it.

    hotkeys    of the miners (ss58), in the order of their ports.
    submit     gives intents to the writer that has the miners' keys, and returns their receipts.
    say        receives a line for each thing that happened or failed.

    addresses  "ip:port" by hotkey.

    Raises `ClusterError` when the ports can't be opened.
    """

    def __init__(
        self,
        cfg: RunConfig,
        fleet: Fleet,
        endpoint: str,
        netuid: int,
        hotkeys: Sequence[str],
        submit: Submit,
        say: Callable[[str], None],
    ) -> None:
        self._cfg, self._endpoint, self._netuid, self._say = cfg, endpoint, netuid, say
        # On this node, whose address is published.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        factory: Any = ray.remote(WireFrontend)
        self._front = factory.options(num_cpus=0.1, scheduling_strategy=here).remote(list(hotkeys), cfg)
        wire = cfg.miners.wire
        try:
            ports: dict[str, int] = ray.get(self._front.start.remote(), timeout=cfg.cluster.start_timeout_s)
        except (RayError, OSError, TimeoutError) as error:
            ray.kill(self._front)
            what = f"the miners' ports from miners.wire.port={wire.port} on could not be opened on {wire.host}"
            fix = "another miners.wire.port, or 0 for free ones"
            raise ClusterError(f"{what}: {cause_of(error)}\n  fix: {fix}") from error
        fleet.serve_through(self._front)
        ip = wire.ip or node_ip()
        self._stopped = threading.Event()
        self.addresses = {hotkey: f"{ip}:{port}" for hotkey, port in ports.items()}
        self._publish(ip, ports, submit)
        self._thread = threading.Thread(target=self._refresh, name="wire-view", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the ports. The axons stay on the chain."""
        self._stopped.set()
        self._thread.join(timeout=5)
        with suppress(RayError, TimeoutError):  # it ends with its process
            ray.get(self._front.stop.remote(), timeout=5)
        ray.kill(self._front)

    def _publish(self, ip: str, ports: dict[str, int], submit: Submit) -> None:
        with ChainClient(self._endpoint, self._cfg.chain.timeout_s) as client:
            metagraph = self._read(client)
            known = dict(zip(metagraph.hotkeys, metagraph.axons, strict=True))
            changed = [hotkey for hotkey in ports if known.get(hotkey) != self.addresses[hotkey]]
        receipts = submit([ServeAxon(signer=one, netuid=self._netuid, ip=ip, port=ports[one]) for one in changed])
        if failed := [receipt for receipt in receipts if not receipt.fate.done]:
            why = f"{failed[0].error} ({failed[0].action})"
            self._say(f"the miners listen, but {len(failed)} of {len(ports)} axons were not published: {why}")
            return
        listed = sorted(self.addresses.values())
        where = listed[0] if len(listed) == 1 else f"{listed[0]} .. {listed[-1]}"
        self._say(f"{len(ports)} miners answer signed HTTP at {where}; their axons are on the chain")

    def _read(self, client: ChainClient) -> Metagraph:
        metagraph = read_metagraph(client, self._netuid, with_weights=False)
        self._front.update.remote(metagraph)
        return metagraph

    def _refresh(self) -> None:
        chain, every_s = self._cfg.chain, REFRESH_S
        if not chain.endpoint:  # permits change at epochs: on a fast chain that is more often than once a minute
            every_s = min(REFRESH_S, max(1.0, chain.tempo * chain.block_time_s / 2))
        while not self._stopped.wait(every_s):
            try:
                with ChainClient(self._endpoint, chain.timeout_s) as client:
                    self._read(client)
            except ChainError as error:
                self._say(f"who may ask the miners could not be read again: {error}")
