"""One host as the fleet sees it: its actor, its training under way, and its questions.

In: questions. Out: calls of the host's actor, and `Done` values for the questions that fail.
Bounds: at most `QUEUE` questions are in flight; the others wait here. Knows nothing of replacement.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import ray

from raytensor.miners.group import Group
from raytensor.miners.placement import Member, is_sharded
from raytensor.types import Failure, Reason, Response, Submission, Task

QUEUE = 2  # the second question hides the transfer of the first one's answer

Question = tuple[Task, Any]  # a task, and the ObjectRef of the response that the miner may see (None: of none)


MAX_ERRORS = 8  # questions in a row that raise, after which a host is replaced
MAX_FAILED_ROUNDS = 3  # rounds in a row that raise, after which a host is replaced


@dataclass
class Done:
    """A finished task: its answer, and the answer's ObjectRef unless it is a `Failure`."""

    task: Task
    answer: Response | Submission | Failure
    ref: Any = None

    @classmethod
    def failed(cls, task: Task, reason: Reason, detail: str) -> Done:
        """A task that ends with a `Failure`."""
        return cls(task, Failure(task.task_id, task.hotkey, reason, detail))


@dataclass
class HostHandle:
    """A host and its members, (hotkey, profile) of each. A sharded miner is the only member of its host."""

    number: int
    members: list[Member]
    actor: Any = None  # None when the host is lost and not replaced
    group: Group | None = None  # processes of a sharded miner; `actor` is the first of them
    busy: Any = None  # ObjectRef of the start or the training that comes before any answer; None: idle
    busy_until: float = 0.0  # deadline of it, monotonic seconds
    started_at: float = 0.0  # when the host started its oldest question, monotonic seconds
    waiting: deque[Question] = field(default_factory=deque)
    in_flight: dict[Any, Question] = field(default_factory=dict)  # ObjectRef of the answer -> question, oldest first
    replacements: int = 0
    errors: list[str] = field(default_factory=list)  # hotkeys whose questions raised since the last that did not
    failed_rounds: int = 0  # rounds of training in a row in which no miner trained
    ping: Any = None  # ObjectRef of the newest question whether an idle host is there
    pinged_at: float = 0.0  # when it was asked, monotonic seconds
    warnings: Any = None  # ObjectRef of the host's warnings about its checkpoints; None once they were read

    @property
    def sharded(self) -> bool:
        """Whether the host is a miner with processes of its own."""
        return is_sharded(self.members[0][1])

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"sharded miner {self.number}" if self.sharded else f"miner host {self.number}"

    @property
    def hotkeys(self) -> list[str]:
        """Hotkeys of the members."""
        return [hotkey for hotkey, _ in self.members]

    def raised(self, hotkey: str) -> bool:
        """Note a call that raised. True when the host is to blame: many in a row, and not of one miner alone."""
        self.errors.append(hotkey)
        return len(self.errors) >= MAX_ERRORS and len(set(self.errors)) >= min(2, len(self.members))

    def dispatch(self) -> None:
        """Send waiting questions to the actor, as many as may be in flight."""
        while self.waiting and len(self.in_flight) < QUEUE:
            question = self.waiting.popleft()
            if not self.in_flight:
                self.started_at = time.monotonic()
            self.in_flight[self.actor.answer.remote(*question)] = question

    def deadline(self) -> float:
        """When the start, the training or the oldest question is late, in monotonic seconds."""
        if self.busy is not None:
            return self.busy_until
        return self.started_at + next(iter(self.in_flight.values()))[0].deadline_s

    def requeue(self) -> None:
        """Return the questions in flight, which the host did not start, to the front of the queue."""
        self.waiting.extendleft(reversed(self.in_flight.values()))
        self.in_flight.clear()

    def fail(self, reason: Reason, detail: str, *, in_flight_only: bool = False) -> list[Done]:
        """Remove the questions, each with a failure."""
        questions = [*self.in_flight.values()] + ([] if in_flight_only else [*self.waiting])
        self.in_flight.clear()
        if not in_flight_only:
            self.waiting.clear()
        return [Done.failed(task, reason, detail) for task, _ in questions]

    def clear(self) -> None:
        """Forget all questions."""
        self.in_flight.clear()
        self.waiting.clear()

    def hang(self) -> str:
        """Why it hangs, as far as its processes tell."""
        return f"hung: {self.group.hang()}" if self.group is not None else "hung"

    def end(self) -> None:
        """End the processes at once."""
        if self.group is not None:
            self.group.end()
        elif self.actor is not None:
            ray.kill(self.actor)
        self.actor = self.busy = self.group = self.ping = None
