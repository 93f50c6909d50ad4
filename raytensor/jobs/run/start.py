"""Starts the parts of a run that work on Ray: miners' hosts, scorers, records, the loop, and takes over the chain.

In: a `RunConfig`, identities, the chain that is starting. Out: `Running`; each part ends with the exit stack.
Waits for: the actors' constructors, each with a time-out. The chain starts side by side with Ray and the text.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raytensor import cluster
from raytensor.chain.calls import Intent
from raytensor.chain.reads.follower import Follower, Observer, Reads
from raytensor.chain.writer.actor import writer_actor
from raytensor.chain.writer.settings import WriterSettings
from raytensor.config import RunConfig
from raytensor.data.text import Text, prepare
from raytensor.jobs.handover import Handover
from raytensor.jobs.mine.axons import AxonPublisher
from raytensor.jobs.mine.front import Front
from raytensor.jobs.run.chain_start import ChainStart, ChainUp
from raytensor.jobs.run.loop import SPEC, RunLoop, Show
from raytensor.jobs.run.plan import CHAIN_ACTOR_CPUS, Identity, delegate
from raytensor.jobs.writer import JobWriter
from raytensor.mechanisms import base
from raytensor.miners.fleet import Fleet
from raytensor.pool import Pool
from raytensor.telemetry import events
from raytensor.telemetry.metrics import Meters
from raytensor.telemetry.runfolder import RunFolder
from raytensor.types import Metagraph, Receipt
from raytensor.validators.evidence_log import Keep
from raytensor.validators.records import Records
from raytensor.validators.round import Round, RoundParts
from raytensor.validators.scorer import MechanismSpec
from raytensor.validators.scorer_service import ScorerService, make_pool
from raytensor.validators.transport import InCluster

WHO_MAY_ASK_S = 60.0  # between two metagraphs, which say who may ask
CHAIN_BLOCK_S = 12.0  # of a chain that is not the run's own


@dataclass(frozen=True)
class Running:
    """The parts of a run that has started."""

    netuid: int
    fleet: Fleet
    records: Records
    loop: RunLoop
    handover: Handover
    follower: Follower


class Starter:
    """Starts a run.

    resumed_from  round whose checkpoints the run continues after; None begins anew.
    stack         ends each part that has started.
    """

    def __init__(
        self,
        cfg: RunConfig,
        folder: RunFolder,
        neurons: Sequence[Identity],
        resumed_from: int | None,
        show: Show,
        stack: ExitStack,
    ) -> None:
        self._cfg, self._folder, self._neurons, self._resumed_from = cfg, folder, neurons, resumed_from
        self._show, self._stack = show, stack
        self._files = base.needs(cfg.mechanism).asks_for_files
        self._validators = tuple(who.ss58 for who in neurons if who.role == "validator")
        self._miners = tuple(who.ss58 for who in neurons if who.role == "miner")

    def start(self, chain: ChainStart, num_hosts: int) -> Running:
        """Start everything, with Ray connected. Raises `RayTensorError` when a part can't start."""
        cfg = self._cfg
        text = prepare(cfg.data, Path(cfg.paths.cache), self._phase)
        self._phase("starting the miners' hosts and the scorers")
        spec = MechanismSpec(cfg.mechanism, text.log_unigram, text.vocab_size, cfg.validators.deadline_s)
        mechanism = spec.load()
        mechanism.start(cfg.seed, (self._resumed_from or 0) + 1)
        fleet = self._start_fleet(text, num_hosts)

        def new_pool() -> Pool:
            return make_pool({SPEC: spec}, cfg.validators, cfg.cluster.torch_threads)

        scorers = self._stack.enter_context(ScorerService(new_pool, cfg.validators, threaded=False))
        up = chain.result()
        netuid = up.subnet.netuid
        writer = self._start_writer(up.endpoint)
        fleet.wait_ready(cfg.cluster.start_timeout_s)
        for setback in fleet.incidents():
            self._show(events.Warned(text=setback))
        follower = self._follow(up.endpoint, netuid)
        if cfg.miners.wire.enabled:
            self._publish_axons(fleet, up.endpoint, netuid, writer, follower)
        keep, after = Keep.of(cfg.validators), self._resumed_from
        records = Records.at_round(
            self._folder.path, netuid, self._validators, spec, mechanism, keep, after_round=after
        )
        self._stack.callback(records.close)
        cursor, _ = ray.get(writer.actor.receipts_since.remote(None), timeout=cfg.cluster.start_timeout_s)
        handover = Handover(writer.actor, self._show, cursor, receipts_every_s=0.2, revive=writer.revive)
        round = Round(RoundParts(SPEC, mechanism, text, records, InCluster(fleet), scorers))
        seen = partial(follower.seen, netuid)
        loop = RunLoop(cfg, netuid, self._miners, round, fleet, handover, seen, self._show)
        self._announce(up)
        return Running(netuid, fleet, records, loop, handover, follower)

    def _phase(self, text: str) -> None:
        self._show(events.Phase(text=text))

    def _start_fleet(self, text: Text, num_hosts: int) -> Fleet:
        folder, after = self._folder.checkpoints, self._resumed_from
        fleet = Fleet(self._cfg, self._miners, text, num_hosts=num_hosts, folder=folder, resume_round=after)
        self._stack.callback(fleet.close)
        return fleet

    def _start_writer(self, endpoint: str) -> JobWriter:
        cfg = self._cfg
        # On the node of this process: the embedded chain listens on its loopback address only.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Miners' keys too, where they publish something: one writer has all keys of a run.
        roles = ("validator", "miner") if cfg.miners.wire.enabled or self._files else ("validator",)
        keys = {who.ss58: who.hotkey for who in self._neurons if who.role in roles}
        settings = WriterSettings(timeout_s=cfg.chain.timeout_s, inclusion_timeout_s=cfg.chain.inclusion_timeout_s)
        journal = self._folder.path / "journal.sqlite"
        options = {"num_cpus": CHAIN_ACTOR_CPUS, "scheduling_strategy": here}

        def make(wait_s: float) -> Any:
            given = {"delegate": delegate(cfg), "exclusive_wait_s": wait_s, "options": options}
            return writer_actor(endpoint, keys, journal, settings, **given)

        writer = JobWriter(make, self._show, Meters())
        self._stack.callback(writer.close)
        cluster.wait_ready({"the chain actor": writer.actor.ready.remote()}, timeout_s=cfg.cluster.start_timeout_s)
        return writer

    def _publish_axons(self, fleet: Fleet, endpoint: str, netuid: int, writer: JobWriter, follower: Follower) -> None:
        """Serve the miners, and publish their addresses as soon as the subnet was read."""
        cfg, chain = self._cfg, self._cfg.chain
        limit_s = chain.inclusion_timeout_s + 2 * chain.timeout_s

        def submit(intents: Sequence[Intent]) -> list[Receipt]:
            return ray.get(writer.actor.submit.remote(intents), timeout=limit_s)

        front = Front(cfg, fleet, self._miners)
        self._stack.callback(front.close)
        checks, read = cfg.miners.wire.check_reachable, partial(_metagraph, follower)
        publisher = AxonPublisher(
            front, endpoint, [netuid], read, submit, self._phase, check_reachable=checks, timeout_s=chain.timeout_s
        )
        self._stack.callback(publisher.close)
        publisher.start()

    def _follow(self, endpoint: str, netuid: int) -> Follower:
        fix = "it is asked again until it does"
        observer = Observer(
            on_block=lambda _, tick: self._show(events.BlockSeen(tick.block, tick.tempo, tick.blocks_until_epoch)),
            on_epoch=lambda metagraph: self._show(events.EpochSeen.of(metagraph)),
            on_silence=lambda why: self._show(events.Warned(text=f"the chain does not answer: {why}", fix=fix)),
        )
        chain, served = self._cfg.chain, self._cfg.miners.wire.enabled
        block_s = CHAIN_BLOCK_S if chain.endpoint else chain.block_time_s
        refresh = max(1, int(WHO_MAY_ASK_S / block_s)) if served else None
        reads = Reads(refresh_blocks=refresh, commitments="block" if self._files else None)
        follower = Follower(endpoint, [netuid], reads, observer, timeout_s=self._cfg.chain.timeout_s)
        self._stack.callback(follower.close)
        follower.start()
        return follower

    def _announce(self, up: ChainUp) -> None:
        uids, neurons, chain = up.subnet.uids, self._neurons, self._cfg.chain
        known = [events.NeuronInfo(uids[one.ss58], one.ss58, one.role, one.behaviour, one.name) for one in neurons]
        at = up.endpoint, up.subnet.netuid, up.spec_version
        self._show(events.NetworkUp(*at, chain.tempo, tuple(known), chain.weights_every, up.subnet.costs_rao))


def _metagraph(follower: Follower, netuid: int) -> Metagraph | None:
    return follower.seen(netuid).metagraph
