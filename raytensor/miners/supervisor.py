"""Starts the hosts of a fleet, finds those that died or hang, and replaces them from the newest checkpoint.

In: hosts and their members. Out: running actors, incidents as text, results of training.
Waits for: room for a sharded miner, at most `cluster.start_timeout_s`; not for hosts to be ready.
Bounds: a host is replaced at most `max_replacements` times. Knows nothing of what is asked.

The questions that a lost host was answering fail; those that waited for its training or behind others go to the
replacement. A sharded miner is replaced as a whole group when one rank dies or an error leaves its ranks out of step;
the new group trains the rounds since its checkpoint again, and so reaches the state of an undisturbed one.
"""

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from raytensor.config import MinersJob
from raytensor.errors import ClusterError, cause_of
from raytensor.miners import checkpoints, group
from raytensor.miners.actors import LANES, HostActor, Trained
from raytensor.miners.host_handle import MAX_FAILED_ROUNDS, Done, HostHandle
from raytensor.types import Reason

MAX_REPLACEMENTS = 4  # of one host, in a run
PING_S = 2.0  # between two questions to an idle host whether it is there


class Supervisor:
    """Starts `hosts`, and replaces those that are lost. `text` is an ObjectRef; other arguments as those of `Fleet`.

    Raises `ClusterError` when there is no room for a sharded miner.
    """

    def __init__(
        self,
        cfg: MinersJob,
        hosts: Sequence[HostHandle],
        text: Any,
        folder: Path | None,
        resume_round: int | None,
        max_replacements: int = MAX_REPLACEMENTS,
    ) -> None:
        self.hosts = list(hosts)
        self.host_of = {hotkey: host for host in self.hosts for hotkey in host.hotkeys}
        self.num_hosts = len(self.hosts)
        self.train_losses: dict[str, float] = {}  # newest training loss by hotkey, nats per token
        self.files: dict[str, str] = {}  # digest of the newest file by hotkey, where the mechanism asks for files
        self.train_s = 0.0  # seconds that hosts spent training, summed over hosts
        self.max_replacements = max_replacements
        self._cfg, self._text, self._folder = cfg, text, folder
        self._round = -1 if resume_round is None else resume_round  # newest round that was trained
        self._incidents: list[str] = []
        self._frontend: Any = None
        self._successors: dict[int, HostHandle] = {}  # hosts that start beside the one of the same number
        self._retired: list[tuple[HostHandle, Any]] = []  # hosts that finish their questions, and when they have
        try:
            for host in sorted(self.hosts, key=lambda host: not host.sharded):  # those that may be refused come first
                self._start(host, resume_round)
        except ClusterError:
            self.close()
            raise

    def serve_through(self, frontend: Any) -> None:
        """Route questions from outside the run through `frontend` (a `WireFrontend` actor), replacements included."""
        self._frontend = frontend
        for host in self.hosts:
            if host.actor is not None:
                frontend.route.remote(host.hotkeys, host.actor)

    def incidents(self) -> list[str]:
        """What went wrong with hosts since the last call, one line each."""
        for host in self.hosts:
            if host.warnings is not None and ray.wait([host.warnings], timeout=0)[0]:
                ref, host.warnings = host.warnings, None
                try:
                    self._incidents += [f"{host.name}: {line}" for line in ray.get(ref, timeout=5)]
                except (RayActorError, RayTaskError, GetTimeoutError):
                    pass  # the host is gone; its loss is reported where it is found
        found, self._incidents = self._incidents, []
        return found

    def close(self) -> None:
        """End the hosts at once; training since the last checkpoint is lost."""
        for host in (*self.hosts, *self._successors.values(), *(old for old, _ in self._retired)):
            host.end()

    def deploy(self, hotkeys: Collection[str]) -> None:
        """Begin to replace the models of these miners by what their profiles name now; `tend` completes it.

        The new host starts beside the old one, gets the questions once it is ready, and the old one ends when it has
        answered its own. Where the cluster has no room for both, the old one stays, and an incident says so.
        """
        for host in self.hosts:
            if set(host.hotkeys) & set(hotkeys) and host.number not in self._successors and host.actor is not None:
                successor = HostHandle(host.number, host.members)
                try:
                    self._start(successor, None, serve=False)
                except ClusterError as error:
                    self._incidents.append(f"{host.name}: no room for its new models beside the old ones: {error}")
                    continue
                self._successors[host.number] = successor

    def _succeed(self) -> bool:
        """Put successors that are ready in the place of idle hosts. Returns whether one still starts."""
        for place, host in enumerate(self.hosts):
            successor = self._successors.get(host.number)
            if successor is None or host.busy is not None:
                continue
            if not ray.wait([successor.busy], timeout=0)[0]:
                if time.monotonic() > successor.busy_until:
                    self._abandon(successor, "it did not start in time")
                continue
            try:
                ray.get(successor.busy, timeout=5)
            except (RayActorError, RayTaskError, GetTimeoutError) as error:
                self._abandon(successor, cause_of(error))
                continue
            successor.busy = None
            del self._successors[host.number]
            self.hosts[place] = successor
            self.host_of |= dict.fromkeys(successor.hotkeys, successor)
            answered = None
            if self._frontend is not None:
                self._frontend.route.remote(successor.hotkeys, successor.actor)
                answered = self._frontend.answered.remote(host.actor)
            self._retired.append((host, answered))
            self._incidents.append(f"{host.name} answers with its new models")
        for old, answered in list(self._retired):
            if answered is None or ray.wait([answered], timeout=0)[0]:
                self._retired.remove((old, answered))
                old.end()
        return bool(self._successors)

    def _abandon(self, successor: HostHandle, cause: str) -> None:
        del self._successors[successor.number]
        successor.end()
        self._incidents.append(f"{successor.name} keeps its old models: the new ones could not be started: {cause}")

    def _start(self, host: HostHandle, resume_round: int | None, *, serve: bool = True) -> None:
        cfg, miners = self._cfg, self._cfg.miners
        if host.sharded:
            host.group = group.start(cfg, host.name, host.members[0], self._text, self._folder, resume_round)
            host.actor = host.group.first
        else:
            factory = ray.remote(**LANES)(HostActor)
            options = factory.options(num_cpus=miners.cpus_per_host, num_gpus=miners.gpus_per_host)
            host.actor = options.remote(cfg, host.members, self._text, self._folder, resume_round)
        if self._frontend is not None and serve:
            self._frontend.route.remote(host.hotkeys, host.actor)
        host.busy, host.warnings = host.actor.ready.remote(), host.actor.restore_warnings.remote()
        host.busy_until = time.monotonic() + cfg.cluster.start_timeout_s

    def tend(self) -> bool:
        """Take in what has ended and replace hosts that are lost or hang, without waiting. For miners that are asked
        from outside only. Returns whether every host is idle: trained, and no new models start beside it."""
        self._check_groups()
        starting = self._succeed()
        for host in self.hosts:
            if host.busy is not None:
                if ray.wait([host.busy], timeout=0)[0]:
                    self._finish_busy(host)
                elif time.monotonic() > host.busy_until:
                    self._replace(host, host.hang())
            elif host.actor is not None:
                self._ping(host)
        return not starting and not any(host.busy is not None for host in self.hosts)

    def _ping(self, host: HostHandle) -> None:
        """Find out whether an idle host is there."""
        if host.ping is None:
            if time.monotonic() - host.pinged_at >= PING_S:
                host.ping, host.pinged_at = host.actor.ready.remote(), time.monotonic()
        elif ray.wait([host.ping], timeout=0)[0]:
            ref, host.ping = host.ping, None
            try:
                ray.get(ref, timeout=5)
            except (RayActorError, RayTaskError, GetTimeoutError) as error:
                self._replace(host, cause_of(error))

    def _check_groups(self) -> None:
        """Replace groups that have lost a rank."""
        for host in self.hosts:
            if host.group is not None and host.group.failure():
                self._lose_group(host)

    def _lose_group(self, host: HostHandle, cause: str | None = None) -> list[Done]:
        """Replace a group whose ranks are out of step; the questions that it was answering fail."""
        assert host.group is not None
        done, cause = [], cause or host.group.failure() or "a rank is gone"
        if host.busy is not None:
            host.requeue()
        else:
            done = host.fail(Reason.CRASHED, cause, in_flight_only=True)
        self._replace(host, cause)
        return done

    def _finish_busy(self, host: HostHandle) -> None:
        """The start or the training is over; the host starts its questions."""
        ref, host.busy = host.busy, None
        host.started_at = time.monotonic()
        try:
            result = ray.get(ref, timeout=5)
        except RayTaskError as error:
            if host.group is not None:
                host.requeue()
                self._replace(host, cause_of(error))
            else:  # the host lives on, with its models as they are
                self._incidents.append(f"{host.name}: training raised: {cause_of(error)}")
                self._note_failed_round(host, cause_of(error))
        except (RayActorError, GetTimeoutError) as error:
            host.requeue()  # it died before it started a question, so none of them is to blame
            self._replace(host, cause_of(error))
        else:
            if isinstance(result, Trained):
                self._incidents += [f"{key[:8]} did not train: {why}" for key, why in result.failures.items()]
                if result.failures and not result.losses:
                    self._note_failed_round(host, next(iter(result.failures.values())))
                else:
                    host.failed_rounds = 0
                self.train_losses.update(result.losses)
                self.files.update(result.files)
                self.train_s += result.wall_s

    def _note_failed_round(self, host: HostHandle, cause: str) -> None:
        host.failed_rounds += 1
        if host.failed_rounds >= MAX_FAILED_ROUNDS:
            host.requeue()
            self._replace(host, f"no miner trained in {host.failed_rounds} rounds in a row: {cause}")

    def _replace(self, host: HostHandle, cause: str) -> None:
        host.end()
        host.errors, host.failed_rounds = [], 0
        host.replacements += 1
        if host.replacements > self.max_replacements:
            self._incidents.append(f"{host.name} is given up after {self.max_replacements} replacements: {cause}")
            return
        resume_round = checkpoints.newest(self._folder, host.hotkeys, up_to=self._round)
        since = "new models" if resume_round is None else f"the checkpoint of round {resume_round}"
        self._incidents.append(f"{host.name} is replaced and continues from {since}: {cause}")
        try:
            self._start(host, resume_round)
        except ClusterError as error:  # there is no room for a group any more; a node may be gone
            self._incidents.append(f"{host.name} is given up: {error}")
            return
        if host.sharded:  # repeat the rounds since the checkpoint, on the same text
            missed = range((resume_round or 0) + 1, self._round + 1)
            for round in missed:
                host.busy = host.actor.train.remote(round)
            host.busy_until += len(missed) * self._cfg.miners.train_timeout_s

    def _call_all(self, method: str, *args: Any) -> dict[int, Any]:
        """Results by host number of one call of every host, within `miners.train_timeout_s` for all."""
        limit_s = self._cfg.miners.train_timeout_s
        refs = {getattr(host.actor, method).remote(*args): host for host in self.hosts if host.actor is not None}
        ready = ray.wait(list(refs), num_returns=len(refs), timeout=limit_s)[0] if refs else []
        found: dict[int, Any] = {}
        for ref, host in refs.items():
            if ref not in ready:
                self._incidents.append(f"{host.name}: {method} did not end within {limit_s:g} s")
                continue
            try:
                found[host.number] = ray.get(ref, timeout=5)
            except (RayActorError, RayTaskError, GetTimeoutError) as error:
                self._incidents.append(f"{host.name}: {method} failed: {cause_of(error)}")
                if host.group is not None:  # its ranks may be out of step
                    self._replace(host, cause_of(error))
        return found
