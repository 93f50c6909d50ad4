"""Starts the hosts of a fleet, finds those that died or hang, and replaces them from the newest checkpoint.

In: hosts and their members. Out: running actors, incidents as text, results of training.
Waits for: room for a sharded miner, at most `cluster.start_timeout_s`; not for hosts to be ready.
Bounds: a host is replaced at most `max_replacements` times. Knows nothing of what is asked.

The questions that a lost host was answering fail; those that waited for its training or behind others go to the
replacement. A sharded miner is replaced as a whole group when one rank dies or an error leaves its ranks out of step;
the new group trains the rounds since its checkpoint again, and so reaches the state of an undisturbed one.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from raytensor.config import MinersJob
from raytensor.errors import ClusterError, cause_of
from raytensor.miners import checkpoints, group
from raytensor.miners.group import LANES
from raytensor.miners.host import MinerHost, Trained
from raytensor.miners.host_handle import Done, HostHandle
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
        for host in self.hosts:
            host.end()

    def _start(self, host: HostHandle, resume_round: int | None) -> None:
        cfg, miners = self._cfg, self._cfg.miners
        if host.sharded:
            host.group = group.start(cfg, host.name, host.members[0], self._text, self._folder, resume_round)
            host.actor = host.group.first
        else:
            factory = ray.remote(**LANES)(MinerHost)
            options = factory.options(num_cpus=miners.cpus_per_host, num_gpus=miners.gpus_per_host)
            host.actor = options.remote(cfg, host.members, self._text, self._folder, resume_round)
        if self._frontend is not None:
            self._frontend.route.remote(host.hotkeys, host.actor)
        host.busy, host.warnings = host.actor.ready.remote(), host.actor.restore_warnings.remote()
        host.busy_until = time.monotonic() + cfg.cluster.start_timeout_s

    def tend(self) -> bool:
        """Take in what has ended and replace hosts that are lost or hang, without waiting. For miners that are asked
        from outside only. Returns whether every host is idle: trained, and ready for the next round."""
        self._check_groups()
        for host in self.hosts:
            if host.busy is not None:
                if ray.wait([host.busy], timeout=0)[0]:
                    self._finish_busy(host)
                elif time.monotonic() > host.busy_until:
                    self._replace(host, "hung")
            elif host.actor is not None:
                self._ping(host)
        return not any(host.busy is not None for host in self.hosts)

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
        except (RayActorError, GetTimeoutError) as error:
            host.requeue()  # it died before it started a question, so none of them is to blame
            self._replace(host, cause_of(error))
        else:
            if isinstance(result, Trained):
                self.train_losses.update(result.losses)
                self.files.update(result.files)
                self.train_s += result.wall_s

    def _replace(self, host: HostHandle, cause: str) -> None:
        host.end()
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
