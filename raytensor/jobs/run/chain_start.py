"""The first part of a run's start: the chain process with the subnet and all neurons, and Ray.

In: a `RunConfig`, identities with their keys. Out: a `ChainUp`. A subnet that exists already is found again, so a
run can be resumed.
Waits for: the chain process and the registrations, together at most `START_S`.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import ray

from raytensor import cluster
from raytensor.chain.bootstrap import Neuron, Subnet, SubnetSpec, make_subnet
from raytensor.chain.rpc.client import ChainClient
from raytensor.config import RunConfig
from raytensor.devnet.launch import EmbeddedChain
from raytensor.errors import ChainUnavailable
from raytensor.jobs.run.plan import Identity, delegate, needs
from raytensor.supervised import run_once

RAO = 10**9
PROCESS_S = 15.0  # for the chain process to be up, when it is to be ended
START_S = 180.0  # to open the subnet and register everyone, on a chain with 12 s blocks, too


@dataclass(frozen=True)
class ChainUp:
    """A chain with the run's subnet on it."""

    endpoint: str
    spec_version: int
    subnet: Subnet


class ChainStart:
    """Starts the chain in a thread; `result` waits for it.

    folder  of the run. phase: receives what is done now. stack: ends the chain process, if one is started.
    """

    def __init__(
        self, cfg: RunConfig, folder: Path, neurons: Sequence[Identity], phase: Callable[[str], None], stack: ExitStack
    ) -> None:
        self._cfg, self._folder, self._neurons, self._phase = cfg, folder, neurons, phase
        self._future: Future[ChainUp] = Future()
        self._process: EmbeddedChain | None = None
        self._process_known = threading.Event()
        stack.callback(self._end)
        run_once("chain-start", self._run).start()

    def result(self) -> ChainUp:
        """The chain, once all neurons are registered. Raises what the start raised, or `ChainUnavailable`."""
        try:
            return self._future.result(timeout=START_S)
        except FutureTimeout as error:
            where = self._cfg.chain.endpoint or "the embedded chain"
            raise ChainUnavailable(f"the subnet was not ready on {where} within {START_S:.0f} s") from error

    def make_blocks(self, count: int) -> None:
        """Let the run's own chain make `count` blocks at once, so that nobody waits for them."""
        if self._process is not None:
            with ChainClient(self._process.endpoint, self._cfg.chain.timeout_s) as client:
                client.rpc("dev_newBlock", [{"count": count}])

    def _run(self) -> None:
        try:
            self._future.set_result(self._start())
        except BaseException as error:  # the thread's edge: it is raised where the result is awaited
            self._future.set_exception(error)
        finally:
            self._process_known.set()

    def _end(self) -> None:
        """End the chain process. One that is still starting is waited for: later it would write into the folder."""
        if not self._cfg.chain.endpoint:
            self._process_known.wait(PROCESS_S)
        if self._process is not None:
            self._process.close()

    def _start(self) -> ChainUp:
        cfg = self._cfg
        endpoint = cfg.chain.endpoint or self._start_embedded()
        known = [(who, int(who.stake_tao * RAO)) for who in self._neurons]
        neurons = [Neuron(who.name, who.role, who.hotkey, who.coldkey, stake_rao=stake) for who, stake in known]
        spec = SubnetSpec(neurons=neurons, tempo=cfg.chain.tempo, delegate=delegate(cfg))
        with ChainClient(endpoint, cfg.chain.timeout_s) as client:
            return ChainUp(endpoint, client.spec_version, make_subnet(client, spec, progress=self._phase))

    def _start_embedded(self) -> str:
        folder = self._folder
        self._process = EmbeddedChain(folder / "chain", self._cfg.chain.block_time_s, folder / "chain.log")
        self._process_known.set()
        return self._process.endpoint


def start_ray(cfg: RunConfig, phase: Callable[[str], None], stack: ExitStack) -> int:
    """Start or join Ray; the number of miners' hosts. Raises `ClusterError` when the cluster can't hold the run."""
    started = time.monotonic()
    stack.callback(cluster.disconnect)
    how = "Ray started" if cluster.connect(cfg.cluster) else "joined the Ray cluster"
    roles = needs(cfg, ray.cluster_resources())
    cluster.check(roles, cfg=cfg.cluster)
    phase(f"{how} in {time.monotonic() - started:.1f} s; preparing the text")
    return roles[0].count
