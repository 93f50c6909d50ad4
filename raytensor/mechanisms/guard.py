"""A mechanism behind checks: what its code raises or returns by mistake becomes one error that names the place.

In: a mechanism of any author. Out: the same results, checked against the contract in `base.Mechanism`.
A mistake in `tasks`, `reduce`, `weights` or `after_round` raises `MechanismError`. A mistake in `score` fails the items
that it concerns with MECHANISM and leaves the others scored. Neither is ever an answer that a miner did not give.
Knows nothing of Ray, of files or of the chain.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raytensor.data.text import Text
from raytensor.errors import MechanismError, RayTensorError
from raytensor.mechanisms.base import Ask, Item, Mechanism, fault_of
from raytensor.mechanisms.evidence import Evidence, State
from raytensor.payload import Schemas
from raytensor.types import Failure, Reason, Score, Submission, Task

# By name, since torch is not imported here: the pool answers these with a smaller call, so they pass through.
_OUT_OF_MEMORY = {"MemoryError", "OutOfMemoryError"}


class Guard:
    """inner: the mechanism. path: its dotted path, for messages."""

    def __init__(self, inner: Mechanism, path: str) -> None:
        self.inner = inner
        self.path = path
        self._schemas: Schemas = getattr(inner, "schemas", {})

    def start(self, seed: int, first_round: int) -> None:
        """See `Mechanism.start`."""
        if (method := getattr(self.inner, "start", None)) is not None:
            self._call("start", method, seed, first_round)

    def after_round(self, state: State, evidence: Evidence, answers: Mapping[str, Submission]) -> None:
        """See `Mechanism.after_round`."""
        if (method := getattr(self.inner, "after_round", None)) is not None:
            self._call("after_round", method, state, evidence, answers)

    def tasks(self, ask: Ask, state: State, text: Text) -> list[tuple[Task, Any]]:
        """See `Mechanism.tasks`."""
        made = self._call("tasks", self.inner.tasks, ask, state, text)
        try:
            pairs = [(task, sealed) for task, sealed in made]
        except (TypeError, ValueError):
            raise self._wrong("tasks", f"returned {_shown(made)}, not a list of (Task, what is kept back)") from None
        for task, _ in pairs:
            if not isinstance(task, Task):
                raise self._wrong("tasks", f"returned {_shown(task)} where a Task is needed")
            if task.validator != ask.validator or task.netuid != ask.netuid:
                raise self._wrong("tasks", f"made task {task.task_id!r} for another validator or subnet")
        if len({task.task_id for task, _ in pairs}) < len(pairs):
            raise self._wrong("tasks", "gave two tasks of a round the same task_id")
        return [(self._with_schema(task), sealed) for task, sealed in pairs]

    def score(self, items: Sequence[Item]) -> list[Score | Failure]:
        """A `Score` or a `Failure` for each item; see `Mechanism.score`. Raises only when memory runs out."""
        try:
            found = self.inner.score(items)
            problem = _not_results(found, items)
        except Exception as error:  # the edge of the mechanism's code
            if _OUT_OF_MEMORY & {kind.__name__ for kind in type(error).__mro__}:
                raise
            found, problem = [], fault_of(error, self.path, "raised in score")
        else:
            if not problem:
                return [self._checked(item.task, result) for item, result in zip(items, found, strict=True)]
            problem = str(self._wrong("score", problem))
        if len(items) == 1:
            task = items[0].task
            return [Failure(task.task_id, task.hotkey, Reason.MECHANISM, problem)]
        return [result for item in items for result in self.score([item])]

    def reduce(self, state: State, evidence: Evidence) -> State:
        """See `Mechanism.reduce`."""
        made = self._call("reduce", self.inner.reduce, state, evidence)
        if not isinstance(made, State):
            raise self._wrong("reduce", f"returned {_shown(made)}, not a State")
        for owner, values in [*made.miners.items(), ("common", made.common)]:
            for name, value in values.items():
                if problem := _not_a_value(value):
                    raise self._wrong("reduce", f"gave {owner} {name}={_shown(value)}, which {problem}")
        return made

    def weights(self, state: State) -> dict[str, float]:
        """See `Mechanism.weights`; each is finite and not negative."""
        made = self._call("weights", self.inner.weights, state)
        if not isinstance(made, Mapping):
            raise self._wrong("weights", f"returned {_shown(made)}, not {{hotkey: weight}}")
        found = {}
        for hotkey, value in made.items():
            try:
                number = math.nan if value is None else float(value)
            except (TypeError, ValueError):
                number = math.nan
            if not isinstance(hotkey, str) or not math.isfinite(number) or number < 0:
                raise self._wrong("weights", f"gave {hotkey!r} the weight {_shown(value)}: must be finite and >= 0")
            found[hotkey] = number
        return found

    def _call(self, name: str, method: Callable[..., Any], *args: Any) -> Any:
        try:
            return method(*args)
        except RayTensorError:
            raise
        except Exception as error:  # the edge of the mechanism's code
            raise MechanismError(fault_of(error, self.path, f"raised in {name}")) from error

    def _checked(self, task: Task, result: Score | Failure) -> Score | Failure:
        """The result itself, or a `Failure` when it holds a value that no log can keep."""
        if isinstance(result, Failure):
            return result
        for name, value in result.values.items():
            if problem := _not_a_value(value):
                why = self._wrong("score", f"gave {name}={_shown(value)}, which {problem}")
                return Failure(task.task_id, task.hotkey, Reason.MECHANISM, str(why))
        return result

    def _with_schema(self, task: Task) -> Task:
        """The task with its payload checked, and with what its answer must hold."""
        schema = self._schemas.get(task.kind)
        if schema is None:
            if task.payload is not None:
                raise self._wrong("tasks", f"gave a task of kind {task.kind!r} a payload; `schemas` has no such kind")
            return task
        try:
            payload = schema.question.read(task.payload if task.payload is not None else {})
        except ValueError as error:
            raise self._wrong(
                "tasks", f"made a question of kind {task.kind!r} outside of its schema: {error}"
            ) from None
        return dataclasses.replace(task, payload=payload, answer=schema.answer)

    def _wrong(self, name: str, what: str) -> MechanismError:
        """The error for a result that breaks the contract, with the place where the method is defined."""
        method = inspect.unwrap(getattr(type(self.inner), name))
        code = getattr(method, "__code__", None)
        where = f" ({code.co_filename}, line {code.co_firstlineno}, in {name})" if code is not None else ""
        return MechanismError(f"{self.path}: {name} {what}{where}")


def _not_results(found: Any, items: Sequence[Item]) -> str:
    """What is wrong with the results of `score` as a whole; "" when nothing is."""
    if not isinstance(found, Sequence) or len(found) != len(items):
        number = len(found) if isinstance(found, Sequence) else _shown(found)
        return f"returned {number} for {len(items)} items: must be a list with a result for each"
    for item, result in zip(items, found, strict=True):
        if not isinstance(result, (Score, Failure)):
            return f"returned {_shown(result)}: must be a Score or a Failure"
        named = result.task_id if isinstance(result, Score) else result.item_id
        if named != item.task.task_id or result.hotkey != item.task.hotkey:
            return f"returned a result of {named!r} for task {item.task.task_id!r}"
    return ""


def _not_a_value(value: Any) -> str:
    """Why a value can't be in evidence or a state; "" when it can."""
    if isinstance(value, str):
        return ""
    for number in value if isinstance(value, (tuple, list)) else (value,):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            return "is not a float, a str or a tuple of floats"
        if not math.isfinite(number):
            return "is not finite"
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
