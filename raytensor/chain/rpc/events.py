"""The outcome of each item of an extrinsic, parsed from its events.

In: the call that was sent and the decoded events of its extrinsic, in order. Out: one `Outcome` per item: a plain call
is one item, a batch has those of its calls, batch_set_weights one per subnet, a proxied or sudo call its inner call's.
An approval of a multisig is one item; the last one has the outcome of the call that it lets run.
An extrinsic may succeed although items of it failed: the events BatchInterrupted, ItemFailed, ProxyExecuted, Sudid and
BatchWeightItemFailed report them. A failed dispatch leaves no events (FRAME rolls them back).

The events of nested calls form a small grammar. The parser backtracks where only later events determine the end of an
inner call. Knows nothing of metadata: errors stay as they were decoded. Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raytensor.chain.calls import Call


@dataclass(frozen=True, slots=True)
class Event:
    """One decoded event. data: a dict of named fields, or the value(s) of unnamed ones."""

    module: str
    name: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one item. error: the decoded DispatchError, or a name; run: False if the item never ran."""

    ok: bool
    error: Any = None
    run: bool = True


OK = Outcome(True)
NOT_RUN = Outcome(False, error="NotRun", run=False)

_STRUCTURE = {
    "Utility": {"ItemCompleted", "ItemFailed", "BatchInterrupted", "BatchCompleted", "BatchCompletedWithErrors"},
    "Proxy": {"ProxyExecuted"},
    "Sudo": {"Sudid", "SudoAsDone"},
    "Multisig": {"NewMultisig", "MultisigApproval", "MultisigExecuted"},
    "SubtensorModule": {"BatchCompletedWithErrors", "BatchWeightItemFailed", "BatchWeightsCompleted"},
}
PALLET = "SubtensorModule"
_SET = {"WeightsSet", "WeightsCommitted"}  # an item of a batch took effect; its subnet is the only number in it
_BATCHES = {"Utility.batch", "Utility.batch_all", "Utility.force_batch"}
_WRAPPERS = {
    "Proxy.proxy": ("Proxy", "ProxyExecuted", "result"),
    "Proxy.proxy_announced": ("Proxy", "ProxyExecuted", "result"),
    "Sudo.sudo": ("Sudo", "Sudid", "sudo_result"),
    "Sudo.sudo_unchecked_weight": ("Sudo", "Sudid", "sudo_result"),
    "Sudo.sudo_as": ("Sudo", "SudoAsDone", "sudo_result"),
}
_ALONE = "Multisig.as_multi_threshold_1"  # runs its call without an event of its own
_INNER = {*_WRAPPERS, _ALONE}
_APPROVALS = {"Multisig.as_multi", "Multisig.approve_as_multi"}
_LISTS = {"SubtensorModule.batch_set_weights": "netuids", "SubtensorModule.batch_commit_weights": "netuids"}

_Parse = Iterator[tuple[tuple[Outcome, ...], int]]


def count_items(call: Call) -> int:
    """Number of items of a call, which is the length of `outcomes`."""
    if call.name in _BATCHES:
        return sum(count_items(inner) for inner in call.args["calls"])
    if call.name in _INNER:
        return count_items(call.args["call"])
    if call.name in _LISTS:
        return len(call.args[_LISTS[call.name]])
    return 1


def item_names(call: Call) -> tuple[str, ...]:
    """Name of the innermost call of each item, in the order of `outcomes`."""
    if call.name in _BATCHES:
        return tuple(name for inner in call.args["calls"] for name in item_names(inner))
    if call.name in _INNER:
        return item_names(call.args["call"])
    return (call.name,) * count_items(call)


def skeleton(call: Call) -> Call:
    """The call without the arguments that `outcomes` does not need, for the journal."""
    if call.name in _BATCHES:
        return Call(call.module, call.function, {"calls": [skeleton(inner) for inner in call.args["calls"]]})
    if call.name in _INNER or call.name in _APPROVALS and "call" in call.args:
        return Call(call.module, call.function, {"call": skeleton(call.args["call"])})
    if call.name in _LISTS:
        return Call(call.module, call.function, {"netuids": list(call.args[_LISTS[call.name]])})
    return Call(call.module, call.function)


