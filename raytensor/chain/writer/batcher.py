"""Plans extrinsics: as few as the chain allows, with a separate outcome for each item.

In: items (intent id, signer, and a call or a row of weights), limits, and the delegates of the signers.
Out: `Planned` extrinsics, in nonce order for each signer.

    one hotkey, many subnets, plain weights     SubtensorModule.batch_set_weights (free, fails per subnet)
    one hotkey, many subnets, hash commits      SubtensorModule.batch_commit_weights (free, fails per subnet)
    one signer, many other free calls           Utility.force_batch, where the chain takes no fee for a free batch
    many signers with one delegate              Utility.force_batch of Proxy.proxy calls, signed by the delegate
    one signer, many paid calls                 Utility.force_batch, signed by the signer
    anything else                               one extrinsic each, consecutive nonces, all in flight at once

Pure: no clock, no connection, no Ray. Limits and costs are arguments.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from raytensor.chain.calls import Call, Cost
from raytensor.chain.weights import Row, batch_call, single_call

_ROWS, _COMMITS = "rows", "commits"  # kinds of items with a native batch
_COMMIT = "SubtensorModule.commit_weights"


@dataclass(frozen=True, slots=True)
class Item:
    """One intent, ready to send. Exactly one of `call` and `row` is given."""

    intent_id: str
    signer: str
    call: Call | None = None
    row: Row | None = None
    free: bool = False

    def __post_init__(self) -> None:
        assert (self.call is None) != (self.row is None), "an item is a call or a row of weights"


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper limits of one extrinsic."""

    max_items: int = 1000
    max_ref_time: int = 2_000_000_000_000
    max_length: int = 3_000_000

    def __post_init__(self) -> None:
        if min(self.max_items, self.max_ref_time, self.max_length) < 1:
            raise ValueError(f"{self}: every limit is at least 1")

    def allows(self, cost: Cost) -> bool:
        return cost.ref_time <= self.max_ref_time and cost.length <= self.max_length


@dataclass(frozen=True, slots=True)
class Planned:
    """One extrinsic to send, or a part of one.

    intent_ids  of its items, in the order of `events.outcomes`.
    free        the chain asks no fee for the call.
    repeatable  doing an item twice changes nothing: weights, commits, addresses.
    """

    signer: str
    call: Call
    intent_ids: tuple[str, ...]
    free: bool = field(default=False, compare=False)
    repeatable: bool = field(default=False, compare=False)


def plan(
    items: Sequence[Item],
    limits: Limits,
    *,
    delegates: Mapping[str, str] | None = None,
    keys: Container[str] | None = None,
    cost: Callable[[Call], Cost] = lambda call: Cost(),
    native_time: Callable[[Call], int] = lambda call: 0,
    native_batch: bool = True,
    native_commits: bool = False,
    free_batches: bool = False,
) -> list[Planned]:
    """The extrinsics that carry the items.

    delegates     signer -> delegate that may act for it by Proxy.proxy.
    keys          signers whose own key is available; None means all. A single signer of a delegate uses its own key if
                  it can: weights are free then, while a proxied call pays a fee.
    cost          of a call; a batch costs the sum of its calls.
    native_time   ref_time that one more item adds to a native batch, given such a batch.
    native_batch, native_commits  the runtime has batch_set_weights, batch_commit_weights.
    free_batches  the chain asks no fee for a force_batch of free calls: a hotkey without funds can send one.

    The order of one signer's paid calls is kept. A call over a limit by itself is planned alone: the chain refuses it.
    """
    delegates = delegates or {}
    natives = {kind for kind, there in ((_ROWS, native_batch), (_COMMITS, native_commits)) if there}
    parts = [
        part
        for signer, own in _by(items, lambda i: i.signer)
        for part in _parts(own, limits, cost, native_time, natives)
    ]
    proxied: dict[str, list[Planned]] = {}
    direct: list[Planned] = []
    for part in parts:
        if part.signer in delegates:
            proxied.setdefault(delegates[part.signer], []).append(part)
        else:
            direct.append(part)
    planned = []
    for delegate, group in proxied.items():
        signers = {part.signer for part in group}
        if len(signers) == 1 and (keys is None or signers.pop() in keys):
            direct += group
            continue
        wrapped = [
            Planned(delegate, Call("Proxy", "proxy", _proxy_args(part)), part.intent_ids, repeatable=part.repeatable)
            for part in group
        ]
        planned += _force_batches(wrapped, limits, cost)
    for _, group in _by(direct, lambda part: part.signer):
        free = [part for part in group if part.free]
        planned += _force_batches(free, limits, cost) if free_batches else free
        planned += _force_batches([part for part in group if not part.free], limits, cost)
    return planned


