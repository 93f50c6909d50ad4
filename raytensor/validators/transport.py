"""How questions reach miners: inside the cluster by Ray calls, or to anybody's miner by signed HTTP.

In: tasks, and the `Metagraph` of their subnet. Out: one answer for each task, as it comes: `Response`, `Submission` or
`Failure`. The same task gives the same answer on both. Bounds: each task has its own deadline; no answer is waited for
longer than the longest of them and a grace. Over the wire files are downloaded by the asker, ahead of the scorers, who
are handed what is here already. Knows nothing of scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from raytensor.types import Failure, Metagraph, Reason, Response, Submission, Task

Answer = Response | Submission | Failure
GRACE_S = 15.0


class MinerTransport(Protocol):
    """One way to ask."""

    def ask(self, tasks: Sequence[Task], metagraph: Metagraph) -> Iterator[Answer]:
        """The answer to each task exactly once, in the order in which they come."""


class InCluster:
    """Miners of this cluster. fleet: a `miners.fleet.Fleet`, or what else has its `ask`."""

    def __init__(self, fleet: Any) -> None:
        self._fleet = fleet

    def ask(self, tasks: Sequence[Task], metagraph: Metagraph) -> Iterator[Answer]:
        return self._fleet.ask(tasks)


class Wire:
    """Miners wherever the metagraph says that they listen. asker: handle of a `wire.asker.Asker` actor."""

    def __init__(self, asker: Any) -> None:
        self._asker = asker

    def ask(self, tasks: Sequence[Task], metagraph: Metagraph) -> Iterator[Answer]:
        left = {task.task_id: task for task in tasks}
        wanted = {task.hotkey for task in tasks}
        axons = {
            hotkey: axon for hotkey, axon in zip(metagraph.hotkeys, metagraph.axons, strict=True) if hotkey in wanted
        }
        # Not all are asked at once: each answer may take as long, counted from the one before.
        limit_s = max((task.deadline_s for task in tasks), default=0.0) + GRACE_S
        why = ""
        answers = self._asker.ask.options(num_returns="streaming").remote(list(tasks), axons)
        try:
            while left and not why:
                if not ray.wait([answers], timeout=limit_s)[0]:
                    why = "the asking process gave no answer in time"
                    break
                answer = ray.get(next(answers), timeout=GRACE_S)
                left.pop(answer.item_id if isinstance(answer, Failure) else answer.task_id)
                yield answer
        except (RayError, StopIteration) as error:
            why = f"the asking process failed: {str(error).strip().splitlines()[-1] if str(error) else type(error).__name__}"
        for task in left.values():  # our fault, so it costs no miner anything
            yield Failure(task.task_id, task.hotkey, Reason.CANCELLED, why)
