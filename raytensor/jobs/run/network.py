"""A whole network: brought up, and taken down.

In: a `RunConfig` and a claimed run folder. Out: a `Round` that is ready to play, and everything that stands behind it.
Waits for: the chain process, the neurons' registration and the actors' constructors, each with a time-out of its own.
The start is three things side by side: the chain and its neurons (a thread), Ray, and the text.
Heavy packages are imported in the functions that need them: the first line must be on the screen before.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytensor.config import RunConfig, collaborates, hands_in_files
from raytensor.errors import ChainUnavailable, RunError
from raytensor.jobs.run.plan import CHAIN_ACTOR_CPUS, Identity, identities, needs, settled
from raytensor.telemetry import events
from raytensor.telemetry.runfolder import RunFolder

if TYPE_CHECKING:
    from raytensor.chain.bootstrap import Subnet

Show = Callable[[events.Event], None]

CHAIN_START_S = 180.0  # to open the subnet and register everyone, on a chain with 12 s blocks too


class Network:
    """Everything of a run that must be started and ended. A context manager; leaving it ends all of it, in reverse.

    Raises `RunError` when the folder holds a run with other settings, and `RayTensorError` from `__enter__` when a part
    can't start; what had started is ended first.
    """

    def __init__(self, cfg: RunConfig, folder: RunFolder, show: Show) -> None:
        if collaborates(cfg.mechanism) and cfg.mechanism.collab.folder is None:
            shared = dataclasses.replace(cfg.mechanism.collab, folder=str(folder.path / "shared"))
            cfg = dataclasses.replace(cfg, mechanism=dataclasses.replace(cfg.mechanism, collab=shared))
        if hands_in_files(cfg.mechanism) and cfg.miners.files is None:
            cfg = dataclasses.replace(cfg, miners=dataclasses.replace(cfg.miners, files=str(folder.path / "files")))
        self.cfg, self.folder, self.show = cfg, folder, show
        self.neurons = identities(cfg)
        self._resumed_from = self._resume_round()
        self.first_round = (self._resumed_from or 0) + 1
        self._embedded = not cfg.chain.endpoint
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

    def finish(self) -> dict[str, float | None]:
        """After the last round: everything on its way arrives, consensus runs once more; held-out losses by hotkey."""
        cfg = self.cfg
        self._phase("measuring the held-out loss of every miner")
        heldout = self.fleet.heldout_losses()
        self.handover.settle(cfg.chain.inclusion_timeout_s + cfg.chain.timeout_s)
        tick = self.follower.seen(self.subnet.netuid).tick
        if self._embedded and tick is not None:
            self._phase("waiting for the consensus of the last weights")
            limit_s = 30 + 2 * cfg.chain.tempo * cfg.chain.block_time_s
            self.follower.wait_for_epoch_after(self.subnet.netuid, tick.block, limit_s)
        return heldout

    def checkpoint(self, number: int) -> None:
        """Keep everything that a later process needs to go on after round `number`."""
        if not self.fleet.checkpoint(number):
            return  # an incident says why; the checkpoint before stays the newest
        for hotkey, board in self.boards.items():
            board.save(self._board_path(number, hotkey), saved_at=time.time())
        self.folder.save_state({"round": number, "config": settled(self.cfg)})
        for hotkey, log in self.logs.items():
            log.roll(self.boards[hotkey].state, number)
        for old in sorted((self.folder.path / "boards").glob("round-*"))[:-2]:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()

    # ------------------------------------------------------------------------------------------------------ start

    def _phase(self, text: str) -> None:
        self.show(events.Phase(text=text))

    def _start(self) -> None:
        cfg = self.cfg
        self._phase(
            "starting the chain, and Ray (takes about 7 s)" if self._embedded else "starting Ray (takes about 7 s)"
        )
        chain_up: Future[Subnet] = Future()
        threading.Thread(
            target=self._in_thread, args=(chain_up, self._start_chain), name="chain-start", daemon=True
        ).start()

        import ray

        from raytensor import cluster

        started = time.monotonic()
        self._stack.callback(cluster.disconnect)
        local = cluster.connect(cfg.cluster)
        roles = needs(cfg, ray.cluster_resources().get("CPU", 0.0))
        cluster.check(roles)
        self._phase(
            f"{'Ray started' if local else 'joined the Ray cluster'} in {time.monotonic() - started:.1f} s; preparing the text"
        )

        from raytensor.data.text import prepare

        self.text = prepare(cfg.data, Path(cfg.paths.cache), self._phase)
        self._phase("starting the miners' hosts and the scorers")
        self._start_workers(roles[0].count)
        self.subnet = self._result(chain_up)
        self._start_chain_actor()
        self.fleet.wait_ready(cfg.cluster.start_timeout_s)
        for setback in self.fleet.incidents():
            self.show(events.Warned(text=setback))
        if cfg.miners.wire.enabled:
            self._open_door()
        self._start_round()
        self._announce()

    def _resume_round(self) -> int | None:
        """The round after which an earlier process stopped. Raises `RunError` if it had other settings."""
        state = self.folder.load_state() if self.folder.resuming else None
        if state is None:
            return None
        before, now = state["config"], settled(self.cfg)
        differs = [
            f"{key}={now.get(key)!r} (was {before.get(key)!r})"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ]
        if differs:
            raise RunError(
                f"{self.folder.path} was begun with other settings: {', '.join(differs)}\n"
                f"  fix: give the same settings again (config.yaml there has them), or take another name"
            )
        return int(state["round"])

    @staticmethod
    def _in_thread(future: Future[Any], work: Callable[[], Any]) -> None:
        try:
            future.set_result(work())
        except Exception as error:  # the thread's edge: whatever it was is raised where the result is awaited
            future.set_exception(error)

    def _result(self, chain_up: Future[Subnet]) -> Subnet:
        try:
            return chain_up.result(timeout=CHAIN_START_S)
        except FutureTimeout as error:
            raise ChainUnavailable(
                f"the subnet was not ready on {self.endpoint} within {CHAIN_START_S:.0f} s"
            ) from error

    def _start_chain(self) -> Subnet:
        """In a thread: the chain process, then a subnet with all neurons on it. A subnet that is there is found again."""
        from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
        from raytensor.chain.rpc.client import ChainClient
        from raytensor.chain.wallet import DevKey

        cfg = self.cfg
        self.endpoint = cfg.chain.endpoint or self._start_embedded()
        spec = SubnetSpec(
            neurons=[
                Neuron(
                    who.name,
                    who.role,
                    DevKey(who.hotkey_uri),
                    DevKey(who.coldkey_uri),
                    stake_rao=int(who.stake_tao * 10**9),
                )
                for who in self.neurons
            ],
            tempo=cfg.chain.tempo,
            delegate=DevKey(self._delegate_uri()),
        )
        with ChainClient(self.endpoint, cfg.chain.timeout_s) as client:
            self.spec_version = client.spec_version
            return make_subnet(client, spec, progress=self._phase)

    def _start_embedded(self) -> str:
        from raytensor.devnet.launch import EmbeddedChain

        process = EmbeddedChain(self.folder.path / "chain", self.cfg.chain.block_time_s, self.folder.path / "chain.log")
        self._stack.callback(process.close)
        return process.endpoint

    def _delegate_uri(self) -> str:
        return f"//raytensor//{self.cfg.seed}//operator"

    def _start_workers(self, num_hosts: int) -> None:
        from raytensor.jobs.run.loop import RULES
        from raytensor.miners.fleet import Fleet
        from raytensor.validators.scorer import MechanismSpec
        from raytensor.validators.scorers import make_pool

        cfg, text = self.cfg, self.text
        if collaborates(cfg.mechanism):
            from raytensor.mechanisms.collab.store import Store
            from raytensor.miners.collaborator import first_model

            rule = cfg.mechanism.collab
            Store.create(Path(rule.folder or ""), *first_model(rule, text.vocab_size, cfg.seed), first=1)
        hotkeys = [self._ss58(who) for who in self.neurons if who.role == "miner"]
        self.fleet = Fleet(
            cfg, hotkeys, text, num_hosts=num_hosts, folder=self.folder.checkpoints, resume_round=self._resumed_from
        )
        self._stack.callback(self.fleet.close)
        self.rules = MechanismSpec(cfg.mechanism, text.log_unigram, text.vocab_size, cfg.validators.deadline_s)
        self.scorers = make_pool({RULES: self.rules}, cfg.validators, cfg.cluster.torch_threads)
        self._stack.callback(self.scorers.close)
        self.mechanism = self.rules.load()

    def _start_chain_actor(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from raytensor.chain.wallet import DevKey
        from raytensor.chain.writer.actor import writer_actor
        from raytensor.cluster import wait_ready
        from raytensor.jobs.handover import Handover

        cfg = self.cfg
        # On the node of this process: the embedded chain listens on its loopback address only.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Miners' keys too, where they publish something: one writer has all keys of a run.
        writing = ("validator", "miner") if cfg.miners.wire.enabled or hands_in_files(cfg.mechanism) else ("validator",)
        signers = [DevKey(who.hotkey_uri) for who in self.neurons if who.role in writing]
        self.chain = writer_actor(
            self.endpoint,
            {key.ss58: key for key in signers},
            self.folder.path / "journal.sqlite",
            delegate=DevKey(self._delegate_uri()),
            timeout_s=cfg.chain.timeout_s,
            inclusion_timeout_s=cfg.chain.inclusion_timeout_s,
            options={"num_cpus": CHAIN_ACTOR_CPUS, "scheduling_strategy": here},
        )
        self._stack.callback(lambda: ray.kill(self.chain))
        wait_ready({"the chain actor": self.chain.ready.remote()}, timeout_s=cfg.cluster.start_timeout_s)
        cursor, _ = ray.get(self.chain.receipts_since.remote(None), timeout=cfg.cluster.start_timeout_s)
        self.handover = Handover(self.chain, self.show, cursor, receipts_every_s=0.2)

    def _open_door(self) -> None:
        import ray

        from raytensor.jobs.run.axons import AxonPublisher

        limit_s = self.cfg.chain.inclusion_timeout_s + 2 * self.cfg.chain.timeout_s
        miners = [self._ss58(who) for who in self.neurons if who.role == "miner"]
        door = AxonPublisher(
            self.cfg,
            self.fleet,
            self.endpoint,
            self.subnet.netuid,
            miners,
            lambda intents: ray.get(self.chain.submit.remote(intents), timeout=limit_s),
            self._phase,
        )
        self._stack.callback(door.close)

    def _start_round(self) -> None:
        from raytensor.chain.reads.follower import Follower, Observer, Reads
        from raytensor.jobs.run.loop import Round, RoundParts
        from raytensor.validators.evidence_log import EvidenceLog, Keep
        from raytensor.validators.scoreboard import ScoreBoard

        cfg = self.cfg
        self.boards = {
            hotkey: ScoreBoard(self.subnet.netuid, hotkey, self.mechanism, cfg.mechanism.path)
            for hotkey in (self._ss58(who) for who in self.neurons if who.role == "validator")
        }
        if self._resumed_from is not None:
            for hotkey, board in self.boards.items():
                board.restore(self._board_path(self._resumed_from, hotkey), now=time.time())
        keep = Keep.of(cfg.validators)
        self.logs = logs = {
            hotkey: EvidenceLog(
                self.folder.path / "evidence" / f"{hotkey}.jsonl", self.subnet.netuid, hotkey, self.rules, keep
            )
            for hotkey in self.boards
        }
        for hotkey, log in logs.items():
            self._stack.callback(log.close)
            log.cut_after(self._resumed_from or 0)  # what was played after the checkpoint is played again
            if self.boards[hotkey].state.round > log.last_round:  # a log that was removed, or began later than the run
                log.append_state(self.boards[hotkey].state)
        observer = Observer(
            on_block=lambda _, tick: self.show(events.BlockSeen(tick.block, tick.tempo, tick.blocks_until_epoch)),
            on_epoch=lambda metagraph: self.show(events.EpochSeen.of(metagraph)),
            on_silence=lambda cause: self.show(
                events.Warned(text=f"the chain does not answer: {cause}", fix="it is asked again until it does")
            ),
        )
        reads = Reads(commitments="block" if hands_in_files(cfg.mechanism) else None)
        netuid = self.subnet.netuid
        self.follower = Follower(self.endpoint, [netuid], reads, observer, timeout_s=cfg.chain.timeout_s)
        self._stack.callback(self.follower.close)
        self.follower.start()
        parts = RoundParts(
            self.fleet, self.scorers, self.mechanism, self.boards, logs, self.handover, self.text, self.show
        )
        miners = [self._ss58(who) for who in self.neurons if who.role == "miner"]
        self.round = Round(
            cfg,
            parts,
            self.subnet.netuid,
            miners,
            lambda: tick.block if (tick := self.follower.seen(netuid).tick) else 0,
            lambda: self.follower.seen(netuid).promises,
        )

    def _announce(self) -> None:
        neurons = tuple(
            events.NeuronInfo(self.subnet.uids[self._ss58(who)], self._ss58(who), who.role, who.behaviour, who.name)
            for who in self.neurons
        )
        self.show(
            events.NetworkUp(
                endpoint=self.endpoint,
                netuid=self.subnet.netuid,
                spec_version=self.spec_version,
                tempo=self.cfg.chain.tempo,
                neurons=neurons,
                weights_every=self.cfg.chain.weights_every,
            )
        )

    def _board_path(self, number: int, hotkey: str) -> Path:
        return self.folder.path / "boards" / f"round-{number:06d}" / f"{hotkey}.json"

    @staticmethod
    def _ss58(who: Identity) -> str:
        from raytensor.chain.wallet import DevKey

        return DevKey(who.hotkey_uri).ss58
