"""A whole network: brought up, played, summed up, taken down.

In: a `RunConfig`. Out: a run folder with events, summary, report and checkpoints.
Waits for: the chain process, the neurons' registration and the actors' constructors, each with a time-out of its own.
The start is three things side by side: the chain and its neurons (a thread), Ray, and the text.
Heavy packages are imported after the first line is on the screen.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytensor import __version__
from raytensor.config import RunConfig
from raytensor.errors import ChainUnavailable, RunError
from raytensor.telemetry import events
from raytensor.telemetry.runfolder import RunFolder

Show = Callable[[events.Event], None]

# Settings that may differ between the process that began a run and the one that goes on from it.
MAY_CHANGE = {"rounds", "resume", "dry_run", "paths", "cluster", "tracker"}


@dataclass(frozen=True)
class Identity:
    """A neuron of the run. Keys are development keys, derived from the run's seed."""

    name: str
    role: str  # owner | validator | miner
    hotkey_uri: str
    coldkey_uri: str
    behaviour: str = ""
    stake_tao: float = 0.0


def identities(cfg: RunConfig) -> list[Identity]:
    """The owner, the validators and the miners of a run, in the order in which they register."""
    base = f"//raytensor//{cfg.seed}"
    profiles = cfg.miners.profiles

    def make(role: str, number: int, **more: Any) -> Identity:
        uri = f"{base}//{role}//{number}"
        return Identity(f"{role}-{number}", role, f"{uri}//hot", f"{uri}//cold", **more)

    validators = [
        make("validator", n, stake_tao=cfg.validators.stake_tao * cfg.validators.stake_ratio**n)
        for n in range(cfg.validators.num_validators)
    ]
    miners = [make("miner", n, behaviour=profiles[n % len(profiles)].behaviour) for n in range(cfg.miners.num_miners)]
    return [make("owner", 0), *validators, *miners]


class Network:
    """Everything of a run that must be started and ended. A context manager; leaving it ends all of it, in reverse.

    Raises `RayTensorError` from `__enter__` when a part can't start; what had started is ended first.
    """

    def __init__(self, cfg: RunConfig, folder: RunFolder, show: Show) -> None:
        self.cfg, self.folder, self.show = cfg, folder, show
        self.first_round = 1
        self._stack = ExitStack()

    def __enter__(self) -> Network:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ------------------------------------------------------------------------------------------------------ start

    def _phase(self, text: str) -> None:
        self.show(events.Phase(text=text))

    def _start(self) -> None:
        cfg = self.cfg
        state = self._resume_state()
        self._phase("starting the chain and Ray (Ray takes about 7 s)" if not cfg.chain.endpoint else "starting Ray (about 7 s)")
        side = self._stack.enter_context(ThreadPoolExecutor(max_workers=1, thread_name_prefix="chain-start"))
        chain_up: Future[Any] = side.submit(self._start_chain)

        from raytensor import cluster
        from raytensor.network_roles import needs

        started = time.monotonic()
        self._stack.callback(cluster.disconnect)
        local = cluster.connect(cfg.cluster)
        cluster.check(needs(cfg))
        self._phase(f"{'Ray started' if local else 'joined the Ray cluster'} in {time.monotonic() - started:.1f} s; preparing the text")

        from raytensor.data.text import prepare

        self.text = prepare(cfg.data, Path(cfg.paths.cache), self._phase)
        self.neurons = identities(cfg)
        self._phase("starting miners and scorers")
        self._start_actors(state)
        self.subnet = self._chain_result(chain_up)
        self._start_chain_actor()
        self._announce()

    def _resume_state(self) -> dict[str, Any] | None:
        """The state of an earlier process. Raises `RunError` when this configuration is not the one that it began with."""
        mine = {key: value for key, value in dataclasses.asdict(self.cfg).items() if key not in MAY_CHANGE}
        state = self.folder.load_state() if self.folder.resuming else None
        if state is not None:
            differs = [key for key in mine if state["config"].get(key) != mine[key]]
            if differs:
                raise RunError(
                    f"{self.folder.path} was begun with other settings in: {', '.join(differs)} (see its config.yaml)\n"
                    f"  fix: give the same settings again, or take another name"
                )
            self.first_round = int(state["round"]) + 1
        self._config_of_state = mine
        return state

    def _start_chain(self) -> Any:
        """In a thread: the chain process, then a subnet with all neurons on it. A subnet that is there is found again."""
        from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
        from raytensor.chain.client import ChainClient
        from raytensor.chain.wallet import DevKey
        from raytensor.devnet.launch import EmbeddedChain

        cfg = self.cfg
        self.endpoint = cfg.chain.endpoint or ""
        self.chain_process: EmbeddedChain | None = None
        if not cfg.chain.endpoint:
            self.chain_process = EmbeddedChain(self.folder.path / "chain", cfg.chain.block_time_s, self.folder.path / "chain.log")
            self._stack.callback(self.chain_process.close)
            self.endpoint = self.chain_process.endpoint
        neurons = tuple(
            Neuron(who.name, who.role, DevKey(who.hotkey_uri), DevKey(who.coldkey_uri), stake_rao=int(who.stake_tao * 10**9))
            for who in identities(cfg)
        )
        with ChainClient(self.endpoint, cfg.chain.timeout_s) as client:
            self.spec_version = client.spec_version
            return make_subnet(client, SubnetSpec(neurons=neurons, tempo=cfg.chain.tempo), progress=self._phase)
