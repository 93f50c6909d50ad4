"""The parts of a `mine` job: keys by reference, actors, text, models, the server. Started here, ended in reverse.

In: a `MineConfig` and a claimed folder. Out: a `Fleet` with its `Trainer`, a `Front` with its `AxonPublisher`, the
`Handover`, `Fate` and the follower of the chain. The miners are those of `run`: only their keys and their chain come
from outside. This process opens no key: the chain writer does, in its own actor.
Waits for: the chain once, and the actors' constructors, each with a time-out.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raytensor import __version__, cluster
from raytensor.chain.calls import Intent
from raytensor.chain.reads.follower import Follower, Reads
from raytensor.chain.writer.actor import writer_actor
from raytensor.chain.writer.settings import WriterSettings
from raytensor.config.mine import MineConfig
from raytensor.data.text import prepare
from raytensor.jobs.demand import miners_need
from raytensor.jobs.handover import Handover
from raytensor.jobs.hotkeys import all_uids, hotkey_refs
from raytensor.jobs.mine.axons import AxonPublisher
from raytensor.jobs.mine.deploy import Deployer
from raytensor.jobs.mine.front import FRONT_CPUS, Front
from raytensor.jobs.mine.trainer import Trainer, file_commitments
from raytensor.jobs.mine.view import Shown, traffic_line
from raytensor.jobs.mine.watch import Fate, Rules
from raytensor.jobs.troubles import troubles
from raytensor.jobs.writer import JobWriter
from raytensor.mechanisms import base
from raytensor.miners import checkpoints
from raytensor.miners.fleet import Fleet
from raytensor.telemetry import events, miner_events
from raytensor.telemetry.alarms import webhook
from raytensor.telemetry.metrics import Meters
from raytensor.telemetry.miner_events import Standing
from raytensor.telemetry.runfolder import RunFolder
from raytensor.types import Metagraph, Need, Receipt

WRITER_CPUS = 0.1
MANY = 10**6  # hosts that may be replaced: a miner runs for months
TRAFFIC_EVERY_S = 15.0
COMMIT_AGAIN_S = 30.0  # after which a commitment that the chain does not show is submitted again


def models(cfg: MineConfig) -> int:
    """Number of models: one per hotkey, or one for all."""
    return 1 if cfg.share_model else len(cfg.hotkeys)


def needs(cfg: MineConfig, on: Mapping[str, float]) -> list[Need]:
    """The resources that the job asks of a cluster with the resources `on`, role by role; the miners' hosts first."""
    others = [Need("the miners' server", 1, FRONT_CPUS), Need("chain writer", 1, WRITER_CPUS)]
    return [*miners_need(cfg, models(cfg), others, on, prompts=True), *others]