def outcomes(call: Call, events: Sequence[Event]) -> tuple[Outcome, ...]:
    """One outcome per item, in the order of the call.

    Raises ValueError if the events are not those of this call: the end is missing, or the structure differs.
    """
    end = next((e for e in reversed(events) if e.module == "System" and e.name.startswith("Extrinsic")), None)
    if end is None:
        raise ValueError(f"no ExtrinsicSuccess or ExtrinsicFailed among the {len(events)} events of {call.name}")
    if end.name == "ExtrinsicFailed":
        return _all(call, Outcome(False, _field(end, "dispatch_error", 0)))
    unnamed = any(e.name == "BatchWeightItemFailed" and not _has_netuid(e.data) for e in events)
    kept = _STRUCTURE | ({PALLET: _STRUCTURE[PALLET] | _SET} if unnamed else {})
    stream = [e for e in events if e.name in kept.get(e.module, ())]
    for found, used in _parse(call, stream, 0):
        if used == len(stream):
            return found
    names = ", ".join(f"{e.module}.{e.name}" for e in stream)
    raise ValueError(f"the events of {call.name} do not fit its structure: {names}")


def fee(events: Sequence[Event]) -> int:
    """The fee that the extrinsic paid, in rao of TAO (TransactionPayment.TransactionFeePaid), 0 for a free call."""
    paid = [e for e in events if e.module == "TransactionPayment" and e.name == "TransactionFeePaid"]
    return int(_field(paid[-1], "actual_fee", 1)) if paid else 0


def _field(event: Event, name: str, index: int) -> Any:
    return event.data[name] if isinstance(event.data, dict) else event.data[index]


def _only(event: Event, name: str) -> Any:
    """The one field of an event, whether named or not."""
    if isinstance(event.data, dict) and name in event.data:
        return event.data[name]
    if isinstance(event.data, (tuple, list)) and len(event.data) == 1:
        return event.data[0]
    return event.data


def _all(call: Call, outcome: Outcome) -> tuple[Outcome, ...]:
    return (outcome,) * count_items(call)


def _is(stream: Sequence[Event], at: int, module: str, *names: str) -> bool:
    return at < len(stream) and stream[at].module == module and stream[at].name in names


def _parse(call: Call, stream: Sequence[Event], at: int) -> _Parse:
    """Every way to parse the events of a dispatch that returned Ok, as (outcomes, next position)."""
    if call.name in _BATCHES:
        yield from _parse_batch(call, stream, at)
    elif call.name in _WRAPPERS:
        yield from _parse_wrapper(call, stream, at)
    elif call.name == _ALONE:
        yield from _parse(call.args["call"], stream, at)
    elif call.name in _APPROVALS:
        yield from _parse_approval(call, stream, at)
    elif call.name in _LISTS:
        yield from _parse_list(call, stream, at)
    else:
        yield (OK,), at
        if _is(stream, at, PALLET, *_SET):
            yield (OK,), at + 1


def _parse_batch(call: Call, stream: Sequence[Event], at: int) -> _Parse:
    """Parse call by call. `states` has, for each reachable position, the outcomes so far as a linked list."""
    calls = call.args["calls"]
    states: dict[int, tuple | None] = {at: None}
    for index, inner in enumerate(calls):
        reached: dict[int, tuple | None] = {}
        for here, before in states.items():
            if call.function == "force_batch" and _is(stream, here, "Utility", "ItemFailed"):
                failed = Outcome(False, _only(stream[here], "error"))
                reached.setdefault(here + 1, (before, _all(inner, failed)))
            if call.function == "batch" and _is(stream, here, "Utility", "BatchInterrupted"):
                if int(_field(stream[here], "index", 0)) == index:
                    stopped = _all(inner, Outcome(False, _field(stream[here], "error", 1)))
                    never = sum(count_items(later) for later in calls[index + 1 :])
                    yield _flat(before) + stopped + (NOT_RUN,) * never, here + 1
            for found, end in _parse(inner, stream, here):
                if _is(stream, end, "Utility", "ItemCompleted"):
                    reached.setdefault(end + 1, (before, found))
        states = reached
    for here, before in states.items():
        if _is(stream, here, "Utility", "BatchCompleted", "BatchCompletedWithErrors"):
            yield _flat(before), here + 1


