"""Runtime metadata V14 and V15, generated from the declared pallets and runtime APIs.

In: a `Runtime`. Out: the bytes of `RuntimeMetadataPrefixed`, version 14 or 15, without documentation strings.
Knows nothing of requests; registry.py encodes the types.
Format: frame-metadata 14 and 15 of Substrate.
"""

import re
from collections.abc import Callable
from typing import Any

from raytensor.devnet.builtin import compact
from raytensor.devnet.pallet import Pallet, RuntimeApi
from raytensor.devnet.registry import Fields, Own, Types, listing, optional, text
from raytensor.devnet.store import StorageMap
from raytensor.devnet.typedefs import Expr, declare_enum, parse

MAGIC = b"meta"
_HASHER_CODES = {"Blake2_128Concat": 2, "Twox64Concat": 5, "Identity": 6}
_RUNTIME = "node_subtensor_runtime::"
_KINDS = ("Call", "Event", "Error")

declare_enum(
    "MultiSignature",
    {"Ed25519": (0, "[u8; 64]"), "Sr25519": (1, "[u8; 64]"), "Ecdsa": (2, "[u8; 65]")},
    "sp_runtime::MultiSignature",
)
# Mortal eras are 255 variants that each carry one more byte (sp_runtime::generic::Era).
declare_enum("Era", {"Immortal": 0} | {f"Mortal{i}": (i, "u8") for i in range(1, 256)}, "sp_runtime::generic::era::Era")
declare_enum("CheckMetadataHashMode", {"Disabled": 0, "Enabled": 1}, "frame_metadata_hash_extension::Mode")

# The transaction extensions in the runtime's order: identifier, type in the extrinsic, type that is only signed.
EXTENSIONS = (
    ("CheckNonZeroSender", "()", "()"),
    ("CheckSpecVersion", "()", "u32"),
    ("CheckTxVersion", "()", "u32"),
    ("CheckGenesis", "()", "H256"),
    ("CheckMortality", "Era", "H256"),
    ("CheckNonce", "Compact<u32>", "()"),
    ("CheckWeight", "()", "()"),
    ("ChargeTransactionPayment", "Compact<u64>", "()"),
    ("SudoTransactionExtension", "()", "()"),
    ("CheckShieldedTxValidity", "()", "()"),
    ("SubtensorTransactionExtension", "()", "()"),
    ("DrandPriority", "()", "()"),
    ("CheckMetadataHash", "CheckMetadataHashMode", "Option<[u8; 32]>"),
)
# The extra data of an extrinsic, by extension; those without data have the unit type.
EXTRA = Expr("()", tuple(Expr("()") if extra == "()" else Expr(identifier) for identifier, extra, _ in EXTENSIONS))


def crate_of(pallet: Pallet) -> str:
    """The Rust crate of a pallet, for the paths of its types."""
    return pallet.crate or "pallet_" + re.sub(r"(?<!^)(?=[A-Z])", "_", pallet.name).lower()


def own_types(runtime: Any) -> dict[str, Own]:
    """The enums over all pallets, the enums of each pallet, and the types that contain them."""
    pallets = sorted(runtime.pallets.values(), key=lambda pallet: pallet.index)
    own: dict[str, Own] = {}
    outer: dict[str, list[tuple[str, int, Fields]]] = {"Call": [], "Event": [], "Error": []}
    for pallet in pallets:
        calls = sorted(pallet.calls.values(), key=lambda spec: spec.index)
        events = sorted(pallet.events.items(), key=lambda item: item[1][0])
        tables = {
            "Call": [(spec.name, spec.index, list(spec.args.items())) for spec in calls],
            "Event": [(name, index, event_fields(types)) for name, (index, types) in events],
            "Error": [(name, index, []) for index, name in enumerate(pallet.errors)],
        }
        for kind, variants in tables.items():
            if variants:
                path = f"{crate_of(pallet)}::pallet::{kind}"
                own[pallet.name + kind] = Own(path, variants, type_names=kind == "Call")
                outer[kind].append((pallet.name, pallet.index, [(None, pallet.name + kind)]))
    for kind, variants in outer.items():
        own[f"Runtime{kind}"] = Own(f"{_RUNTIME}Runtime{kind}", variants)
    own["EventRecord"] = Own(
        "frame_system::EventRecord",
        fields=[("phase", "Phase"), ("event", "RuntimeEvent"), ("topics", "Vec<H256>")],
        params=(("E", "RuntimeEvent"), ("T", "H256")),
    )
    for identifier, extra, _ in EXTENSIONS:
        if extra != "()":
            # bittensor 11 encodes by these types and passes {"mode": ...}: the only extension with a named field.
            field = "mode" if identifier == "CheckMetadataHash" else None
            own[identifier] = Own(f"frame_system::extensions::{identifier}", fields=[(field, extra)])
    own["UncheckedExtrinsic"] = Own(
        "sp_runtime::generic::unchecked_extrinsic::UncheckedExtrinsic",
        fields=[(None, "Vec<u8>")],
        params=(
            ("Address", "MultiAddress"),
            ("Call", "RuntimeCall"),
            ("Signature", "MultiSignature"),
            ("Extra", EXTRA),
        ),
    )
    own["Runtime"] = Own(f"{_RUNTIME}Runtime", fields=[])
    return own


