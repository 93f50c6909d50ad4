"""The parts of a `validate` job: keys by reference, actors, text, subnets. Started here, and ended in reverse.

In: a `ValidateConfig` and a claimed folder. Out: an `Operator`, its `Handover`, `Watchdog` and follower.
This process opens no key: the chain writer and the notary do, each in its own actor. What miners send is read by the
asker, which has no key.
Waits for: the actors' constructors, each with a time-out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raytensor import cluster
from raytensor.chain.reads.agreement import EndpointsWatch
from raytensor.chain.reads.follower import Follower, Reads
from raytensor.chain.wallet import KeyRef, key_ref
from raytensor.chain.writer.actor import writer_actor
from raytensor.chain.writer.settings import WriterSettings
from raytensor.cluster import wait_ready
from raytensor.config.validate import SubnetConfig, ValidateConfig
from raytensor.data.text import Text, prepare
from raytensor.errors import ConfigError
from raytensor.jobs.handover import Handover
from raytensor.jobs.hotkeys import Registrations, hotkey_refs, registrations
from raytensor.jobs.troubles import Trouble, troubles
from raytensor.jobs.validate.watch import Watchdog
from raytensor.jobs.writer import JobWriter
from raytensor.mechanisms import base
from raytensor.pool import Pool
from raytensor.telemetry import events
from raytensor.telemetry.alarms import webhook
from raytensor.telemetry.metrics import Meters
from raytensor.telemetry.runfolder import RunFolder
from raytensor.types import Need, Weights
from raytensor.validators.evidence_log import Keep
from raytensor.validators.operator import Clock, Operator, Pace, SubnetLoop
from raytensor.validators.round import RoundResult
from raytensor.validators.scorer import MechanismSpec
from raytensor.validators.scorer_service import ScorerService, make_pool
from raytensor.validators.subnet import SubnetValidator
from raytensor.validators.transport import MinerTransport, Wire
from raytensor.wire.asker import Asker
from raytensor.wire.http_form import refuse_unfit
from raytensor.wire.notary import Notary

Show = Callable[[events.Event], None]

WRITER_CPUS = 0.1
MANY = 10**6  # scorers that may be replaced: a validator runs for months


def keys(cfg: ValidateConfig) -> dict[str, KeyRef]:
    """Key references by the text in the configuration. Opens no encrypted key. Raises `ConfigError`, `WalletError`."""
    return hotkey_refs(cfg.hotkeys, cfg)


def registered(cfg: ValidateConfig, refs: Mapping[str, KeyRef]) -> Registrations:
    """The registrations of the hotkeys on the subnets that they validate. Raises as `registrations`."""
    chosen = {one.netuid: one.hotkeys or cfg.hotkeys for one in cfg.all_subnets}
    refs_of = {netuid: {text: refs[text] for text in texts} for netuid, texts in chosen.items()}
    return registrations(cfg.chain.endpoints, cfg.chain.timeout_s, refs_of, cfg.chain.network)


def needs(cfg: ValidateConfig) -> list[Need]:
    """The resources that the job asks of a cluster, role by role."""
    return [cfg.validators.need, Need("chain writer", 1, WRITER_CPUS)]


class ValidatorStack:
    """Started by the constructor; a context manager that ends everything in reverse.

    transport   how miners are asked; None: over the wire.

    ss58        address by hotkey reference.
    hotkeys_of  netuid -> {address: hotkey reference}, of those that validate there.

    When the constructor raises, the parts that have started are ended first.
    """

    def __init__(
        self,
        cfg: ValidateConfig,
        folder: RunFolder,
        show: Show,
        meters: Meters,
        transport: MinerTransport | None = None,
    ) -> None:
        self.cfg, self.folder, self.show = cfg, folder, show
        webhook(cfg.watch)  # refused before anything starts
        refs = keys(cfg)
        self.ss58 = {text: ref.ss58 for text, ref in refs.items()}
        chosen = {one.netuid: one.hotkeys or cfg.hotkeys for one in cfg.all_subnets}
        self.hotkeys_of = {netuid: {self.ss58[text]: text for text in texts} for netuid, texts in chosen.items()}
        subnets = with_shared_state(cfg)
        for what, fix in registered(cfg, refs).missing:
            show(events.Warned(text=what, fix=fix))
        signers = {self.ss58[text]: ref for text, ref in refs.items()}
        with ExitStack() as stack:
            self._connect(stack)
            self.follower = self._follow(stack)
            self.endpoints = self._compare(stack)
            writer = self._start_writer(stack, signers, meters)
            notary = self._start_notary(stack, signers)
            self._phase("preparing the text, starting the scorers and the chain writer")
            text = prepare(cfg.data, Path(cfg.paths.cache), self._phase)
            rest = text.log_unigram, text.vocab_size, cfg.validators.deadline_s
            specs = {one.netuid: MechanismSpec(one.mechanism, *rest) for one in subnets}
            scorers = self._start_scorers(stack, specs)
            started = {"the chain writer": writer.actor.ready.remote(), "the notary": notary.schemes.remote()}
            wait_ready(started, timeout_s=cfg.cluster.start_timeout_s)
            transport = transport or self._start_asker(stack, notary)
            state = self.folder.load_state() or {}
            cursor = int(state.get("receipts", 0))
            self.handover = Handover(writer.actor, show, cursor, revive=writer.revive)
            self.watchdog = Watchdog(cfg.watch, self.hotkeys_of, show, meters, state.get("watched_since"))
            stack.enter_context(self.watchdog)
            loops = [self._subnet(netuid, spec, text, transport, scorers) for netuid, spec in specs.items()]
            self.operator = Operator(loops, self.clock, self._hand_over)
            stack.callback(self.operator.stop)
            self._stack = stack.pop_all()

    def __enter__(self) -> ValidatorStack:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def clock(self, netuid: int) -> Clock:
        """What is known of a subnet; no metagraph where the newest is too old to decide by."""
        seen, limit_s = self.follower.seen(netuid), self.cfg.chain.max_metagraph_age_s
        fresh = seen.metagraph is not None and time.monotonic() - seen.read_at <= limit_s
        block, tempo = (seen.tick.block, seen.tick.tempo) if seen.tick else (0, 0)
        metagraph = seen.metagraph if fresh else None
        return Clock(block, tempo, seen.next_epoch, metagraph, seen.commits, seen.trouble)

    @property
    def troubles(self) -> Mapping[str, Trouble]:
        """What is wrong beside the weights, by what has it."""
        return troubles(self.handover, self.follower, self.endpoints, self.cfg.watch.silent_s)

    def _hand_over(self, weights: Sequence[Weights]) -> None:
        for w in weights:
            self.show(events.WeightsMade(netuid=w.netuid, hotkey=w.hotkey, values=w.values, block=w.made_at_block))
        self.handover.hand_over(weights)

    def save(self) -> None:
        """Save which receipts were shown, and since when first weights are awaited."""
        self.folder.save_state({"receipts": self.handover.cursor, "watched_since": self.watchdog.since})

    def _phase(self, text: str) -> None:
        self.show(events.Phase(text=text))

    def _connect(self, stack: ExitStack) -> None:
        self._phase("starting Ray (takes about 7 s)")
        stack.callback(cluster.disconnect)
        cluster.connect(self.cfg.cluster)
        cluster.check(needs(self.cfg), cfg=self.cfg.cluster)

    def _follow(self, stack: ExitStack) -> Follower:
        cfg = self.cfg
        reads = Reads(cfg.chain.refresh_blocks, cfg.watch.every_blocks, commitments="metagraph")
        follower = Follower(
            self.cfg.chain.endpoints, list(self.hotkeys_of), reads, timeout_s=cfg.chain.timeout_s, poll_s=1.0
        )
        stack.callback(follower.close)
        follower.start()
        return follower

    def _compare(self, stack: ExitStack) -> EndpointsWatch | None:
        """Compare the endpoints with each other, where there are several."""
        if len(self.cfg.chain.endpoints) < 2:
            return None
        watch = EndpointsWatch(self.cfg.chain.endpoints, list(self.ss58.values()), timeout_s=self.cfg.chain.timeout_s)
        stack.callback(watch.close)
        watch.start()
        return watch

    def _start_writer(self, stack: ExitStack, signers: Mapping[str, KeyRef], meters: Meters) -> JobWriter:
        cfg = self.cfg
        journal, audit = self.folder.path / "journal.sqlite", str(self.folder.path / "audit.jsonl")
        # One folder of leases for all jobs with these run folders: one with some of the same keys is refused.
        leases = Path(cfg.paths.runs)
        settings = WriterSettings(
            timeout_s=cfg.chain.timeout_s,
            audit_path=audit,
            lease_folder=leases,
            look_back_blocks=cfg.chain.look_back_blocks,
            renewal=cfg.chain.renewal,
        )
        delegate = key_ref(cfg.chain.delegate, cfg.wallet_path) if cfg.chain.delegate else None
        options = {"num_cpus": WRITER_CPUS, "scheduling_strategy": _here()}

        def make(wait_s: float) -> Any:
            given = {"delegate": delegate, "exclusive_wait_s": wait_s, "options": options}
            return writer_actor(cfg.chain.endpoints, dict(signers), journal, settings, **given)

        writer = JobWriter(make, self.show, meters)
        stack.callback(writer.close)
        return writer

    def _start_notary(self, stack: ExitStack, signers: Mapping[str, KeyRef]) -> Any:
        options = {"num_cpus": 0, "max_restarts": -1, "max_concurrency": 4, "scheduling_strategy": _here()}
        notary = cast(Any, ray.remote(Notary).options(**options).remote(dict(signers)))
        stack.callback(ray.kill, notary)
        return notary

    def _start_scorers(self, stack: ExitStack, specs: Mapping[int, MechanismSpec]) -> ScorerService:
        cfg, named = self.cfg, {str(netuid): spec for netuid, spec in specs.items()}

        def new_pool() -> Pool:
            return make_pool(named, cfg.validators, cfg.cluster.torch_threads, max_replacements=MANY)

        return stack.enter_context(ScorerService(new_pool, cfg.validators))

    def _start_asker(self, stack: ExitStack, notary: Any) -> Wire:
        cfg = self.cfg
        limit_s = cfg.cluster.start_timeout_s
        schemes = ray.get(notary.schemes.remote(), timeout=limit_s)
        options = {"num_cpus": 0, "max_restarts": -1, "max_concurrency": 256}
        asker = cast(Any, ray.remote(Asker).options(**options).remote(notary, schemes, cfg.asking))
        stack.callback(ray.kill, asker)
        wait_ready({"the asker": asker.ready.remote()}, timeout_s=limit_s)
        return Wire(asker)

    def _subnet(
        self, netuid: int, spec: MechanismSpec, text: Text, transport: MinerTransport, scorers: ScorerService
    ) -> SubnetLoop:
        cfg, folder, hotkeys = self.cfg, self.folder.path / f"netuid{netuid}", tuple(self.hotkeys_of[netuid])
        chain, limits = cfg.chain, (cfg.backoff_s, cfg.backoff_most_s, cfg.round_limit_s, cfg.rounds)
        pace = Pace(chain.rounds_per_tempo, chain.margin_blocks, *limits)
        args = (netuid, hotkeys, spec, text, folder, Keep.of(cfg.validators))

        def make() -> SubnetValidator:
            return SubnetValidator(*args, transport=transport, scorers=scorers)

        clock, fault = partial(self.clock, netuid), lambda *what: self.show(events.SubnetFault(*what))
        return SubnetLoop(netuid, make, pace, clock, on_round=self._show_round, on_fault=fault)

    def _show_round(self, result: RoundResult) -> None:
        self.show(events.RoundDone(**result.counts(), wall_s=result.wall_s, ask_s=result.ask_s, score_s=result.score_s))
        for cause, number in result.unscored.items():
            text = f"subnet {result.netuid}: {number} answers were not scored: {cause}"
            self.show(events.Warned(text=text, fix="no miner is blamed for it"))


def with_shared_state(cfg: ValidateConfig) -> list[SubnetConfig]:
    """The subnets, each with the place of the state that its mechanism shares with miners.

    Raises `ConfigError` for a mechanism that can't be imported, that shares state in no place that is set, or whose
    questions `asking.http` can't carry.
    """
    found = []
    for one in cfg.all_subnets:
        try:
            refuse_unfit(cfg.asking.http, base.needs(one.mechanism).schemas)
            found.append(replace(one, mechanism=base.with_shared_state(one.mechanism, None)))
        except ConfigError as error:
            raise ConfigError(f"subnet {one.netuid}: {error}") from error
    return found


def _here() -> NodeAffinitySchedulingStrategy:
    """This node, where the key files and this machine's endpoints are."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
