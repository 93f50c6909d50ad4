"""All miners of a run: which host actor holds which, and every question answered exactly once.

In: rounds to train, tasks. Out: a `Response` or a `Failure` per task, in completion order.
Waits for: a host's training at most `miners.train_timeout_s`, an answer at most its task's deadline, counted from the
moment when the host turned to it; a new host at most `cluster.start_timeout_s`.
Bounds: a host holds at most `QUEUE` questions; the others wait here.
Knows nothing of scores. Which host a miner is on makes no difference to its answers.

A host that dies or hangs is replaced from the newest checkpoint, at most `MAX_REPLACEMENTS` times. The questions that it
had in hand fail; those that waited for its training or behind the others go to the replacement.

A sharded miner is a host by itself: a placement group with its first rank, which is the host, and the other ranks. When
one rank dies or an error leaves them out of step, the whole group is ended and a new one takes its place; it trains the
rounds since its checkpoint again, so that it ends up where an undisturbed one would be.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from raytensor.cluster import wait_ready
from raytensor.config import MinerProfile, RunConfig
from raytensor.data.text import Text
from raytensor.errors import ClusterError
from raytensor.miners import checkpoints, group
from raytensor.miners.group import LANES, Group
from raytensor.miners.host import MinerHost, Trained
from raytensor.miners.placement import deal, is_sharded, place, victims
from raytensor.types import Failure, Reason, Response, Submission, Task

QUEUE = 2  # the second question hides the transfer of the first one's answer
MAX_REPLACEMENTS = 4  # of one host


@dataclass
class _Host:
    number: int
    members: list[tuple[str, MinerProfile]]
    actor: Any = None  # None when the host is lost for good
    busy: Any = None  # ObjectRef of the start or the training that comes before any answer
    busy_until: float = 0.0
    turned: float = 0.0  # when it turned to its oldest question
    # A question is (task, ObjectRef of the response that the miner may see | None).
    waiting: deque[tuple[Task, Any]] = field(default_factory=deque)
    held: dict[Any, tuple[Task, Any]] = field(default_factory=dict)  # ObjectRef of the answer -> question, oldest first
    replaced: int = 0
    group: Group | None = None  # of a sharded miner; its first rank is the actor
    told: Any = None  # ObjectRef of what was wrong with the checkpoints that it began with

    @property
    def sharded(self) -> bool:
        return is_sharded(self.members[0][1])

    @property
    def name(self) -> str:
        return f"sharded miner {self.number}" if self.sharded else f"miner host {self.number}"


@dataclass
class _Done:
    """One task that left: its answer, and the answer's ObjectRef when it is no `Failure`."""

    task: Task
    answer: Response | Submission | Failure
    ref: Any = None


