"""Utility (11): batches of calls, with Subtensor's rules.

On a failed item `batch` stops and succeeds, `batch_all` fails and undoes all items, `force_batch` continues.
A batch pays no fee if none of its items does. A batch directly inside a batch is refused (System.CallFiltered).
Source: pallet_subtensor_utility, runtime NoNestingCallFilter.
"""

from __future__ import annotations

from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Call, DispatchError, Origin, Pallet, PostInfo, call
from raytensor.devnet.scale import declare_enum

BATCHES = ("batch", "batch_all", "force_batch")
BATCHED_CALLS_LIMIT = 10_922
_PER_ITEM = 4_000_000


def _batch_weight(pallet: Pallet, args: tuple) -> int:
    runtime = pallet.runtime
    return 5_000_000 + sum(runtime.weight(inner) + _PER_ITEM for inner in args[0])


def _batch_pays(pallet: Pallet, args: tuple) -> bool:
    return any(pallet.runtime.pays(inner) for inner in args[0]) or not args[0]


def _inner_weight(position: int):
    return lambda pallet, args: 15_000_000 + pallet.runtime.weight(args[position])


def _inner_pays(position: int):
    return lambda pallet, args: pallet.runtime.pays(args[position])


declare_enum("RawOrigin", {"Root": 0, "Signed": (1, "AccountId32"), "None": 2}, "frame_support::dispatch::RawOrigin")
declare_enum("OriginCaller", {"system": (0, "RawOrigin")}, "node_subtensor_runtime::OriginCaller")


def _as(caller) -> Origin:
    raw = caller[1]
    if raw == "Root":
        return Origin.root()
    return Origin() if raw == "None" else Origin.signed(raw[1])


class Utility(Pallet):
    name, index, crate = "Utility", 11, "pallet_subtensor_utility"
    constants = {"batched_calls_limit": ("u32", BATCHED_CALLS_LIMIT)}
    events = {
        "BatchInterrupted": (0, {"index": "u32", "error": "DispatchError"}),
        "BatchCompleted": (1, ()),
        "BatchCompletedWithErrors": (2, ()),
        "ItemCompleted": (3, ()),
        "ItemFailed": (4, {"error": "DispatchError"}),
        "DispatchedAs": (5, {"result": "Result<(), DispatchError>"}),
        "IfElseMainSuccess": (6, ()),
        "IfElseFallbackCalled": (7, {"main_error": "DispatchError"}),
    }
    errors = ("TooManyCalls", "InvalidDerivedAccount")

    def allows(self, call: Call) -> bool:
        if call.pallet != "Utility" or call.name not in BATCHES:
            return True
        return not any(inner.pallet == "Utility" and inner.name in BATCHES for inner in call.args[0])

    def _check_length(self, calls: tuple) -> None:
        if len(calls) > BATCHED_CALLS_LIMIT:
            raise self.error("TooManyCalls")

    @call(0, weight=_batch_weight, pays=_batch_pays)
    def batch(self, origin: Origin, calls: "Vec<RuntimeCall>"):
        self._check_caller(origin)
        self._check_length(calls)
        used = 5_000_000
        for i, inner in enumerate(calls):
            used += self.runtime.weight(inner) + _PER_ITEM
            try:
                self.runtime.dispatch(origin, inner)
            except DispatchError as error:
                self.emit("BatchInterrupted", i, error.value)
                return PostInfo(weight=used)
            self.emit("ItemCompleted")
        self.emit("BatchCompleted")
        return None

    @call(1, weight=_inner_weight(1), pays=_inner_pays(1))
    def as_derivative(self, origin: Origin, index: "u16", call: "RuntimeCall"):
        who = blake2_256(b"modlpy/utilisuba" + origin.ensure_signed() + index.to_bytes(2, "little"))
        return self.runtime.dispatch(Origin.signed(who, origin.allows), call)

    @call(2, weight=_batch_weight, pays=_batch_pays)
    def batch_all(self, origin: Origin, calls: "Vec<RuntimeCall>"):
        self._check_caller(origin)
        self._check_length(calls)
        for inner in calls:
            self.runtime.dispatch(origin, inner)
            self.emit("ItemCompleted")
        self.emit("BatchCompleted")

    @call(3, weight=_inner_weight(1), pays=_inner_pays(1))
    def dispatch_as(self, origin: Origin, as_origin: "OriginCaller", call: "RuntimeCall"):
        """Dispatch a call with another origin; root only. The event contains the result."""
        origin.ensure_root()
        try:
            self.runtime.dispatch(_as(as_origin), call)
            result = ("Ok", ())
        except DispatchError as error:
            result = ("Err", error.value)
        self.emit("DispatchedAs", result)

    @call(7, weight=_inner_weight(1), pays=_inner_pays(1))
    def dispatch_as_fallible(self, origin: Origin, as_origin: "OriginCaller", call: "RuntimeCall"):
        origin.ensure_root()
        self.runtime.dispatch(_as(as_origin), call)
        self.emit("DispatchedAs", ("Ok", ()))

    @call(4, weight=_batch_weight, pays=_batch_pays)
    def force_batch(self, origin: Origin, calls: "Vec<RuntimeCall>"):
        self._check_caller(origin)
        self._check_length(calls)
        failed = False
        for inner in calls:
            try:
                self.runtime.dispatch(origin, inner)
                self.emit("ItemCompleted")
            except DispatchError as error:
                failed = True
                self.emit("ItemFailed", error.value)
        self.emit("BatchCompletedWithErrors" if failed else "BatchCompleted")

    @call(5, weight=lambda pallet, args: args[1].ref_time, pays=_inner_pays(0))
    def with_weight(self, origin: Origin, call: "RuntimeCall", weight: "Weight"):
        origin.ensure_root()
        return self.runtime.dispatch(origin, call)

    @call(6, weight=lambda p, args: 15_000_000 + p.runtime.weight(args[0]) + p.runtime.weight(args[1]))
    def if_else(self, origin: Origin, main: "RuntimeCall", fallback: "RuntimeCall"):
        self._check_caller(origin)
        try:
            self.runtime.dispatch(origin, main)
            self.emit("IfElseMainSuccess")
        except DispatchError as error:
            self.runtime.dispatch(origin, fallback)
            self.emit("IfElseFallbackCalled", error.value)

    def _check_caller(self, origin: Origin) -> None:
        if not origin.is_root:
            origin.ensure_signed()
