"""The server of a job's miners: the actor that listens, the addresses to publish, whether they can be reached.

In: the fleet, the hotkeys. Out: a `WireFrontend` actor that listens; "ip:port" by hotkey. `run` and `mine` both use it.
Waits for: the ports, at most `cluster.start_timeout_s`; an answer through the published address, at most `LIMIT_S`.
Knows nothing of the chain or of how a question is answered.
"""

import ipaddress
import json
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raytensor.config import MinersJob, MinersWire
from raytensor.config.checks import is_publishable
from raytensor.errors import ClusterError, ConfigError, cause_of
from raytensor.miners.fleet import Fleet
from raytensor.miners.serving import Traffic, WireFrontend, node_ip
from raytensor.types import Metagraph
from raytensor.wire.endpoints import url

LIMIT_S = 5.0
FRONT_CPUS = 0.1
EVERYWHERE = ("0.0.0.0", "::")


class Front:
    """Started by the constructor; `close` ends it.

    hotkeys  of the miners (ss58), in the order of their ports.
    answers  hotkey -> the hotkey whose model answers for it.

    addresses  "ip:port" by hotkey, as the chain writes it.

    Raises `ClusterError` when the ports can't be opened, `ConfigError` when the address can't be published.
    """

    def __init__(
        self, cfg: MinersJob, fleet: Fleet, hotkeys: Sequence[str], answers: Mapping[str, str] | None = None
    ) -> None:
        wire = cfg.miners.wire
        self.ip = own_ip(wire)
        # On this node, whose address is published.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        factory: Any = ray.remote(WireFrontend)
        self._actor = factory.options(num_cpus=FRONT_CPUS, scheduling_strategy=here).remote(list(hotkeys), cfg, answers)
        try:
            self.ports: dict[str, int] = ray.get(self._actor.start.remote(), timeout=cfg.cluster.start_timeout_s)
            self._ids = frozenset(ray.get(self._actor.server_ids.remote(), timeout=LIMIT_S))
        except (RayError, OSError, TimeoutError) as error:
            ray.kill(self._actor)
            what = f"the miners' ports from miners.wire.port={wire.port} on could not be opened on {wire.host}"
            fix = "another miners.wire.port, or 0 for free ones"
            raise ClusterError(f"{what}: {cause_of(error)}\n  fix: {fix}") from error
        fleet.serve_through(self._actor)
        self.addresses = {hotkey: f"{bracketed(self.ip)}:{port}" for hotkey, port in self.ports.items()}

    def update(self, metagraph: Metagraph) -> None:
        """Use this snapshot of a subnet to decide who may ask; returns at once."""
        self._actor.update.remote(metagraph)

    def traffic(self) -> Traffic | None:
        """What was asked so far; None when the actor does not answer."""
        try:
            return ray.get(self._actor.traffic.remote(), timeout=LIMIT_S)
        except (RayError, TimeoutError):
            return None

    def unreachable(self) -> str:
        """Why a request through the published addresses does not reach this server; "" when it does."""
        for port in sorted(set(self.ports.values())):
            try:
                answer = _get(f"{url(self.ip, port)}/health", 4096)
                found = json.loads(answer).get("server")
            except (OSError, ValueError, AttributeError) as error:
                return f"{bracketed(self.ip)}:{port} does not answer: {cause_of(error)}"
            if found not in self._ids:
                return f"another server answers at {bracketed(self.ip)}:{port}"
        return ""

    def close(self) -> None:
        """Close the ports."""
        with suppress(RayError, TimeoutError):  # it ends with its process
            ray.get(self._actor.stop.remote(), timeout=5)
        ray.kill(self._actor)


def own_ip(wire: MinersWire) -> str:
    """The address to publish: miners.wire.ip, what ip_from answers, the host, or this node's. Raises `ConfigError`."""
    if wire.ip is not None:
        return wire.ip
    if wire.ip_from is not None:
        try:
            text = _get(wire.ip_from, 64).decode("ascii", "replace").strip()
        except OSError as error:
            raise ConfigError(
                f"miners.wire.ip_from={wire.ip_from!r}: {cause_of(error)}; or set miners.wire.ip"
            ) from None
        if not is_publishable(text):
            raise ConfigError(f"miners.wire.ip_from={wire.ip_from!r} answered {text!r}; set miners.wire.ip")
        return text
    if wire.host in EVERYWHERE:
        return node_ip()
    if not is_publishable(wire.host):
        what = f"miners.wire.host={wire.host!r}: nothing outside can reach it, and no other address was given"
        raise ConfigError(f"{what}\n  fix: miners.wire.host=0.0.0.0, or miners.wire.ip with the address to publish")
    return wire.host


def bracketed(ip: str) -> str:
    """An address as the chain's readers write it before a port: IPv6 in brackets."""
    parsed = ipaddress.ip_address(ip)
    return f"[{parsed}]" if parsed.version == 6 else str(parsed)


def _get(address: str, most: int) -> bytes:
    """The first `most` bytes of an answer, within `LIMIT_S` for each step; no proxy is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(address, headers={"User-Agent": "raytensor"})
    with opener.open(request, timeout=LIMIT_S) as answer:
        return answer.read(most)
