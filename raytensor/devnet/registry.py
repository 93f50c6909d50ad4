"""The portable type registry of the metadata: type strings as numbered scale-info types.

In: the `Expr` trees of typedefs.py, and `Own` declarations of the runtime's own enums (calls, events, errors).
Out: `Types.id(type)` and the encoded registry. Format: scale-info 2, as metadata V14 and V15 carry it.
Knows nothing of pallets (metadata.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from raytensor.devnet.builtin import compact
from raytensor.devnet.typedefs import DECLARED, EnumDef, Expr, NewtypeDef, StructDef, parse

PRIMITIVES = {
    name: i for i, name in enumerate("bool char String u8 u16 u32 u64 u128 u256 i8 i16 i32 i64 i128 i256".split())
}
_WRAPPED = {
    "AccountId32": ("sp_core::crypto::AccountId32", 32),
    "H256": ("primitive_types::H256", 32),
    "H160": ("primitive_types::H160", 20),
}
_BOUNDED = {
    "BoundedVec": "bounded_collections::bounded_vec::BoundedVec",
    "WeakBoundedVec": "bounded_collections::weak_bounded_vec::WeakBoundedVec",
    "BTreeMap": "BTreeMap",
    "BTreeSet": "BTreeSet",
    "BoundedBTreeMap": "bounded_collections::bounded_btree_map::BoundedBTreeMap",
    "BoundedBTreeSet": "bounded_collections::bounded_btree_set::BoundedBTreeSet",
}

Fields = Sequence[tuple[str | None, "str | Expr"]]  # (field name, type)
Variants = Sequence[tuple[str, int, Fields]]  # (name, index, fields)


def text(value: str) -> bytes:
    raw = value.encode()
    return compact(len(raw)) + raw


def listing(items: list[bytes]) -> bytes:
    return compact(len(items)) + b"".join(items)


def optional(value: bytes | None) -> bytes:
    return b"\0" if value is None else b"\1" + value


def _unbounded(expr: Expr) -> Expr:
    """The type as the registry shows it: without bounds, a VecDeque as a Vec."""
    if expr.name in _BOUNDED and isinstance(expr.args[-1], int):
        return Expr(expr.name, (*expr.args[:-1], 0))
    return Expr("Vec", expr.args) if expr.name == "VecDeque" else expr


class Own(NamedTuple):
    """A type that only this runtime has: its enums of calls, events and errors, and types that contain them.

    variants    of an enum.
    fields      of a struct.
    type_names  add type names to the fields; scalecodec needs them for the arguments of calls.
    """

    path: str
    variants: Variants | None = None
    fields: Fields = ()
    params: tuple = ()
    type_names: bool = False


class Types:
    """Numbers types in the order of their first use.

    own         the runtime's types by name.
    type_names  write the type names of call arguments; otherwise they are empty strings.
    first       types to number first: `by_use()` of an earlier pass gives the most used ones numbers of one byte.
    """

    def __init__(self, own: dict[str, Own], *, type_names: bool = True, first: Sequence[Expr] = ()) -> None:
        self._own, self._type_names = own, type_names
        self._ids: dict[Expr, int] = {}
        self._encoded: list[bytes] = []
        self._uses: Counter[Expr] = Counter()
        for expr in first:
            self._reserve(expr)
        for expr in first:
            self._encoded[self._ids[expr]] = self._build(expr)

    def by_use(self) -> list[Expr]:
        """All used types, the most used first."""
        return [expr for expr, _ in self._uses.most_common()]

    def id(self, type_: str | Expr) -> int:
        expr = _unbounded(parse(type_) if isinstance(type_, str) else type_)
        self._uses[expr] += 1
        known = self._ids.get(expr)
        if known is None:
            known = self._reserve(expr)
            self._encoded[known] = self._build(expr)
        return known

    def ref(self, type_: str | Expr) -> bytes:
        """The compact number of a type."""
        return compact(self.id(type_))

    def encode(self) -> bytes:
        return listing([compact(i) + body for i, body in enumerate(self._encoded)])

    def _reserve(self, expr: Expr) -> int:
        # The number exists before the body, so that types may refer to themselves (calls that contain calls).
        self._ids[expr] = len(self._encoded)
        self._encoded.append(b"")
        return self._ids[expr]

    def _build(self, expr: Expr) -> bytes:
        name, args = expr.name, expr.args
        if name in self._own:
            own = self._own[name]
            if own.variants is not None:
                return self._variant(own.path, own.variants, own.params, own.type_names)
            return self._composite(own.path, own.fields, own.params)
        if name in PRIMITIVES:
            return self._type("", (), b"\5" + bytes([PRIMITIVES[name]]))
        if name in _WRAPPED:
            path, size = _WRAPPED[name]
            return self._composite(path, [(None, f"[u8; {size}]")])
        if name == "Vec":
            return self._type("", (), b"\2" + self.ref(args[0]))
        if name == "[]":
            return self._type("", (), b"\3" + args[1].to_bytes(4, "little") + self.ref(args[0]))
        if name == "()":
            return self._type("", (), b"\4" + listing([self.ref(a) for a in args]))
        if name == "Compact":
            return self._type("", (), b"\6" + self.ref(args[0]))
        if name == "Option":
            return self._variant("Option", [("None", 0, []), ("Some", 1, [(None, args[0])])], [("T", args[0])])
        if name == "Result":
            variants = [("Ok", 0, [(None, args[0])]), ("Err", 1, [(None, args[1])])]
            return self._variant("Result", variants, [("T", args[0]), ("E", args[1])])
        if name in ("BTreeMap", "BoundedBTreeMap"):
            inner = Expr("Vec", (Expr("()", args[:2]),))
            params = [("K", args[0]), ("V", args[1])]
            return self._composite(_BOUNDED[name], [(None, inner)], params + ([("S", None)] if len(args) > 2 else []))
        if name in _BOUNDED:
            params = [("T", args[0])] + ([("S", None)] if name != "BTreeSet" else [])
            return self._composite(_BOUNDED[name], [(None, Expr("Vec", args[:1]))], params)
        definition = DECLARED.get(name)
        if isinstance(definition, NewtypeDef):
            return self._composite(definition.path, [(definition.field or None, definition.inner)])
        if isinstance(definition, StructDef):
            return self._composite(definition.path, list(definition.fields.items()), definition.params)
        assert isinstance(definition, EnumDef), f"type {name} is not declared"
        variants = []
        for variant, (index, payload) in definition.variants.items():
            fields = payload.fields.items() if isinstance(payload, StructDef) else [(None, t) for t in payload]
            variants.append((variant, index, list(fields)))
        return self._variant(definition.path, variants, definition.params)

    def _type(self, path: str, params, definition: bytes) -> bytes:
        segments = [text(segment) for segment in path.split("::")] if path else []
        encoded = [text(n) + optional(None if t is None else self.ref(t)) for n, t in params]
        return listing(segments) + listing(encoded) + definition + b"\0"

    def _fields(self, fields, type_names: bool = False) -> bytes:
        encoded = []
        for name, type_ in fields:
            type_name = optional(text(str(type_) if self._type_names else "") if type_names else None)
            encoded.append(optional(None if name is None else text(name)) + self.ref(type_) + type_name + b"\0")
        return listing(encoded)

    def _composite(self, path: str, fields, params=()) -> bytes:
        return self._type(path, params, b"\0" + self._fields(fields))

    def _variant(self, path: str, variants: Variants, params=(), type_names: bool = False) -> bytes:
        body = [
            text(name) + self._fields(fields, type_names) + bytes([index]) + b"\0" for name, index, fields in variants
        ]
        return self._type(path, params, b"\1" + listing(body))
