"""Everything that stands behind the operator: keys by reference, actors, text, subnets. Started, and ended in reverse.

In: a `ValidateConfig` and a claimed folder. Out: an `Operator`, its `Handover`, `Watchdog` and follower.
This process opens no key: the chain's writer and the notary do, each in an actor of its own; what miners send is read
by the asker, which has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raytensor import cluster
from raytensor.chain.reads.follower import Follower, Reads
from raytensor.chain.wallet import KeyRef, WalletKey, key_ref, refuse_readable_coldkey
from raytensor.chain.writer.actor import writer_actor
from raytensor.cluster import Need, wait_ready
from raytensor.config.validate import SubnetConfig, ValidateConfig
from raytensor.data.text import prepare
from raytensor.errors import ConfigError
from raytensor.jobs.handover import Handover
from raytensor.jobs.validate.watch import Watchdog
from raytensor.telemetry import events
from raytensor.telemetry.alarms import webhook
from raytensor.telemetry.metrics import Meters
from raytensor.telemetry.runfolder import RunFolder
from raytensor.types import Commit, Metagraph, Weights
from raytensor.validators.evidence_log import Keep
from raytensor.validators.operator import Operator, Pace, SubnetLoop
from raytensor.validators.round import SubnetValidator
from raytensor.validators.scorer import MechanismSpec
from raytensor.validators.scorer_service import ScorerService
from raytensor.validators.scorers import make_pool
from raytensor.validators.transport import MinerTransport, Wire
from raytensor.wire.asker import Asker
from raytensor.wire.notary import Notary

Show = Callable[[events.Event], None]

WRITER_CPUS = 0.1
MANY = 10**6  # scorers that may be replaced: a validator runs for months


def keys(cfg: ValidateConfig) -> dict[str, KeyRef]:
    """Reference as configured -> key reference. Raises `ConfigError` or `WalletError`; opens no key that is encrypted."""
    found: dict[str, KeyRef] = {}
    for text in cfg.hotkeys:
        ref = key_ref(text, cfg.wallet_path)
        if isinstance(ref, WalletKey):
            if ref.hotkey is None:
                raise ConfigError(
                    f"hotkeys={text!r}: names a coldkey; write wallet/hotkey: validating needs no coldkey"
                )
            ref = WalletKey(ref.wallet, ref.hotkey, ref.path, cfg.password_file)
            if not cfg.allow_coldkey:
                refuse_readable_coldkey(ref)
        found[text] = ref
    return found


def needs(cfg: ValidateConfig) -> list[Need]:
    """What the job asks of a cluster, role by role."""
    validators = cfg.validators
    return [
        Need("scorers", validators.num_scorers, validators.cpus_per_scorer, validators.gpus_per_scorer),
        Need("chain writer", 1, WRITER_CPUS),
    ]


@dataclass(frozen=True)
class SubnetClock:
    """A subnet's clock as the operator wants it."""

    block: int
    tempo: int
    next_epoch: int
    metagraph: Metagraph | None
    commits: Mapping[str, Commit]
    trouble: str