def _flat(chain: tuple | None) -> tuple[Outcome, ...]:
    parts = []
    while chain is not None:
        chain, found = chain
        parts.append(found)
    return tuple(outcome for part in reversed(parts) for outcome in part)


def _parse_wrapper(call: Call, stream: Sequence[Event], at: int) -> _Parse:
    module, name, field = _WRAPPERS[call.name]
    inner = call.args["call"]
    if _is(stream, at, module, name) and (error := _error_of(_only(stream[at], field))) is not None:
        yield _all(inner, Outcome(False, error)), at + 1
    for found, end in _parse(inner, stream, at):
        if _is(stream, end, module, name) and _error_of(_only(stream[end], field)) is None:
            yield found, end + 1


def _parse_approval(call: Call, stream: Sequence[Event], at: int) -> _Parse:
    if _is(stream, at, "Multisig", "NewMultisig", "MultisigApproval"):
        yield (OK,), at + 1
    if _is(stream, at, "Multisig", "MultisigExecuted"):
        if (error := _error_of(_field(stream[at], "result", 4))) is not None:
            yield (Outcome(False, error),), at + 1
    inner = call.args.get("call")
    for found, end in _parse(inner, stream, at) if inner is not None else ():
        if _is(stream, end, "Multisig", "MultisigExecuted"):
            if _error_of(_field(stream[end], "result", 4)) is None:
                yield (next((one for one in found if not one.ok), OK),), end + 1


def _error_of(result: Any) -> Any:
    """The error of a decoded Result, None if it is Ok."""
    if isinstance(result, dict) and "Err" in result:
        return result["Err"]
    return None


def _parse_list(call: Call, stream: Sequence[Event], at: int) -> _Parse:
    """batch_set_weights and batch_commit_weights: an event for each failed subnet, then the end of the batch.

    Older runtimes report a failure without its subnet: there the events WeightsSet and WeightsCommitted tell which
    subnets took effect, and the failures are those of the others, in order.
    """
    netuids = [int(netuid) for netuid in call.args[_LISTS[call.name]]]
    failed: dict[int, Any] = {}
    unnamed: list[Any] = []
    done: set[int] = set()
    while _is(stream, at, PALLET, "BatchCompletedWithErrors", "BatchWeightItemFailed", *_SET):
        event = stream[at]
        if event.name in _SET:
            done |= {netuid for netuid in netuids if netuid in _numbers(event.data)}
        elif event.name == "BatchWeightItemFailed" and _has_netuid(event.data):
            failed[int(_field(event, "netuid", 0))] = _field(event, "error", 1)
        elif event.name == "BatchWeightItemFailed":
            unnamed.append(_only(event, "error"))
        at += 1
    if unnamed:
        others = [netuid for netuid in netuids if netuid not in done and netuid not in failed]
        failed |= dict(zip(others, unnamed if len(unnamed) == len(others) else [unnamed[-1]] * len(others)))
    if _is(stream, at, PALLET, "BatchWeightsCompleted"):
        yield tuple(Outcome(False, failed[n]) if n in failed else OK for n in netuids), at + 1


def _numbers(data: Any) -> list[int]:
    """The subnet of WeightsSet (netuid, uid) and of WeightsCommitted (who, netuid, hash)."""
    parts = list(data.values()) if isinstance(data, dict) else list(data)
    return [part for part in parts if isinstance(part, int)][:1]


def _has_netuid(data: Any) -> bool:
    if isinstance(data, dict):
        return "netuid" in data
    return isinstance(data, (tuple, list)) and len(data) == 2