class MinerStack:
    """Started by the constructor; a context manager that ends everything in reverse.

    names    reference by hotkey (ss58). hotkeys: ss58, in the order of the configuration.

    When the constructor raises, the parts that have started are ended first.
    """

    def __init__(
        self, cfg: MineConfig, folder: RunFolder, show: Callable[[events.Event], None], meters: Meters
    ) -> None:
        webhook(cfg.watch)  # refused before anything starts
        refs = hotkey_refs(cfg.hotkeys, cfg)
        self.names = {ref.ss58: text for text, ref in refs.items()}
        self.hotkeys = tuple(self.names)
        self.cfg, self.folder, self.show = with_files(cfg, folder.path), folder, show
        self._files = base.needs(cfg.mechanism).asks_for_files
        self._committed_at: dict[str, float] = {}  # when an intent was submitted last, by its id
        self._owed: dict[int, bool] = {}  # whether the chain lacks a commitment, by netuid
        self._traffic_at, self._state = 0.0, folder.load_state() or {}
        with ExitStack() as stack:
            self._phase("reading the subnets")
            self.uids = all_uids(cfg.chain.endpoints, cfg.chain.timeout_s, cfg.netuids, refs, cfg.chain.network)
            num_hosts = self._connect(stack)
            self.follower = self._follow(stack)
            self._writer = self._start_writer(stack, {ref.ss58: ref for ref in refs.values()}, meters)
            self._start_miners(stack, num_hosts)
            ready = {"the chain writer": self._writer.actor.ready.remote()}
            cluster.wait_ready(ready, timeout_s=cfg.cluster.start_timeout_s)
            cursor, revive = int(self._state.get("receipts", 0)), self._writer.revive
            self.handover = Handover(self._writer.actor, show, cursor, revive=revive)
            self.fate = stack.enter_context(Fate(cfg.watch, self.hotkeys, show, meters))
            self.rules = Rules(cfg.chain.endpoints, cfg.netuids, cfg.chain.timeout_s)
            stack.callback(self.rules.close)
            self._serve(stack)
            self._stack = stack.pop_all()

    def __enter__(self) -> "MinerStack":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def up(self) -> miner_events.MinerUp:
        """The event that says what is served."""
        cfg = self.cfg
        where = cfg.name, cfg.chain.network, tuple(cfg.netuids), self.names, self.front.addresses
        return miner_events.MinerUp(*where, __version__)

    def tick(self) -> None:
        """One step of everything; never waits for the chain or for a host's training."""
        self._deployer.look(self.trainer.round)
        self.trainer.tick(self._committed())
        if self._files:
            for netuid in self.cfg.netuids:
                self._commit(netuid)
        self.handover.poll()
        self.rules.poll()
        for netuid in self.cfg.netuids:
            metagraph, rules = self.metagraph(netuid), self.rules.known.get(netuid)
            if metagraph is not None and rules is not None:
                self.fate.look(metagraph, rules, self.publisher.differing(netuid))
        self.fate.check_silence(*self.follower.silence)
        self.fate.check_writer(self.handover.stopped, self.handover.silent_s)
        self.fate.check(troubles(self.handover, self.follower, None, self.cfg.watch.silent_s))
        self.fate.check_reach(self.publisher.unreachable_s, self.publisher.unreachable)
        if time.monotonic() - self._traffic_at >= TRAFFIC_EVERY_S:
            self._traffic_at = time.monotonic()
            self.fate.look_at_traffic(self.front.traffic())

    @property
    def settled(self) -> bool:
        """Whether the chain has everything that was handed over, commitments included."""
        return self.handover.idle and not any(self._owed.values())

    def save(self) -> None:
        """Save which receipts were shown, and which models of folders the checkpoints come from."""
        if self.trainer.saved_round > self._deployer.since_round:
            self._state["deployed"] = dict(self._deployer.deployed)
        self._state["receipts"] = self.handover.cursor
        self.folder.save_state(self._state)

    def metagraph(self, netuid: int) -> Metagraph | None:
        """The newest metagraph of a subnet, None before the first."""
        return self.follower.seen(netuid).metagraph

    def rows(self) -> list[Shown]:
        """A line for each hotkey on each subnet, for the view."""
        shown = []
        for netuid in self.cfg.netuids:
            for hotkey in self.hotkeys:
                one = self.fate.standings.get((netuid, hotkey))
                wrong = [text for (_, at, key), text in self.fate.wrong.items() if (at, key) == (netuid, hotkey)]
                if trouble := self.follower.seen(netuid).trouble:
                    wrong.append(f"subnet {netuid}: {trouble}")
                doing = "training" if self.cfg.training and not self.trainer.done else "serving"
                state = "; ".join(text.partition(": ")[2] for text in wrong) or doing
                if one is None:
                    one, state = Standing(netuid, hotkey, 0), state if wrong else "reading the subnet"
                shown.append(Shown(one, state, bool(wrong)))
        return shown

    def summary(self) -> str:
        """The line below the table."""
        traffic, wrong = self.fate.traffic, [text for (_, _, key), text in self.fate.wrong.items() if not key]
        if self.publisher.unreachable and not wrong:
            wrong.append(self.publisher.unreachable)
        trained = f"round {self.trainer.round} trained; " if self.trainer.round else ""
        asked = traffic_line(traffic.outcomes, traffic.callers)
        return "; ".join([f"{trained}{asked}", *wrong])

    # The start

    def _phase(self, text: str) -> None:
        self.show(events.Phase(text=text))

    def _connect(self, stack: ExitStack) -> int:
        self._phase("starting Ray (takes about 7 s)")
        stack.callback(cluster.disconnect)
        cluster.connect(self.cfg.cluster)
        roles = needs(self.cfg, ray.cluster_resources())
        cluster.check(roles, cfg=self.cfg.cluster)
        return roles[0].count

    def _follow(self, stack: ExitStack) -> Follower:
        cfg = self.cfg
        reads = Reads(cfg.chain.refresh_blocks, commitments="metagraph" if self._files else None)
        follower = Follower(cfg.chain.endpoints, cfg.netuids, reads, timeout_s=cfg.chain.timeout_s)
        stack.callback(follower.close)
        follower.start()
        return follower

    def _start_writer(self, stack: ExitStack, keys: dict[str, Any], meters: Meters) -> JobWriter:
        cfg = self.cfg
        audit, limit_s = str(self.folder.path / "audit.jsonl"), cfg.chain.inclusion_timeout_s
        # A miner's calls are free and may be repeated, so others may use its hotkey as well (`raytensor serve`). One
        # folder of leases for all jobs with these run folders: one with some of the same keys is refused.
        settings = WriterSettings(
            timeout_s=cfg.chain.timeout_s,
            inclusion_timeout_s=limit_s,
            audit_path=audit,
            lease_folder=Path(cfg.paths.runs),
            stop_on_foreign=False,
        )
        # On this node, where the key files and this machine's endpoints are.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": WRITER_CPUS, "scheduling_strategy": here}
        journal = self.folder.path / "journal.sqlite"

        def make(wait_s: float) -> Any:
            return writer_actor(cfg.chain.endpoints, keys, journal, settings, exclusive_wait_s=wait_s, options=options)

        writer = JobWriter(make, self.show, meters)
        stack.callback(writer.close)
        return writer

    def _start_miners(self, stack: ExitStack, num_hosts: int) -> None:
        cfg, folder = self.cfg, self.folder.checkpoints
        self._phase("preparing the text, starting the chain writer")
        text = prepare(cfg.data, Path(cfg.paths.cache), self._phase)
        self._phase("starting the miners' hosts")
        trained = self.hotkeys[: models(cfg)]
        newest = max((n for hotkey in trained for n in checkpoints.complete(folder, hotkey)[:1]), default=None)
        self.fleet = Fleet(
            cfg, trained, text, num_hosts=num_hosts, folder=folder, resume_round=newest, max_replacements=MANY
        )
        stack.callback(self.fleet.close)
        self.fleet.wait_ready(cfg.cluster.start_timeout_s)
        if newest is not None:
            self._phase(f"the miners continue from the checkpoints of round {newest}")
        self.trainer = Trainer(cfg, self.fleet, (newest or 0) + 1, self._files, self.show)
        # Without a checkpoint the models are those of the folders as they are now.
        deployed = None if newest is None else self._state.get("deployed")
        self._deployer = Deployer(cfg.miners, trained, self.fleet, deployed)

    def _serve(self, stack: ExitStack) -> None:
        cfg = self.cfg
        answers = dict.fromkeys(self.hotkeys, self.hotkeys[0]) if cfg.share_model else None
        self.front = Front(cfg, self.fleet, self.hotkeys, answers)
        stack.callback(self.front.close)
        limit_s = cfg.chain.inclusion_timeout_s + 2 * cfg.chain.timeout_s

        def submit(intents: Sequence[Intent]) -> list[Receipt]:
            return ray.get(self._writer.actor.submit.remote(intents), timeout=limit_s)

        self.publisher = AxonPublisher(
            self.front,
            cfg.chain.endpoints,
            cfg.netuids,
            self.metagraph,
            submit,
            self._phase,
            check_reachable=cfg.miners.wire.check_reachable,
            timeout_s=cfg.chain.timeout_s,
        )
        stack.callback(self.publisher.close)
        self.publisher.start()

    # The commitments

    def _committed(self) -> Any:
        """Commitments on the first subnet, None before they were read or where the mechanism asks for no files."""
        seen = self.follower.seen(self.cfg.netuids[0])
        return seen.promises.commits if self._files and seen.promises is not None else None

    def _commit(self, netuid: int) -> None:
        """Commit to the newest files of the models, each hotkey to the file of the model that answers for it."""
        promises = self.follower.seen(netuid).promises
        if promises is None:
            return
        files = self.fleet.files
        if self.cfg.share_model and (digest := files.get(self.hotkeys[0])) is not None:
            files = dict.fromkeys(self.hotkeys, digest)
        known = {hotkey: commit.digest for hotkey, commit in promises.commits.items()}
        owed = file_commitments(netuid, files, known)
        self._owed[netuid] = bool(owed)
        now, never = time.monotonic(), -COMMIT_AGAIN_S
        due = [one for one in owed if now - self._committed_at.get(one.intent_id, never) >= COMMIT_AGAIN_S]
        if due and not self.handover.committing:
            self._committed_at |= {one.intent_id: now for one in due}
            self.handover.commit(due)


def with_files(cfg: MineConfig, folder: Path) -> MineConfig:
    """`cfg` with a folder for submitted files, where the mechanism asks for them and none is set."""
    mechanism = base.with_shared_state(cfg.mechanism, None)
    miners = cfg.miners
    if base.needs(cfg.mechanism).asks_for_files and miners.files is None:
        miners = replace(miners, files=str(folder / "files"))
    return replace(cfg, mechanism=mechanism, miners=miners)