class ValidatorStack:
    """A context manager; leaving it ends everything, in reverse. transport: how miners are asked; None: over the wire."""

    def __init__(
        self,
        cfg: ValidateConfig,
        folder: RunFolder,
        show: Show,
        meters: Meters,
        transport: MinerTransport | None = None,
    ) -> None:
        self.cfg, self.folder, self.show, self._meters, self._transport = cfg, folder, show, meters, transport
        webhook(cfg.watch)  # refused before anything starts
        self.refs = keys(cfg)
        self.ss58 = {text: ref.ss58 for text, ref in self.refs.items()}
        if len(set(self.ss58.values())) != len(self.ss58):
            raise ConfigError(f"hotkeys={cfg.hotkeys}: two of them are the same key")
        self.hotkeys_of = {
            rules.netuid: tuple(self.ss58[text] for text in rules.hotkeys or cfg.hotkeys) for rules in cfg.all_subnets
        }
        self._stack = ExitStack()

    def __enter__(self) -> ValidatorStack:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def clock(self, netuid: int) -> SubnetClock:
        """What is known of a subnet; no metagraph where the newest is too old to decide by."""
        seen, limit_s = self.follower.seen(netuid), self.cfg.chain.max_metagraph_age_s
        fresh = seen.metagraph is not None and time.monotonic() - seen.read_at <= limit_s
        tick = seen.tick
        return SubnetClock(
            tick.block if tick else 0,
            tick.tempo if tick else 0,
            seen.next_epoch,
            seen.metagraph if fresh else None,
            seen.commits,
            seen.trouble,
        )

    def _hand_over(self, weights: Sequence[Weights]) -> None:
        for one in weights:
            self.show(
                events.WeightsMade(netuid=one.netuid, hotkey=one.hotkey, values=one.values, block=one.made_at_block)
            )
        self.handover.hand_over(weights)

    def save(self) -> None:
        """Keep which receipts were shown."""
        self.folder.save_state({"receipts": self.handover.cursor})

    # ------------------------------------------------------------------------------------------------ start

    def _start(self) -> None:
        cfg = self.cfg
        endpoints = [part.strip() for part in cfg.chain.network.split(",") if part.strip()]
        self.show(events.Phase(text="starting Ray (takes about 7 s)"))
        self._stack.callback(cluster.disconnect)
        cluster.connect(cfg.cluster)
        cluster.check(needs(cfg))
        reads = Reads(cfg.chain.refresh_blocks, cfg.watch.every_blocks, commitments="metagraph")
        netuids = [rules.netuid for rules in cfg.all_subnets]
        self.follower = Follower(endpoints, netuids, reads, timeout_s=cfg.chain.timeout_s, poll_s=1.0)
        self._stack.callback(self.follower.close)
        self.follower.start()
        # Where the key files and this machine's endpoints are.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        signers = {self.ss58[text]: ref for text, ref in self.refs.items()}
        delegate = key_ref(cfg.chain.delegate, cfg.wallet_path) if cfg.chain.delegate else None
        writer = writer_actor(
            endpoints,
            signers,
            self.folder.path / "journal.sqlite",
            delegate=delegate,
            timeout_s=cfg.chain.timeout_s,
            audit_path=str(self.folder.path / "audit.jsonl"),
            options={"num_cpus": WRITER_CPUS, "scheduling_strategy": here},
        )
        self._stack.callback(self._end_writer, writer)
        notary = (
            ray.remote(Notary)
            .options(num_cpus=0, max_restarts=-1, max_concurrency=4, scheduling_strategy=here)
            .remote(signers)
        )
        self._stack.callback(ray.kill, notary)
        self.show(events.Phase(text="preparing the text, starting the scorers and the chain's writer"))
        text = prepare(cfg.data, Path(cfg.paths.cache), lambda words: self.show(events.Phase(text=words)))
        rules = {
            str(one.netuid): MechanismSpec(one.mechanism, text.log_unigram, text.vocab_size, cfg.validators.deadline_s)
            for one in cfg.all_subnets
        }
        desk = ScorerService(
            lambda: make_pool(rules, cfg.validators, cfg.cluster.torch_threads, max_replacements=MANY), cfg.validators
        )
        self._stack.enter_context(desk)
        wait_ready(
            {"the chain's writer": writer.ready.remote(), "the notary": notary.schemes.remote()},
            timeout_s=cfg.cluster.start_timeout_s,
        )
        transport = self._transport or self._wire(notary)
        state = self.folder.load_state() or {}
        self.handover = Handover(writer, self.show, int(state.get("receipts", 0)))
        self.watchdog = self._stack.enter_context(Watchdog(cfg.watch, self.hotkeys_of, self.show, self._meters))
        pace = Pace(
            cfg.chain.rounds_per_tempo,
            cfg.chain.margin_blocks,
            cfg.backoff_s,
            cfg.backoff_most_s,
            cfg.round_limit_s,
            cfg.rounds,
        )
        subnets = [self._subnet(one, rules[str(one.netuid)], text, pace, transport, desk) for one in cfg.all_subnets]
        self.operator = Operator(subnets, self.clock, self._hand_over)
        self._stack.callback(self.operator.stop)

    def _wire(self, notary: ray.actor.ActorHandle) -> Wire:
        cfg = self.cfg
        schemes = ray.get(notary.schemes.remote(), timeout=cfg.cluster.start_timeout_s)
        asker = (
            ray.remote(Asker)
            .options(num_cpus=0, max_restarts=-1, max_concurrency=256)
            .remote(notary, schemes, cfg.asking)
        )
        self._stack.callback(ray.kill, asker)
        wait_ready({"the asker": asker.ready.remote()}, timeout_s=cfg.cluster.start_timeout_s)
        return Wire(asker)

    def _subnet(
        self,
        one: SubnetConfig,
        rules: MechanismSpec,
        text: object,
        pace: Pace,
        transport: MinerTransport,
        desk: ScorerService,
    ) -> SubnetLoop:
        netuid, cfg = one.netuid, self.cfg
        folder, hotkeys, keep = self.folder.path / f"netuid{netuid}", self.hotkeys_of[netuid], Keep.of(cfg.validators)
        subnet = SubnetLoop(
            netuid,
            lambda: SubnetValidator(
                str(netuid), netuid, hotkeys, rules, text, folder, cfg.validators.score_limit_s, keep
            ),
            pace,
            transport,
            desk,
            lambda: self.clock(netuid),
        )
        subnet.on_round = lambda result: self.show(events.RoundDone(**vars(result)))
        subnet.on_fault = lambda number, cause, rest_s: self.show(
            events.SubnetFault(netuid=number, cause=cause, rest_s=rest_s)
        )
        return subnet

    @staticmethod
    def _end_writer(writer: ray.actor.ActorHandle) -> None:
        """It gives its lease back; what is open stays in its journal."""
        try:
            ray.get(writer.close.remote(), timeout=10)
        except (ray.exceptions.RayError, TimeoutError):
            pass  # a lease of a process that is gone on this machine is free at once
        ray.kill(writer)