def _proxy_args(part: Planned) -> dict:
    return {"real": part.signer, "force_proxy_type": None, "call": part.call}


def _parts(
    own: Sequence[Item],
    limits: Limits,
    cost: Callable[[Call], Cost],
    native_time: Callable[[Call], int],
    natives: set[str],
) -> list[Planned]:
    """The items of one signer as calls: native batches where there are any, the others one by one."""
    signer, found, batched = own[0].signer, [], set()
    for kind in (_ROWS, _COMMITS):
        alike = [item for item in own if _kind(item) == kind]
        if kind not in natives or len({_netuid(item) for item in alike}) != len(alike) or len(alike) < 2:
            continue
        costs = {id(item): Cost(0, cost(_single(item)).length) for item in alike}
        more = Cost(native_time(_batch(kind, alike[:2])))
        for group in _split(alike, limits, lambda item, costs=costs, more=more: costs[id(item)] + more):
            call = _batch(kind, group) if len(group) > 1 else _single(group[0])
            found.append(Planned(signer, call, tuple(item.intent_id for item in group), free=True, repeatable=True))
        batched |= {id(item) for item in alike}
    for item in own:
        if id(item) not in batched:
            free = item.free or item.row is not None
            found.append(Planned(signer, _single(item), (item.intent_id,), free=free, repeatable=free))
    return found


def _kind(item: Item) -> str | None:
    """The kind of native batch that can carry an item, None if none can."""
    if item.row is not None:
        return _ROWS if item.row.mecid == 0 else None
    return _COMMITS if _single(item).name == _COMMIT else None


def _netuid(item: Item) -> int:
    return item.row.netuid if item.row is not None else _single(item).args["netuid"]


def _single(item: Item) -> Call:
    """The call of one item."""
    if item.row is not None:
        return single_call(item.row)
    assert item.call is not None
    return item.call


def _batch(kind: str, items: Sequence[Item]) -> Call:
    """The native batch call of several items."""
    if kind == _ROWS:
        return batch_call([item.row for item in items if item.row is not None])
    hashes = [_single(item).args["commit_hash"] for item in items]
    netuids = [_netuid(item) for item in items]
    return Call("SubtensorModule", "batch_commit_weights", {"netuids": netuids, "commit_hashes": hashes})


def _force_batches(parts: Sequence[Planned], limits: Limits, cost: Callable[[Call], Cost]) -> list[Planned]:
    planned = []
    for group in _split(parts, limits, lambda part: cost(part.call)):
        ids = tuple(intent_id for part in group for intent_id in part.intent_ids)
        call = group[0].call if len(group) == 1 else Call("Utility", "force_batch", {"calls": [p.call for p in group]})
        repeatable = all(part.repeatable for part in group)
        planned.append(Planned(group[0].signer, call, ids, repeatable=repeatable))
    return planned


def _split(things: Sequence, limits: Limits, cost: Callable) -> Iterable[list]:
    """Cut a sequence into groups within the limits. An element over a limit by itself is a group by itself."""
    run: list = []
    total = Cost()
    for thing in things:
        more = total + cost(thing)
        if run and (len(run) == limits.max_items or not limits.allows(more)):
            yield run
            run, more = [], cost(thing)
        run.append(thing)
        total = more
    if run:
        yield run


def _by(things: Iterable, key: Callable) -> list[tuple]:
    groups: dict = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return list(groups.items())


def halve(planned: Planned, item_of: Mapping[str, Item]) -> list[Sequence[Item]]:
    """The items of an extrinsic that a node refused as too heavy, in two halves to plan again."""
    items = [item_of[intent_id] for intent_id in planned.intent_ids]
    if len(items) < 2:
        raise ValueError(f"{planned.call.name} is too heavy for a block and can't be split")
    middle = len(items) // 2
    return [items[:middle], items[middle:]]
