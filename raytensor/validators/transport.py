"""How tasks reach miners: by Ray calls inside the cluster, or by signed HTTP to any miner.

In: tasks, and the `Metagraph` of their subnet. Out: one answer per task in completion order: `Response`, `Submission`
or `Failure`. The same task gives the same answer on both: `wire.payloads.checked` is the last step of each.
Waits for: each answer, at most the longest deadline of the tasks and `GRACE_S`. Over the wire the asker downloads files
before the scorers need them. Knows nothing of scores.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import ray
from ray.exceptions import RayError

from raytensor.errors import cause_of
from raytensor.types import Failure, Metagraph, Reason, Response, Submission, Task
from raytensor.wire.payloads import checked

Answer = Response | Submission | Failure
GRACE_S = 15.0


class MinerTransport(Protocol):
    """One way to ask miners."""

    def ask(self, tasks: Sequence[Task], metagraph: Metagraph | None) -> Iterator[Answer]:
        """The answer to each task exactly once, in completion order."""
        ...


class _Miners(Protocol):
    """What `InCluster` needs of a fleet."""

    def ask(self, tasks: Sequence[Task]) -> Iterator[Answer]: ...


class InCluster:
    """Miners of this cluster; the metagraph is not needed. fleet: a `miners.fleet.Fleet`."""

    def __init__(self, fleet: _Miners) -> None:
        self._fleet = fleet

    def ask(self, tasks: Sequence[Task], metagraph: Metagraph | None) -> Iterator[Answer]:
        asked = {task.task_id: task for task in tasks}
        for answer in self._fleet.ask(tasks):
            task_id = answer.item_id if isinstance(answer, Failure) else answer.task_id
            yield checked(asked[task_id], answer)


class Wire:
    """Miners at the addresses in the metagraph. asker: handle of a `wire.asker.Asker` actor."""

    def __init__(self, asker: Any) -> None:
        self._asker = asker

    def ask(self, tasks: Sequence[Task], metagraph: Metagraph | None) -> Iterator[Answer]:
        assert metagraph is not None, "the wire needs the miners' addresses"
        left = {task.task_id: task for task in tasks}
        wanted, axons_of = {task.hotkey for task in tasks}, zip(metagraph.hotkeys, metagraph.axons, strict=True)
        axons = {hotkey: axon for hotkey, axon in axons_of if hotkey in wanted}
        # Not all are asked at once, so the limit counts from the answer before.
        limit_s = max((task.deadline_s for task in tasks), default=0.0) + GRACE_S
        why = ""
        answers = self._asker.ask.options(num_returns="streaming").remote(list(tasks), axons)
        try:
            while left and not why:
                if not ray.wait([answers], timeout=limit_s)[0]:
                    why = "the asking process gave no answer in time"
                    break
                answer = cast(Answer, ray.get(next(answers), timeout=GRACE_S))
                left.pop(answer.item_id if isinstance(answer, Failure) else answer.task_id)
                yield answer
        except (RayError, StopIteration) as error:
            why = f"the asking process failed: {cause_of(error)}"
        for task in left.values():  # our own fault, which gather() does not count against miners
            yield Failure(task.task_id, task.hotkey, Reason.CANCELLED, why)
