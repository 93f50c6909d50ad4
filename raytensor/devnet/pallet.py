"""The declarations of pallets and runtime APIs.

In: classes with storage declarations, calls, events, errors and constants. Out: live pallets bound to one runtime,
with `CallSpec`s for the dispatcher, the metadata and the extrinsic decoder.

    class Balances(Pallet):
        name, index = "Balances", 5
        Account = StorageMap([("Blake2_128Concat", "AccountId32")], "AccountData")
        constants = {"ExistentialDeposit": ("u64", 500)}
        events = {"Transfer": (2, {"from": "AccountId32", "to": "AccountId32", "amount": "u64"})}
        errors = ("VestingBalance", "LiquidityRestrictions")      # dense; the index is the position
        custom_codes = {"AmountTooLow": 1}                        # error name -> InvalidTransaction::Custom(n)

        @call(3, weight=200_000_000)
        def transfer_keep_alive(self, origin: Origin, dest: "MultiAddress", value: "Compact<u64>"): ...

A pallet may consist of mixin classes; declarations are collected over the MRO. Optional hooks: `genesis(config)`,
`on_initialize(block)`, `on_finalize(block)`, `precheck(origin, call)`, `allows(call)`, `validate_unsigned(call)`.
A call returns None or a `PostInfo`, or raises a `DispatchError`, which undoes its writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from raytensor.devnet.scale import Codecs, ScaleError, declare_enum, declare_struct
from raytensor.devnet.store import StorageMap, StorageValue, Store

ModuleError = declare_struct("ModuleError", {"index": "u8", "error": "[u8; 4]"}, "sp_runtime::ModuleError")
_TOKEN_ERRORS = (
    "FundsUnavailable OnlyProvider BelowMinimum CannotCreate UnknownAsset Frozen Unsupported "
    "CannotCreateHold NotExpendable Blocked"
)
declare_enum("TokenError", {name: i for i, name in enumerate(_TOKEN_ERRORS.split())}, "sp_runtime::TokenError")
declare_enum("ArithmeticError", {"Underflow": 0, "Overflow": 1, "DivisionByZero": 2}, "sp_arithmetic::ArithmeticError")
declare_enum("TransactionalError", {"LimitReached": 0, "NoLayer": 1}, "sp_runtime::TransactionalError")
declare_enum(
    "DispatchError",
    {
        "Other": 0,
        "CannotLookup": 1,
        "BadOrigin": 2,
        "Module": (3, "ModuleError"),
        "ConsumerRemaining": 4,
        "NoProviders": 5,
        "TooManyConsumers": 6,
        "Token": (7, "TokenError"),
        "Arithmetic": (8, "ArithmeticError"),
        "Transactional": (9, "TransactionalError"),
        "Exhausted": 10,
        "Corruption": 11,
        "Unavailable": 12,
        "RootNotAllowed": 13,
    },
    "sp_runtime::DispatchError",
)


class DispatchError(Exception):
    """The failure of a call.

    value   the SCALE value of type DispatchError: "BadOrigin", ("Token", "FundsUnavailable"), ...
    name    the name of a module error, else the variant.
    pallet  the pallet of a module error, else "".
    """

    def __init__(self, value: Any, name: str = "", pallet: str = "") -> None:
        self.value = value
        self.name = name or (value if isinstance(value, str) else str(value[1]))
        self.pallet = pallet
        super().__init__(f"{pallet}.{self.name}" if pallet else self.name)


class Origin:
    """The origin of a call: a signer, root, or none (inherents). `allows`: a filter that its calls must pass."""

    __slots__ = ("signer", "is_root", "allows")

    def __init__(
        self, signer: bytes | None = None, is_root: bool = False, allows: Callable[[Call], bool] | None = None
    ) -> None:
        self.signer, self.is_root, self.allows = signer, is_root, allows

    @classmethod
    def signed(cls, account: bytes, allows: Callable[[Call], bool] | None = None) -> Origin:
        return cls(account, False, allows)

    @classmethod
    def root(cls) -> Origin:
        return cls(None, True)

    def ensure_signed(self) -> bytes:
        if self.signer is None:
            raise DispatchError("BadOrigin")
        return self.signer

    def ensure_root(self) -> None:
        if not self.is_root:
            raise DispatchError("BadOrigin")

    def ensure_none(self) -> None:
        if self.is_root or self.signer is not None:
            raise DispatchError("BadOrigin")


class Unsigned(NamedTuple):
    """A pallet's verdict on an extrinsic without a signer.

    tag      the pool holds at most one extrinsic per tag.
    refusal  a key of executive.REASONS; None accepts it.
    """

    priority: int = 0
    tag: bytes = b""
    longevity_blocks: int = 0
    refusal: str | None = None


class PostInfo(NamedTuple):
    """The result of a call: the ref_time used and whether it pays a fee; None keeps the declared value."""

    weight: int | None = None
    pays: bool | None = None


@dataclass(frozen=True, eq=False)
class CallSpec:
    """One declared call. `args`: name -> type string. `weight`, `pays`: a value, or a function of (pallet, args)."""

    pallet: str
    pallet_index: int
    name: str
    index: int
    args: dict[str, str]
    weight: int | Callable
    pays: bool | Callable
    operational: bool
    function: Callable


class Call:
    """A call with its argument values: `call.pallet`, `call.name`, `call.args`, `call["netuid"]`."""

    __slots__ = ("spec", "args")

    def __init__(self, spec: CallSpec, args: tuple) -> None:
        self.spec, self.args = spec, args

    @property
    def pallet(self) -> str:
        return self.spec.pallet

    @property
    def name(self) -> str:
        return self.spec.name

    def __getitem__(self, name: str) -> Any:
        return self.args[list(self.spec.args).index(name)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.spec is other.spec and self.args == other.args

    def __repr__(self) -> str:
        return f"{self.pallet}.{self.name}({', '.join(f'{k}={v!r}' for k, v in zip(self.spec.args, self.args))})"


_CALLS: dict[Callable, dict[str, Any]] = {}  # function -> options of `@call`
_APIS: dict[Callable, str] = {}  # function -> output type of `@api`


def call(index: int, *, pays: bool | Callable = True, weight: int | Callable = 100_000_000, operational: bool = False):
    """Mark a method as a call. Its arguments after `origin` are annotated with their type strings.

    weight  ref_time in picoseconds; like `pays`, it may be a function of (pallet, args).
    """

    def mark(function: Callable) -> Callable:
        _CALLS[function] = {"index": index, "pays": pays, "weight": weight, "operational": operational}
        return function

    return mark


def api(output: str):
    """Mark a method of a `RuntimeApi` as served. Its arguments are annotated with their type strings."""

    def mark(function: Callable) -> Callable:
        _APIS[function] = output
        return function

    return mark


def type_strings(function: Any, skip: tuple[str, ...]) -> dict[str, str]:
    """Argument name -> type string. Postponed evaluation quotes the strings again, so quotes are stripped."""
    code = function.__code__
    found = {}
    for name in code.co_varnames[1 : code.co_argcount]:
        if name not in skip:
            assert name in function.__annotations__, f"{function.__qualname__}: {name} has no type string"
            found[name] = function.__annotations__[name].strip("'\"")
    return found


def _collect(cls: type, attribute: str) -> dict:
    merged: dict = {}
    for base in reversed(cls.__mro__):
        merged.update(base.__dict__.get(attribute, {}))
    return merged


class Pallet:
    """Base of all pallets; see the module docstring. `self.runtime` is the runtime, with the other pallets by name."""

    name: str = ""
    index: int = -1
    crate: str = ""  # Rust crate, where it is not "pallet_" and the name in snake case
    constants: dict[str, tuple[str, Any]] = {}
    events: dict[str, tuple[int, Any]] = {}
    errors: Sequence[str] = ()
    custom_codes: dict[str, int] = {}

    def __init__(self, runtime: Any) -> None:
        cls = type(self)
        self.runtime = runtime
        self.constants = _collect(cls, "constants")
        self.events = _collect(cls, "events")
        self.custom_codes = _collect(cls, "custom_codes")
        self.errors = tuple(e for base in cls.__mro__ for e in base.__dict__.get("errors", ()))
        self._error_index = {error: i for i, error in enumerate(self.errors)}
        assert len(self._error_index) == len(self.errors) <= 256, f"{self.name}: an error is listed twice"
        self.storages: dict[str, StorageValue | StorageMap] = {}
        self.calls: dict[str, CallSpec] = {}
        for base in reversed(cls.__mro__):
            for attribute, thing in base.__dict__.items():
                if isinstance(thing, StorageValue | StorageMap):
                    self.storages[attribute] = thing
                elif callable(thing) and thing in _CALLS:
                    self.calls[attribute] = self._spec(attribute, getattr(cls, attribute))
        indices = [spec.index for spec in self.calls.values()]
        assert len(set(indices)) == len(indices), f"{self.name}: two calls share an index"
        self._event_names: dict[str, tuple[int, ...]] = {
            name: (self.index, index) for name, (index, _) in self.events.items()
        }

    @property
    def event_codes(self) -> dict[tuple[int, ...], str]:
        """Event names by (pallet, event) index, with the generation of an upgraded runtime."""
        return {index: name for name, index in self._event_names.items()}

    def _spec(self, name: str, function: Callable) -> CallSpec:
        args = type_strings(function, ("origin",))
        return CallSpec(self.name, self.index, name, args=args, function=function, **_CALLS[function])

    def bind(self, store: Store) -> None:
        for name, declaration in self.storages.items():
            setattr(self, name, store.add(self.name, name, declaration))

    def renumber(
        self, events: dict[str, tuple[int, Any]], calls: dict[str, CallSpec], generation: tuple[int, ...]
    ) -> None:
        """Take the tables of another version of the runtime; `generation` tells its event indices from others'."""
        self.events, self.calls = events, calls
        self._event_names = {name: (self.index, index, *generation) for name, (index, _) in events.items()}

    def emit(self, name: str, *values: Any) -> None:
        """Deposit an event of this pallet; values in the order of the declaration."""
        self.runtime.deposit_event(self._event_names[name], values)

    def error(self, name: str) -> DispatchError:
        """The module error `name`, for the caller to raise."""
        index = self._error_index[name]
        return DispatchError(("Module", ModuleError(self.index, bytes([index, 0, 0, 0]))), name, self.name)

    def constant(self, name: str) -> Any:
        return self.constants[name][1]

    def genesis(self, config: dict) -> None:
        """Write the genesis state. `config`: this pallet's section of the chain specification."""

    def precheck(self, origin: Origin, call: Call) -> None:
        """The check of the transaction extension, in the pool and before every dispatch. Raises to refuse."""

    def validate_unsigned(self, call: Call) -> Unsigned | None:
        """The verdict on an unsigned call; None if this pallet accepts none."""
        return None

    def allows(self, call: Call) -> bool:
        """The base call filter for calls of signers; False refuses the call with System.CallFiltered."""
        return True

    def on_initialize(self, block: int) -> None:
        """Runs at the start of a block, before its extrinsics."""

    def on_finalize(self, block: int) -> None:
        """Runs at the end of a block, after its extrinsics."""


class RuntimeApi:
    """Base of runtime APIs: methods marked with `@api(output)`; `self.runtime` as in pallets."""

    name: str = ""
    api_version: int = 1

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        self.methods = {
            attribute: (type_strings(thing, ()), _APIS[thing])
            for base in reversed(type(self).__mro__)
            for attribute, thing in base.__dict__.items()
            if callable(thing) and thing in _APIS
        }

    def invoke(self, codecs: Codecs, method: str, data: bytes) -> bytes:
        """Run a method on SCALE arguments. Raises `ScaleError` if they do not fit its argument types."""
        inputs, output = self.methods[method]
        values, pos = [], 0
        for type_ in inputs.values():
            value, pos = codecs(type_).dec(data, pos)
            values.append(value)
        if pos != len(data):
            raise ScaleError(f"{self.name}_{method}: {len(data) - pos} bytes left over")
        return codecs(output).encode(getattr(self, method)(*values))
