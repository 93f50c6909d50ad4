"""The runtime: combines pallets, dispatches calls with rollback, builds blocks.

In: pallet and runtime API classes, a genesis configuration, calls, decoded extrinsics.
Out: state in the store, events, dispatch results. Knows nothing of sockets, signatures or the disk.

    next_block(): start_block -> on_initialize -> [apply ...] -> finish_block -> one version in the store

Tests run pallets without a node: `runtime.next_block()`, `runtime.dispatch(Origin.signed(a), runtime.call(...))`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from raytensor.devnet.hashing import blake2_64
from raytensor.devnet.pallet import Call, CallSpec, DispatchError, Origin, Pallet, PostInfo, RuntimeApi
from raytensor.devnet.pallets.system import RuntimeVersion
from raytensor.devnet.scale import Codecs, ScaleError, declare_enum
from raytensor.devnet.store import Store
from raytensor.devnet.upgrade import Upgrades

declare_enum("Phase", {"ApplyExtrinsic": (0, "u32"), "Finalization": 1, "Initialization": 2}, "frame_system::Phase")

SPEC_NAME, SPEC_VERSION, TRANSACTION_VERSION = "node-subtensor", 475, 1
MAX_CALL_DEPTH = 8  # deepest nesting of calls that is decoded (runtime: validate_transaction)


class Runtime:
    """Pallets by name (`runtime.Balances`), `block_number`, `timestamp_ms`, `author`, the events of the open block.

    author          public key of the account that receives the fees.
    history_blocks  number of past blocks whose state is kept.
    check           encode every write at once, so that a wrong value fails where it is written.
    """

    # Pallets of the chain specification, bound by name.
    System: Any
    Timestamp: Any
    Balances: Any
    TransactionPayment: Any
    SubtensorModule: Any
    Sudo: Any
    Proxy: Any
    MevShield: Any

    def __init__(
        self,
        pallets: Sequence[type[Pallet]],
        apis: Sequence[type[RuntimeApi]] = (),
        *,
        genesis: dict[str, dict] | None = None,
        block_time_ms: int = 12_000,
        history_blocks: int = 4096,
        check: bool = False,
    ) -> None:
        self.codecs = Codecs()
        self.store = Store(self.codecs, history_blocks=history_blocks, check=check)
        self.block_time_ms = block_time_ms
        self.block_number = 0
        self.timestamp_ms = 0
        self.author = bytes(32)
        self.parent_hash = bytes(32)
        self.digest_logs: tuple = ()
        self.epoch_implementation = "fast"  # of raytensor.consensus; "reference" gives the same bits, uncompiled
        self.used_weight = {"Normal": 0, "Operational": 0, "Mandatory": 0}  # ref_time of the open block, by class
        self.events: list[tuple[Any, tuple[int, ...], tuple]] = []  # (phase, (pallet, event) index, values)
        self.phase: Any = "Initialization"
        self.pallets: dict[str, Pallet] = {}
        self.by_index: dict[int, Pallet] = {}
        self._specs: dict[tuple[int, int], CallSpec] = {}
        self._depth = 0
        self._phase = self.codecs("Phase")
        for cls in pallets:
            pallet = cls(self)
            assert pallet.name not in self.pallets and pallet.index not in self.by_index, pallet.name
            self.pallets[pallet.name] = self.by_index[pallet.index] = pallet
            setattr(self, pallet.name, pallet)
        self.codecs.register("RuntimeCall", self._encode_call, self._decode_call, min_size=2)
        self.codecs.register("EventRecord", self._encode_event, self._decode_event, min_size=4)
        self.codecs.register("UncheckedExtrinsic", self.codecs("Vec<u8>").enc, self.codecs("Vec<u8>").dec)
        self._event_codecs: dict[tuple[int, ...], Any] = {}
        for pallet in self.pallets.values():
            pallet.bind(self.store)
        self.apis = {instance.name: instance for instance in (cls(self) for cls in apis)}

        self.upgrades = Upgrades(self)
        self.renumber(self._version())
        self._prechecks = self._hooks("precheck")
        self._filters = self._hooks("allows")
        self._initializers = self._hooks("on_initialize")
        self._finalizers = self._hooks("on_finalize")
        for name, pallet in self.pallets.items():
            pallet.genesis((genesis or {}).get(name, {}))
        self.events.clear()
        self.genesis_changes = self.store.commit(0)

    def _hooks(self, name: str) -> list[Any]:
        """The bound hooks of the pallets that override `name`."""
        pallets = self.pallets.values()
        return [getattr(p, name) for p in pallets if getattr(type(p), name) is not getattr(Pallet, name)]

    def _version(self) -> Any:
        apis = tuple(sorted((blake2_64(api.name.encode()), api.api_version) for api in self.apis.values()))
        return RuntimeVersion(SPEC_NAME, SPEC_NAME, 1, SPEC_VERSION, 1, apis, TRANSACTION_VERSION, 1)

    def renumber(self, version: Any) -> None:
        """Take the indices of calls and events from the pallets: at the start, and after an upgrade."""
        self.version = version
        if "System" in self.pallets:
            self.System.constants["Version"] = ("RuntimeVersion", version)
        pallets = self.pallets.values()
        self._specs = {(p.index, spec.index): spec for p in pallets for spec in p.calls.values()}
        for pallet in pallets:
            for code, name in pallet.event_codes.items():
                types = pallet.events[name][1]
                self._event_codecs[code] = self.codecs(
                    f"({', '.join(types.values() if isinstance(types, dict) else types)})"
                )

    def metadata(self, version: int) -> bytes:
        """Metadata of format 14 or 15 of the newest version."""
        return self.upgrades.metadata(version)

    # --- calls ---

    def call(self, name: str, *args: Any, **named: Any) -> Call:
        """A call by name: runtime.call("Balances.transfer_keep_alive", dest, value) or with named arguments."""
        pallet, _, function = name.partition(".")
        spec = self.pallets[pallet].calls[function]
        values = (*args, *(named[argument] for argument in list(spec.args)[len(args) :]))
        assert len(values) == len(spec.args) and len(args) + len(named) == len(spec.args), f"{name}{tuple(spec.args)}"
        return Call(spec, values)

    def _encode_call(self, value: Call, out: bytearray) -> None:
        out += bytes((value.spec.pallet_index, value.spec.index))
        for type_, argument in zip(value.spec.args.values(), value.args):
            self.codecs(type_).enc(argument, out)

    def _decode_call(self, data: bytes, pos: int) -> tuple[Call, int]:
        spec = self._specs.get((data[pos], data[pos + 1])) if pos + 2 <= len(data) else None
        if spec is None:
            raise ScaleError("no such call" if pos + 2 <= len(data) else "call: input ends too early")
        self._depth += 1
        try:
            if self._depth > MAX_CALL_DEPTH:
                raise ScaleError(f"calls nest deeper than {MAX_CALL_DEPTH}")
            args, pos = [], pos + 2
            for type_ in spec.args.values():
                value, pos = self.codecs(type_).dec(data, pos)
                args.append(value)
        finally:
            self._depth -= 1
        return Call(spec, tuple(args)), pos

    def _encode_event(self, value: tuple, out: bytearray) -> None:
        phase, index, values = value
        self._phase.enc(phase, out)
        out += bytes(index[:2])  # without the generation
        self._event_codecs[index].enc(values, out)
        out.append(0)  # no topics

    def _decode_event(self, data: bytes, pos: int) -> tuple[tuple, int]:
        phase, pos = self._phase.dec(data, pos)
        index = (data[pos], data[pos + 1], *self.upgrades.generation) if pos + 2 <= len(data) else (-1, -1)
        if index not in self._event_codecs:
            raise ScaleError("no such event")
        values, pos = self._event_codecs[index].dec(data, pos + 2)
        topics, pos = self.codecs("Vec<H256>").dec(data, pos)
        return (phase, index, values), pos

    def weight(self, call: Call) -> int:
        """Declared ref_time of a call, in picoseconds."""
        weight = call.spec.weight
        return weight(self.pallets[call.pallet], call.args) if callable(weight) else weight

    def pays(self, call: Call) -> bool:
        """Whether a call is declared to pay a fee."""
        pays = call.spec.pays
        return pays(self.pallets[call.pallet], call.args) if callable(pays) else pays

    def class_of(self, call: Call) -> str:
        """Dispatch class of a call: "Normal" or "Operational"."""
        return "Operational" if call.spec.operational else "Normal"

    def precheck(self, origin: Origin, call: Call) -> None:
        """The transaction extensions' checks of all pallets. Raises the first refusal as a `DispatchError`."""
        for check in self._prechecks:
            check(origin, call)

    def dispatch(self, origin: Origin, call: Call) -> PostInfo:
        """Run a call. Raises `DispatchError`; its writes and events are then undone."""
        mark, num_events = self.store.mark(), len(self.events)
        try:
            if not origin.is_root:
                for allows in (origin.allows, *self._filters) if origin.allows else self._filters:
                    if not allows(call):
                        raise self.System.error("CallFiltered")
            self.precheck(origin, call)
            return call.spec.function(self.pallets[call.spec.pallet], origin, *call.args) or PostInfo()
        except DispatchError:
            self.store.rollback(mark)
            del self.events[num_events:]
            raise

    def lookup(self, address: Any) -> bytes:
        """The account of a MultiAddress. Raises CannotLookup for every form but Id."""
        if address[0] == "Id":
            return address[1]
        raise DispatchError("CannotLookup")

    def deposit_event(self, index: tuple[int, ...], values: tuple) -> None:
        self.events.append((self.phase, index, values))

    def event_names(self) -> list[tuple[str, str, tuple]]:
        """The events of the open or last block as (pallet, event, values), for tests and logs."""
        names = {code: (p.name, name) for p in self.pallets.values() for code, name in p.event_codes.items()}
        return [(*names[index], values) for _, index, values in self.events]

    # --- blocks ---

    def start_block(self, number: int, timestamp_ms: int) -> None:
        assert number == self.block_number + 1, f"block {number} after {self.block_number}"
        self.block_number, self.timestamp_ms = number, timestamp_ms
        self.events.clear()
        self.phase = "Initialization"
        self.used_weight.update(Normal=0, Operational=0, Mandatory=0)
        for hook in self._initializers:
            hook(number)

    def finish_block(self) -> list:
        """Run the finalize hooks and commit the block to the store. Returns the changed keys."""
        self.phase = "Finalization"
        for hook in self._finalizers:
            hook(self.block_number)
        if "System" in self.pallets:
            self.System.close_block()
        return self.store.commit(self.block_number)

    @contextmanager
    def in_next_block(self) -> Iterator[None]:
        """While entered, `block_number` is the next block's: the pool validates as of it (frame_executive,
        Executive::validate_transaction)."""
        self.block_number += 1
        try:
            yield
        finally:
            self.block_number -= 1

    def next_block(self, calls: Iterable[tuple[Origin, Call]] = (), *, timestamp_ms: int | None = None) -> list:
        """A whole block for tests without a node: hooks around (origin, call) pairs, without fees or nonces. Returns
        None or a DispatchError per call.
        """
        self.start_block(self.block_number + 1, timestamp_ms or self.timestamp_ms + self.block_time_ms)
        results: list[DispatchError | None] = []
        for i, (origin, call) in enumerate(calls):
            self.phase = ("ApplyExtrinsic", i)
            try:
                self.dispatch(origin, call)
                results.append(None)
            except DispatchError as error:
                results.append(error)
        self.finish_block()
        return results

    # --- runtime APIs ---

    def api_call(self, name: str, data: bytes, block: int | None = None) -> bytes:
        """Run "Trait_method" on SCALE arguments at the state after `block` (None: the current one), as state_call does.
        Raises KeyError(name) for an unknown method, `ScaleError` for arguments that do not fit.
        """
        trait, _, method = name.partition("_")
        if trait not in self.apis or method not in self.apis[trait].methods:
            raise KeyError(name)
        if block is None or block == self.block_number:
            return self._simulate(trait, method, data)
        present = (self.block_number, self.timestamp_ms)
        with self.store.as_of(block):
            try:
                self.block_number = block
                self.timestamp_ms = self.Timestamp.Now.get()
                return self._simulate(trait, method, data)
            finally:
                self.block_number, self.timestamp_ms = present

    def _simulate(self, trait: str, method: str, data: bytes) -> bytes:
        mark, num_events = self.store.mark(), len(self.events)
        try:
            return self.apis[trait].invoke(self.codecs, method, data)
        finally:
            self.store.rollback(mark)
            del self.events[num_events:]