class Fleet:
    """The miners `hotkeys` (profiles are dealt to them in turn) on `num_hosts` host actors.

    text           put into the object store once, read by every host without a copy.
    folder         where checkpoints go; None writes none.
    resume_round   round whose checkpoints the miners go on from; None starts with new models.
    The constructor waits for room for the sharded miners only, and raises `ClusterError` when there is none;
    `wait_ready` waits for the hosts.
    """

    def __init__(
        self,
        cfg: RunConfig,
        hotkeys: Sequence[str],
        text: Text,
        *,
        num_hosts: int,
        folder: Path | None = None,
        resume_round: int | None = None,
    ) -> None:
        self._cfg = cfg
        self._folder = folder
        self._text = ray.put(text)
        profiles = deal(cfg.miners, hotkeys)
        self._victims = victims(profiles)
        shared = {hotkey: profile for hotkey, profile in profiles.items() if not is_sharded(profile)}
        alone = [[(hotkey, profile)] for hotkey, profile in profiles.items() if is_sharded(profile)]
        self._hosts = [_Host(number, members) for number, members in enumerate([*place(shared, num_hosts), *alone])]
        self._host_of = {hotkey: host for host in self._hosts for hotkey, _ in host.members}
        self.num_hosts = len(self._hosts)
        self._round = resume_round if resume_round is not None else -1  # newest round that was trained
        self._incidents: list[str] = []
        self._front: Any = None
        self.train_losses: dict[str, float] = {}  # newest training loss by hotkey, nats per token
        self.files: dict[str, str] = {}  # newest file by hotkey, as a digest, where the mechanism asks for files
        self.train_s = 0.0  # seconds that hosts spent training, summed over hosts
        try:
            for host in sorted(self._hosts, key=lambda host: not host.sharded):  # what may be refused comes first
                self._start(host, resume_round)
        except ClusterError:
            self.close()
            raise

    def wait_ready(self, timeout_s: float) -> dict[str, int]:
        """Wait until every host's constructor is through; process ids by host name. Raises `ClusterError` when one is late."""
        refs = {host.name: host.actor.ready.remote() for host in self._hosts}
        groups = {host.name: host.group.ready() for host in self._hosts if host.group is not None}
        refs |= {
            f"{name}, rank {rank}": ref for name, group in groups.items() for rank, ref in enumerate(group, start=1)
        }
        wait_ready(refs, timeout_s=timeout_s)
        return {name: ray.get(ref, timeout=timeout_s) for name, ref in refs.items()}

    def train(self, round: int, committed: Mapping[str, str] | None = None) -> None:
        """Start the training of one round on every host, and return; a host answers as soon as its own is done.

        committed  digests by hotkey that the chain shows, where the mechanism asks for files: copiers look at them.
        """
        self._round = round
        known = committed or {}
        self._look_at_groups()
        for host in self._hosts:
            if host.busy is not None and ray.wait([host.busy], timeout=0)[0]:
                self._end_busy(host)
            if host.actor is not None:
                begin = max(time.monotonic(), host.busy_until if host.busy is not None else 0.0)
                own = (
                    None
                    if committed is None
                    else {hotkey: known[hotkey] for hotkey, _ in host.members if hotkey in known}
                )
                victims = {
                    hotkey: self._victims[hotkey] for hotkey, _ in host.members if self._victims.get(hotkey) in known
                }
                originals = {hotkey: (victim, known[victim]) for hotkey, victim in victims.items()}
                host.busy, host.busy_until = (
                    host.actor.train.remote(round, own, originals),
                    begin + self._cfg.miners.train_timeout_s,
                )

    def wait_trained(self) -> None:
        """Wait until every host is through with its training, at most its time-out; one that is late is replaced.

        For rounds in which some hosts are asked nothing: their work must not pile up.
        """
        while busy := {host.busy: host for host in self._hosts if host.busy is not None}:
            following = {ref: host for host in busy.values() if host.group is not None for ref in host.group.following}
            late = min(busy.values(), key=lambda host: host.busy_until)
            ready, _ = ray.wait(
                [*busy, *following], num_returns=1, timeout=max(0.0, late.busy_until - time.monotonic())
            )
            if not ready:
                self._replace(late, "hung")
            for ref in ready:
                if ref in following:
                    self._lose_group(following[ref], following[ref].group.lost() or "a rank is gone")
                else:
                    self._end_busy(busy[ref])

    def ask(self, tasks: Sequence[Task]) -> Iterator[Response | Submission | Failure]:
        """Every task's answer, each exactly once, in completion order.

        A copying miner is asked when its victim's answer to the same (round, netuid, validator) is there, and sees it.
        """
        asked = {(task.round, task.netuid, task.validator, task.hotkey) for task in tasks}
        followers: dict[tuple[int, int, str, str], list[Task]] = {}
        for host in self._hosts:  # what an earlier caller did not wait for is nobody's any more
            host.held.clear()
            host.waiting.clear()
        self._look_at_groups()
        for task in tasks:
            key = (task.round, task.netuid, task.validator, self._victims.get(task.hotkey, ""))
            if key in asked:
                followers.setdefault(key, []).append(task)
            else:
                self._host_of[task.hotkey].waiting.append((task, None))
        left = len(tasks)
        while left:
            for done in self._step():
                key = (done.task.round, done.task.netuid, done.task.validator, done.task.hotkey)
                for follower in followers.pop(key, []):
                    self._host_of[follower.hotkey].waiting.append((follower, done.ref))
                left -= 1
                yield done.answer

    def heldout_losses(self) -> dict[str, float | None]:
        """Held-out loss by hotkey in nats per token; None for a miner that gives no answers, or whose host is gone."""
        found: dict[str, float | None] = dict.fromkeys(self._host_of)
        for losses in self._everywhere("heldout_losses").values():
            found.update(losses)
        return found

    def checkpoint(self, round: int) -> bool:
        """Write a checkpoint of every miner and wait for it; False when a host could not (its incident says why)."""
        if self._folder is None:
            return False
        whole = len(self._everywhere("checkpoint", round)) == len(self._hosts)
        if whole:
            checkpoints.prune(self._folder, round)
        return whole

    def open_to(self, front: Any) -> None:
        """Questions from outside may come through `front` (a `serving.WireFrontend` actor) from now on; it is told of replacements."""
        self._front = front
        for host in self._hosts:
            if host.actor is not None:
                front.route.remote([hotkey for hotkey, _ in host.members], host.actor)

    def incidents(self) -> list[str]:
        """What went wrong with hosts since the last call, a line each."""
        for host in self._hosts:
            if host.told is not None and ray.wait([host.told], timeout=0)[0]:
                told, host.told = host.told, None
                try:
                    self._incidents += [f"{host.name}: {line}" for line in ray.get(told, timeout=5)]
                except (RayActorError, RayTaskError, GetTimeoutError):
                    pass  # it is gone: what ended it is told where that is found
        found, self._incidents = self._incidents, []
        return found

    def close(self) -> None:
        """End the hosts at once; what was not checkpointed is lost."""
        for host in self._hosts:
            self._end(host)

    # ------------------------------------------------------------------------------------------------ inside

    def _start(self, host: _Host, resume_round: int | None) -> None:
        miners = self._cfg.miners
        if host.sharded:
            host.group = group.start(self._cfg, host.name, host.members[0], self._text, self._folder, resume_round)
            host.actor = host.group.first
        else:
            factory = ray.remote(**LANES)(MinerHost).options(
                num_cpus=miners.cpus_per_host, num_gpus=miners.gpus_per_host
            )
            host.actor = factory.remote(self._cfg, host.members, self._text, self._folder, resume_round)
        if self._front is not None:
            self._front.route.remote([hotkey for hotkey, _ in host.members], host.actor)
        host.busy, host.told = host.actor.ready.remote(), host.actor.setbacks.remote()
        host.busy_until = time.monotonic() + self._cfg.cluster.start_timeout_s

    @staticmethod
    def _end(host: _Host) -> None:
        """End a host's processes at once."""
        if host.group is not None:
            host.group.end()
        elif host.actor is not None:
            ray.kill(host.actor)
        host.actor = host.busy = host.group = None

    def _look_at_groups(self) -> None:
        """Replace groups that lost a rank since anybody looked."""
        for host in self._hosts:
            if host.group is not None and (cause := host.group.lost()):
                self._lose_group(host, cause)

    def _lose_group(self, host: _Host, cause: str) -> list[_Done]:
        """A sharded miner's ranks are out of step: the questions in hand fail, unless they only waited for the training."""
        done: list[_Done] = []
        if host.busy is not None:
            self._put_back(host)
        else:
            done = self._fail(host, Reason.CRASHED, cause, held_only=True)
        self._replace(host, cause)
        return done

    @staticmethod
    def _put_back(host: _Host) -> None:
        """Questions that the host did not look at yet go to its replacement."""
        host.waiting.extendleft(reversed(host.held.values()))
        host.held.clear()

    def _step(self) -> list[_Done]:
        """Hand out what can be, wait for the first thing to happen, and return the tasks that are through."""
        done: list[_Done] = []
        for host in self._hosts:
            if host.actor is None:
                done += self._fail(
                    host, Reason.CRASHED, f"{host.name} is gone and its {MAX_REPLACEMENTS} replacements are used up"
                )
            while host.waiting and len(host.held) < QUEUE:
                question = host.waiting.popleft()
                if not host.held:
                    host.turned = time.monotonic()
                host.held[host.actor.answer.remote(*question)] = question
        working = [host for host in self._hosts if host.held]
        refs = {ref: host for host in working for ref in ([host.busy] if host.busy is not None else host.held)}
        refs |= {ref: host for host in working if host.group is not None for ref in host.group.following}
        if done or not refs:
            assert done, "nothing to wait for"
            return done
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
        if not ready:
            wait_s = max(0.0, min(self._deadline(host) for host in working) - time.monotonic())
            ready, _ = ray.wait(list(refs), num_returns=1, timeout=wait_s)
        for ref in ready:
            host = refs[ref]
            if host.group is not None and ref in host.group.following:
                done += self._lose_group(host, host.group.lost() or "a rank is gone")
            elif ref is host.busy:
                self._end_busy(host)
            elif ref in host.held:
                done += self._collect(host, ref)
        for host in working:
            if host.held and time.monotonic() > self._deadline(host):
                if host.busy is not None:  # nobody gets an answer of a host that hangs in its training
                    done += self._fail(host, Reason.TIMEOUT, f"{host.name} was still training or starting")
                else:
                    task, _ = host.held.pop(next(iter(host.held)))
                    done.append(
                        _Done(task, self._failure(task, Reason.TIMEOUT, f"no answer within {task.deadline_s:g} s"))
                    )
                    done += self._fail(host, Reason.CRASHED, "its host hung on another question", held_only=True)
                self._replace(host, "hung")
        return done

    def _deadline(self, host: _Host) -> float:
        return host.busy_until if host.busy is not None else host.turned + next(iter(host.held.values()))[0].deadline_s

    def _end_busy(self, host: _Host) -> None:
        """The start or the training is over; the host turns to its questions."""
        ref, host.busy = host.busy, None
        host.turned = time.monotonic()
        try:
            result = ray.get(ref, timeout=5)
        except RayTaskError as error:
            if host.group is not None:
                self._put_back(host)
                self._replace(host, _last_line(error))
            else:  # the host lives on, with the models as they are
                self._incidents.append(f"{host.name}: training raised: {_last_line(error)}")
        except (RayActorError, GetTimeoutError) as error:
            # It died before it looked at a question: none of them is to blame.
            self._put_back(host)
            self._replace(host, _last_line(error))
        else:
            if isinstance(result, Trained):
                self.train_losses.update(result.losses)
                self.files.update(result.files)
                self.train_s += result.wall_s

    def _collect(self, host: _Host, ref: Any) -> list[_Done]:
        host.turned = time.monotonic()
        try:
            answer = ray.get(ref, timeout=5)
        except RayTaskError as error:
            task, _ = host.held.pop(ref)
            done = [_Done(task, self._failure(task, Reason.ERROR, _last_line(error)))]
            return done + (self._lose_group(host, _last_line(error)) if host.group is not None else [])
        except (RayActorError, GetTimeoutError) as error:
            done = self._fail(host, Reason.CRASHED, _last_line(error), held_only=True)
            self._replace(host, _last_line(error))
            return done
        task, _ = host.held.pop(ref)
        return [_Done(task, answer, None if isinstance(answer, Failure) else ref)]

    def _fail(self, host: _Host, reason: Reason, detail: str, *, held_only: bool = False) -> list[_Done]:
        questions = [*host.held.values()] + ([] if held_only else [*host.waiting])
        host.held.clear()
        if not held_only:
            host.waiting.clear()
        return [_Done(task, self._failure(task, reason, detail)) for task, _ in questions]

    @staticmethod
    def _failure(task: Task, reason: Reason, detail: str) -> Failure:
        return Failure(task.task_id, task.hotkey, reason, detail)

    def _replace(self, host: _Host, cause: str) -> None:
        self._end(host)
        host.replaced += 1
        if host.replaced > MAX_REPLACEMENTS:
            self._incidents.append(f"{host.name} is given up after {MAX_REPLACEMENTS} replacements: {cause}")
            return
        resume_round = checkpoints.newest(self._folder, (hotkey for hotkey, _ in host.members), up_to=self._round)
        since = "new models" if resume_round is None else f"the checkpoint of round {resume_round}"
        self._incidents.append(f"{host.name} is replaced and goes on from {since}: {cause}")
        try:
            self._start(host, resume_round)
        except ClusterError as error:  # no room for a group any more, a node may be gone
            self._incidents.append(f"{host.name} is given up: {error}")
            return
        if host.sharded:  # what it had learnt since the checkpoint it learns again, from the same text
            missed = range((resume_round or 0) + 1, self._round + 1)
            for round in missed:
                host.busy = host.actor.train.remote(round)
            host.busy_until += len(missed) * self._cfg.miners.train_timeout_s

    def _everywhere(self, method: str, *args: Any) -> dict[int, Any]:
        """Results by host number of one call on every host, within `miners.train_timeout_s` for all."""
        refs = {getattr(host.actor, method).remote(*args): host for host in self._hosts if host.actor is not None}
        ready, _ = (
            ray.wait(list(refs), num_returns=len(refs), timeout=self._cfg.miners.train_timeout_s) if refs else ([], [])
        )
        found: dict[int, Any] = {}
        for ref, host in refs.items():
            if ref not in ready:
                self._incidents.append(f"{host.name}: no end of {method} within {self._cfg.miners.train_timeout_s:g} s")
                continue
            try:
                found[host.number] = ray.get(ref, timeout=5)
            except (RayActorError, RayTaskError, GetTimeoutError) as error:
                self._incidents.append(f"{host.name}: {method} failed: {_last_line(error)}")
                if host.group is not None:  # its ranks may be out of step
                    self._replace(host, _last_line(error))
        return found


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
