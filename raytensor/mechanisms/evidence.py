"""Evidence of one round and the state that it is reduced to, both with an exact JSON form.

In: scores and failures of a round. Out: `Evidence` in the one order in which it is reduced; `advance`, the only way in
which a state changes. JSON keeps every float to the bit: what was logged gives the same weights again.
Knows nothing of files, of Ray or of any one mechanism.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from raytensor.types import Failure, Reason, Score, Value


@dataclass(frozen=True, slots=True)
class State:
    """One validator's opinion of one subnet. Never changed; `Mechanism.reduce` makes a new one.

    round   newest round that was reduced; -1 before the first.
    miners  by hotkey: named numbers, words or lists of numbers.
    common  what belongs to no one miner.
    """

    round: int = -1
    miners: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    common: Mapping[str, Value] = field(default_factory=dict)

    def floats(self, name: str) -> dict[str, float]:
        """One number by hotkey, of the miners that have it."""
        found = ((hotkey, values.get(name)) for hotkey, values in self.miners.items())
        return {hotkey: value for hotkey, value in found if isinstance(value, float)}

    def words(self, name: str) -> dict[str, str]:
        """One word by hotkey, of the miners that have it."""
        found = ((hotkey, values.get(name)) for hotkey, values in self.miners.items())
        return {hotkey: value for hotkey, value in found if isinstance(value, str)}


def number(values: Mapping[str, Value], name: str, default: float | None = None) -> float:
    """A number of a score or of a miner's state. Raises `KeyError` where it is missing and has no default."""
    found = values[name] if default is None else values.get(name, default)
    assert isinstance(found, (int, float)), f"{name}={found!r} is not a number"
    return found


def numbers(values: Mapping[str, Value], name: str, default: tuple[float, ...] | None = None) -> tuple[float, ...]:
    """A list of numbers of a score or of a miner's state; as `number`."""
    found = values[name] if default is None else values.get(name, default)
    assert isinstance(found, tuple), f"{name}={found!r} is not a list of numbers"
    return found


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that one round of one validator shows about the miners. Made by `gather`.

    results   sorted by (hotkey, task id); a `Failure` here is the miner's own and may lower its score.
    unjudged  failures that were not the miner's: logged, never counted.
    gone      hotkeys that have left the subnet since the round before; their state is dropped.
    """

    netuid: int
    validator: str
    round: int
    results: tuple[Score | Failure, ...]
    unjudged: tuple[Failure, ...] = ()
    gone: tuple[str, ...] = ()

    @property
    def scores(self) -> list[Score]:
        return [result for result in self.results if isinstance(result, Score)]

    @property
    def failures(self) -> list[Failure]:
        return [result for result in self.results if isinstance(result, Failure)]


Results = Mapping[str, Score | Failure]


class Reducer(Protocol):
    """The half of a mechanism that turns evidence into weights; see `base.Mechanism`."""

    def reduce(self, state: State, evidence: Evidence) -> State: ...

    def weights(self, state: State) -> dict[str, float]: ...


def gather(
    netuid: int, validator: str, round: int, results: Results, *, answered: Iterable[str], gone: Iterable[str] = ()
) -> Evidence:
    """The evidence of a round; the order of `results` does not matter.

    results   by task id.
    answered  task ids of the questions whose answer reached the scorers. A failure after that is a fault of ours unless
              it is MALFORMED; so is every failure when no miner at all answered, and every CANCELLED or MECHANISM.
    """
    reached = set(answered)

    def is_ours(task_id: str, result: Score | Failure) -> bool:
        if isinstance(result, Score) or result.reason is Reason.MALFORMED:
            return False
        return not reached or task_id in reached or result.reason in (Reason.CANCELLED, Reason.MECHANISM)

    ordered = sorted(results.items(), key=lambda item: (item[1].hotkey, item[0]))
    judged = tuple(result for task_id, result in ordered if not is_ours(task_id, result))
    unjudged = tuple(result for task_id, result in ordered if isinstance(result, Failure) and is_ours(task_id, result))
    return Evidence(netuid, validator, round, judged, unjudged, tuple(sorted(gone)))


def advance(mechanism: Reducer, state: State, evidence: Evidence) -> State:
    """The state after a round: hotkeys that left are dropped, then the mechanism reduces. Pure, as replay needs it."""
    assert evidence.round > state.round, f"round {evidence.round} after round {state.round}"
    kept = {hotkey: values for hotkey, values in state.miners.items() if hotkey not in evidence.gone}
    reduced = mechanism.reduce(dataclasses.replace(state, miners=kept), evidence)
    return dataclasses.replace(reduced, round=evidence.round)


def evidence_to_json(evidence: Evidence) -> dict[str, Any]:
    """Plain JSON of an `Evidence`; written with `json.dumps(..., allow_nan=False)` it comes back equal."""
    head = {"netuid": evidence.netuid, "validator": evidence.validator, "round": evidence.round}
    results, unjudged = (list(map(_result_to_json, found)) for found in (evidence.results, evidence.unjudged))
    return head | {"results": results, "unjudged": unjudged, "gone": list(evidence.gone)}


def evidence_from_json(fields: Mapping[str, Any]) -> Evidence:
    """Raises ValueError, TypeError or KeyError when `fields` is not what `evidence_to_json` makes."""
    netuid, validator, round = int(fields["netuid"]), str(fields["validator"]), int(fields["round"])
    results = [_result_from_json(item, netuid, validator, round) for item in fields["results"]]
    found = [_result_from_json(item, netuid, validator, round) for item in fields["unjudged"]]
    unjudged = tuple(item for item in found if isinstance(item, Failure))
    if len(unjudged) < len(found):
        raise ValueError("unjudged must hold failures only")
    return Evidence(netuid, validator, round, tuple(results), unjudged, tuple(map(str, fields["gone"])))


def state_to_json(state: State) -> dict[str, Any]:
    """Plain JSON of a `State`."""
    miners = {hotkey: _plain(values) for hotkey, values in state.miners.items()}
    return {"round": state.round, "miners": miners, "common": _plain(state.common)}


def state_from_json(fields: Mapping[str, Any]) -> State:
    """Raises ValueError, TypeError, AttributeError or KeyError when `fields` is not what `state_to_json` makes."""
    miners = {str(hotkey): _values(values) for hotkey, values in fields["miners"].items()}
    return State(int(fields["round"]), miners, _values(fields["common"]))


def _result_to_json(result: Score | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        item = {"task_id": result.item_id, "hotkey": result.hotkey}
        return item | {"failure": result.reason.value, "detail": result.detail}
    item = {"task_id": result.task_id, "hotkey": result.hotkey, "values": _plain(result.values)}
    return item | ({"group": result.group} if result.group else {})


def _result_from_json(item: Mapping[str, Any], netuid: int, validator: str, round: int) -> Score | Failure:
    task_id, hotkey = str(item["task_id"]), str(item["hotkey"])
    if "failure" in item:
        return Failure(task_id, hotkey, Reason(item["failure"]), str(item["detail"]))
    return Score(task_id, round, netuid, validator, hotkey, _values(item["values"]), str(item.get("group", "")))


def _plain(values: Mapping[str, Value]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _values(fields: Mapping[str, Any]) -> dict[str, Value]:
    return {str(name): _value(value) for name, value in fields.items()}


def _value(value: Any) -> Value:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return tuple(_number(item) for item in value)
    return _number(value)


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, (str, bool)) or not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number
