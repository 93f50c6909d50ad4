"""All miners of a job: which host runs which miner, and every question answered exactly once.

In: rounds to train, tasks. Out: a `Response`, `Submission` or `Failure` per task, in completion order.
Waits for: a host's training at most `miners.train_timeout_s`; an answer at most its task's deadline, counted from the
moment when the host starts the question; a new host at most `cluster.start_timeout_s`.
Bounds: those of `host_handle` (questions in flight) and `supervisor` (replacements).
Knows nothing of scores or of keys: identities come from outside. A miner's answers do not depend on its host.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from raytensor.cluster import wait_ready
from raytensor.config import MinersJob
from raytensor.data.text import Text
from raytensor.errors import cause_of
from raytensor.miners import checkpoints, supervisor
from raytensor.miners.host_handle import Done, HostHandle
from raytensor.miners.placement import assign_profiles, is_sharded, place, victims
from raytensor.types import Failure, Reason, Response, Submission, Task


class Fleet(supervisor.Supervisor):
    """The miners `hotkeys` on `num_hosts` host actors. Profiles are assigned in rotation.

    text           put into the object store once; every host reads it without a copy.
    folder         of checkpoints; None: none are written.
    resume_round   round whose checkpoints the miners continue from; None: new models.

    The constructor waits for room for the sharded miners only, and raises `ClusterError` when there is none.
    `wait_ready` waits for the hosts.
    """

    def __init__(
        self,
        cfg: MinersJob,
        hotkeys: Sequence[str],
        text: Text,
        *,
        num_hosts: int,
        folder: Path | None = None,
        resume_round: int | None = None,
        max_replacements: int = supervisor.MAX_REPLACEMENTS,
    ) -> None:
        profiles = assign_profiles(cfg.miners, hotkeys)
        self._victims = victims(profiles)
        shared = {hotkey: profile for hotkey, profile in profiles.items() if not is_sharded(profile)}
        sharded = [[(hotkey, profile)] for hotkey, profile in profiles.items() if is_sharded(profile)]
        members = [*place(shared, num_hosts), *sharded]
        hosts = [HostHandle(number, each) for number, each in enumerate(members)]
        super().__init__(cfg, hosts, ray.put(text), folder, resume_round, max_replacements)

    def wait_ready(self, timeout_s: float) -> dict[str, int]:
        """Wait until every host is constructed. Returns process ids by name. Raises `ClusterError` when one is late."""
        refs = {host.name: host.actor.ready.remote() for host in self.hosts}
        for host in self.hosts:
            others = host.group.ready() if host.group is not None else []
            refs |= {f"{host.name}, rank {rank}": ref for rank, ref in enumerate(others, start=1)}
        wait_ready(refs, timeout_s=timeout_s)
        return {name: ray.get(ref, timeout=timeout_s) for name, ref in refs.items()}

    def train(self, round: int, committed: Mapping[str, str] | None = None) -> None:
        """Start the training of one round on every host, and return. A host answers once its own training is done.

        committed  digests by hotkey that the chain has, where the mechanism asks for files; copiers read them.
        """
        self._round = round
        known = committed or {}
        self._check_groups()
        for host in self.hosts:
            if host.busy is not None and ray.wait([host.busy], timeout=0)[0]:
                self._finish_busy(host)
            if host.actor is None:
                continue
            begin = max(time.monotonic(), host.busy_until if host.busy is not None else 0.0)
            own = None if committed is None else {name: known[name] for name in host.hotkeys if name in known}
            copied = {name: self._victims[name] for name in host.hotkeys if self._victims.get(name) in known}
            originals = {name: (victim, known[victim]) for name, victim in copied.items()}
            host.busy = host.actor.train.remote(round, own, originals)
            host.busy_until = begin + self._cfg.miners.train_timeout_s

    def wait_trained(self) -> None:
        """Wait until every host has ended its training, at most its time-out; a late host is replaced.

        For rounds in which some hosts are asked nothing, so that their training does not pile up.
        """
        while busy := {host.busy: host for host in self.hosts if host.busy is not None}:
            exits = {ref: host for host in busy.values() if host.group is not None for ref in host.group.exits}
            late = min(busy.values(), key=lambda host: host.busy_until)
            wait_s = max(0.0, late.busy_until - time.monotonic())
            ready, _ = ray.wait([*busy, *exits], num_returns=1, timeout=wait_s)
            if not ready:
                self._replace(late, late.hang())
            for ref in ready:
                if ref in exits:
                    self._lose_group(exits[ref])
                else:
                    self._finish_busy(busy[ref])

    def ask(self, tasks: Sequence[Task]) -> Iterator[Response | Submission | Failure]:
        """Every task's answer, each exactly once, in completion order.

        A copying miner is asked once its victim's answer to the same (round, netuid, validator) is there, and sees it.
        """
        asked = {(task.round, task.netuid, task.validator, task.hotkey) for task in tasks}
        copiers: dict[tuple[int, int, str, str], list[Task]] = {}
        for host in self.hosts:
            host.clear()  # questions of an earlier caller that stopped iterating
        self._check_groups()
        for task in tasks:
            key = (task.round, task.netuid, task.validator, self._victims.get(task.hotkey, ""))
            if key in asked:
                copiers.setdefault(key, []).append(task)
            else:
                self.host_of[task.hotkey].waiting.append((task, None))
        left = len(tasks)
        while left:
            for done in self._step():
                key = (done.task.round, done.task.netuid, done.task.validator, done.task.hotkey)
                for copier in copiers.pop(key, []):
                    self.host_of[copier.hotkey].waiting.append((copier, done.ref))
                left -= 1
                yield done.answer

    def heldout_losses(self) -> dict[str, float | None]:
        """Held-out loss by hotkey in nats per token; None for a miner that gives no answers or whose host is gone."""
        found: dict[str, float | None] = dict.fromkeys(self.host_of)
        for losses in self._call_all("heldout_losses").values():
            found.update(losses)
        return found

    def checkpoint(self, round: int) -> bool:
        """Write a checkpoint of every miner and wait for it. False when a host failed; `incidents` has the reason."""
        if self._folder is None or len(self._call_all("checkpoint", round)) < len(self.hosts):
            return False
        checkpoints.prune(self._folder, round)
        return True

    def _step(self) -> list[Done]:
        """Dispatch questions, wait for the first event, and return the tasks that are finished."""
        done: list[Done] = []
        limit = self.max_replacements
        for host in self.hosts:
            if host.actor is None:
                done += host.fail(Reason.CRASHED, f"{host.name} is gone and its {limit} replacements are used up")
            host.dispatch()
        working = [host for host in self.hosts if host.in_flight]
        refs = {ref: host for host in working for ref in ([host.busy] if host.busy is not None else host.in_flight)}
        refs |= {ref: host for host in working if host.group is not None for ref in host.group.exits}
        if done or not refs:
            assert done, "nothing to wait for"
            return done
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
        if not ready:
            wait_s = max(0.0, min(host.deadline() for host in working) - time.monotonic())
            ready, _ = ray.wait(list(refs), num_returns=1, timeout=wait_s)
        for ref in ready:
            host = refs[ref]
            if host.group is not None and ref in host.group.exits:
                done += self._lose_group(host)
            elif ref is host.busy:
                self._finish_busy(host)
            elif ref in host.in_flight:
                done += self._collect(host, ref)
        for host in working:
            if host.in_flight and time.monotonic() > host.deadline():
                done += self._time_out(host)
        return done

    def _time_out(self, host: HostHandle) -> list[Done]:
        """A host is late with its training or its oldest question: replace it."""
        if host.busy is not None:
            done = host.fail(Reason.TIMEOUT, f"{host.name} was still training or starting")
        else:
            task, _ = host.in_flight.pop(next(iter(host.in_flight)))
            done = [Done.failed(task, Reason.TIMEOUT, f"no answer within {task.deadline_s:g} s")]
            done += host.fail(Reason.CRASHED, "its host hung on another question", in_flight_only=True)
        self._replace(host, host.hang())
        return done

    def _collect(self, host: HostHandle, ref: Any) -> list[Done]:
        """Read one answer."""
        host.started_at = time.monotonic()
        try:
            answer: Any = ray.get(ref, timeout=5)
        except RayTaskError as error:
            task, _ = host.in_flight.pop(ref)
            done = [Done.failed(task, Reason.ERROR, cause_of(error))]
            if host.group is not None:
                return done + self._lose_group(host, cause_of(error))
            if host.raised(task.hotkey):
                host.requeue()
                self._replace(host, f"{len(host.errors)} questions in a row raised: {cause_of(error)}")
            return done
        except (RayActorError, GetTimeoutError) as error:
            done = host.fail(Reason.CRASHED, cause_of(error), in_flight_only=True)
            self._replace(host, cause_of(error))
            return done
        task, _ = host.in_flight.pop(ref)
        host.errors.clear()
        return [Done(task, answer, None if isinstance(answer, Failure) else ref)]
