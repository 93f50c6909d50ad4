"""A run's miners, reachable from elsewhere: their door is opened, its ports are published, its view of the subnet is kept
fresh.

In: the fleet, the subnet, an endpoint, the miners' hotkeys. Out: an open `Front`, axons on the chain. Waits for: the
ports, and for the extrinsics to be in a block. Knows nothing of how a question is answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raytensor.config import RunConfig
from raytensor.errors import ChainError, ClusterError

if TYPE_CHECKING:
    from raytensor.chain.wallet import Signer
    from raytensor.miners.fleet import Fleet

REFRESH_S = 60.0  # between two looks at who may ask


class Door:
    """Opened by the constructor; `close` ends it.

    signers  the miners' hotkeys by address; they sign the publication here and are not kept.
    say      is told, a line each, what happened and what went wrong.
    """

    def __init__(
        self,
        cfg: RunConfig,
        fleet: Fleet,
        endpoint: str,
        netuid: int,
        signers: dict[str, Signer],
        say: Callable[[str], None],
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from raytensor.miners.serving import Front, node_ip

        self._cfg, self._endpoint, self._netuid, self._say = cfg, endpoint, netuid, say
        # On this node: its address is the one that is published.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._front: Any = ray.remote(Front).options(num_cpus=0.1, scheduling_strategy=here).remote(list(signers), cfg)
        timeout_s = cfg.cluster.start_timeout_s
        try:
            ports = ray.get(self._front.start.remote(), timeout=timeout_s)
        except (ray.exceptions.RayError, OSError, TimeoutError) as error:
            ray.kill(self._front)
            raise ClusterError(
                f"the miners' ports from miners.wire.port={cfg.miners.wire.port} on could not be opened on {cfg.miners.wire.host}: {_last_line(error)}\n  fix: another miners.wire.port, or 0 for free ones"
            ) from error
        fleet.open_to(self._front)
        ip = cfg.miners.wire.ip or node_ip()
        self._stopped = threading.Event()
        self.addresses = {hotkey: f"{ip}:{port}" for hotkey, port in ports.items()}
        self._publish(ip, ports, signers)
        self._thread = threading.Thread(target=self._refresh, name="wire-view", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the ports. The axons stay on the chain, as those of a miner that is down do."""
        import ray

        self._stopped.set()
        self._thread.join(timeout=5)
        try:
            ray.get(self._front.stop.remote(), timeout=5)
        except (ray.exceptions.RayError, TimeoutError):
            pass  # it ends with its process
        ray.kill(self._front)

    def _publish(self, ip: str, ports: dict[str, int], signers: dict[str, Signer]) -> None:
        from raytensor.chain.calls import ServeAxon
        from raytensor.chain.client import ChainClient
        from raytensor.chain.step import Step

        with ChainClient(self._endpoint, self._cfg.chain.timeout_s) as client:
            metagraph = self._look(client)
            known = dict(zip(metagraph.hotkeys, metagraph.axons, strict=True))
            changed = [hotkey for hotkey in ports if known.get(hotkey) != self.addresses[hotkey]]
            try:
                step = Step(client, self._cfg.chain.inclusion_timeout_s)
                for hotkey in changed:
                    step.add(
                        signers[hotkey], ServeAxon(signer=hotkey, netuid=self._netuid, ip=ip, port=ports[hotkey]).call()
                    )
                step.run()
            except ChainError as error:
                self._say(f"the miners listen, but the chain does not say where: {error}")
                return
        listed = sorted(self.addresses.values())
        self._say(
            f"{len(ports)} miners answer signed HTTP at {listed[0]}{' .. ' + listed[-1] if len(listed) > 1 else ''}; their axons are on the chain"
        )

    def _look(self, client: Any) -> Any:
        from raytensor.chain.metagraph import read_metagraph

        metagraph = read_metagraph(client, self._netuid, with_weights=False)
        self._front.update.remote(metagraph)
        return metagraph

    def _refresh(self) -> None:
        from raytensor.chain.client import ChainClient

        # Permits are given at epochs: on a fast chain that is more often than once a minute.
        every_s = (
            min(REFRESH_S, max(1.0, self._cfg.chain.tempo * self._cfg.chain.block_time_s / 2))
            if not self._cfg.chain.endpoint
            else REFRESH_S
        )
        while not self._stopped.wait(every_s):
            try:
                with ChainClient(self._endpoint, self._cfg.chain.timeout_s) as client:
                    self._look(client)
            except ChainError as error:
                self._say(f"who may ask the miners could not be read again: {error}")


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