def event_fields(types: Any) -> list[tuple[str | None, str]]:
    """Fields of an event that is declared by a tuple of types or a dict of named ones."""
    return list(types.items()) if isinstance(types, dict) else [(None, type_) for type_ in types]


class MetadataWriter:
    """`v14()` and `v15()` of one runtime."""

    def __init__(self, runtime: Any) -> None:
        self.codecs = runtime.codecs
        self.pallets = sorted(runtime.pallets.values(), key=lambda pallet: pallet.index)
        self.apis = [api for _, api in sorted(runtime.apis.items())]
        self.own = own_types(runtime)

    def v14(self) -> bytes:
        return self._smallest(self._v14, type_names=True)

    def v15(self) -> bytes:
        # Readers of version 15 use the types' numbers; substrate-interface, which uses names, reads version 14.
        return self._smallest(self._v15, type_names=False)

    def _smallest(self, write: Callable[[Types], bytes], type_names: bool) -> bytes:
        """Writes twice: the first pass counts the uses of each type."""
        counted = Types(self.own, type_names=type_names)
        write(counted)
        return write(Types(self.own, type_names=type_names, first=counted.by_use()))

    def _v14(self, types: Types) -> bytes:
        pallets = [self._pallet(types, pallet) for pallet in self.pallets]
        extrinsic = types.ref("UncheckedExtrinsic") + b"\4" + self._extensions(types)
        runtime = types.ref("Runtime")
        return MAGIC + b"\x0e" + types.encode() + listing(pallets) + extrinsic + runtime

    def _v15(self, types: Types) -> bytes:
        pallets = [self._pallet(types, pallet) + b"\0" for pallet in self.pallets]
        parts = ("MultiAddress", "RuntimeCall", "MultiSignature", EXTRA)
        extrinsic = b"\4" + b"".join(types.ref(part) for part in parts) + self._extensions(types)
        runtime = types.ref("Runtime")
        apis = listing([self._api(types, api) for api in self.apis])
        outer = b"".join(types.ref(name) for name in ("RuntimeCall", "RuntimeEvent", "RuntimeError"))
        return MAGIC + b"\x0f" + types.encode() + listing(pallets) + extrinsic + runtime + apis + outer + b"\0"

    def _pallet(self, types: Types, pallet: Pallet) -> bytes:
        entries = [self._entry(types, pallet, name, decl) for name, decl in pallet.storages.items()]
        storage = text(pallet.name) + listing(entries) if entries else None
        kinds = [types.ref(pallet.name + kind) if pallet.name + kind in self.own else None for kind in _KINDS]
        constants = []
        for name, (type_, value) in pallet.constants.items():
            encoded = self.codecs(type_).encode(value)
            constants.append(text(name) + types.ref(type_) + compact(len(encoded)) + encoded + b"\0")
        calls, events, errors = map(optional, kinds)
        head = text(pallet.name) + optional(storage) + calls + events
        return head + listing(constants) + errors + bytes([pallet.index])

    def _entry(self, types: Types, pallet: Pallet, name: str, decl: Any) -> bytes:
        item = getattr(pallet, name)
        if isinstance(decl, StorageMap):
            hashers = [bytes([_HASHER_CODES[hasher]]) for hasher, _ in decl.keys]
            keys = [parse(type_) for _, type_ in decl.keys]
            key = keys[0] if len(keys) == 1 else Expr("()", tuple(keys))
            kind = b"\1" + listing(hashers) + types.ref(key) + types.ref(decl.type)
        else:
            kind = b"\0" + types.ref(decl.type)
        default = b"\0" if decl.optional else item.codec.encode(item.default)
        modifier = b"\0" if decl.optional else b"\1"
        return text(name) + modifier + kind + compact(len(default)) + default + b"\0"

    def _extensions(self, types: Types) -> bytes:
        kinds = [(name, "()" if extra == "()" else name, signed) for name, extra, signed in EXTENSIONS]
        return listing([text(name) + types.ref(kind) + types.ref(signed) for name, kind, signed in kinds])

    def _api(self, types: Types, api: RuntimeApi) -> bytes:
        methods = []
        for name, (inputs, output) in api.methods.items():
            arguments = listing([text(argument) + types.ref(type_) for argument, type_ in inputs.items()])
            methods.append(text(name) + arguments + types.ref(output) + b"\0")
        return text(api.name) + listing(methods) + b"\0"
