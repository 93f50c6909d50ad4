"""SCALE codecs of type strings. Each type is compiled once into a pair of closures.

In: type strings (typedefs.py lists the Python values of each type). Out: bytes, or values.
Raises `ScaleError` for what cannot be encoded or decoded. A decoder never reads past its input and never allocates more
than the input can hold. Knows nothing of pallets: the runtime registers the types of calls and events.
Format: the SCALE specification of Polkadot (little endian, compact lengths, enums by index byte).
"""

import struct
from typing import Any

from raytensor.devnet import builtin
from raytensor.devnet.builtin import INTS, PACKED, Decoder, Encoder, ScaleError, compact, read_compact  # noqa: F401
from raytensor.devnet.typedefs import (  # noqa: F401  (declarations are part of this module's interface)
    DECLARED,
    EnumDef,
    Expr,
    NewtypeDef,
    StructDef,
    declare_enum,
    declare_newtype,
    declare_struct,
    parse,
)

FIXED_BYTES = {"AccountId32": 32, "H256": 32, "H160": 20}
SEQUENCES = ("Vec", "VecDeque", "BoundedVec", "WeakBoundedVec", "BTreeSet", "BoundedBTreeSet")
MAPS = ("BTreeMap", "BoundedBTreeMap")


class Encoded(bytes):
    """A value that is SCALE already; `Codec.encode` returns it unchanged."""


class Codec:
    """encode(value) -> bytes; decode(bytes) -> value, from exactly these bytes. `enc`, `dec`: for parts of a value."""

    __slots__ = ("type", "enc", "dec", "zero", "min_size")

    def __init__(self, type_: str, enc: Encoder, dec: Decoder, zero: Any, min_size: int) -> None:
        self.type, self.enc, self.dec, self.zero, self.min_size = type_, enc, dec, zero, min_size

    def encode(self, value: Any) -> bytes:
        if type(value) is Encoded:
            return value
        out = bytearray()
        try:
            self.enc(value, out)
        except (OverflowError, TypeError, AttributeError, KeyError, ValueError, struct.error) as error:
            raise ScaleError(f"{value!r:.80} is no {self.type}: {error}") from error
        return bytes(out)

    def decode(self, data: bytes) -> Any:
        value, end = self.dec(data, 0)
        if end != len(data):
            raise ScaleError(f"{self.type}: {len(data) - end} bytes left over")
        return value


class Codecs:
    """The codecs of one runtime, compiled at first use. `register` adds a type that only this runtime has."""

    def __init__(self) -> None:
        self._cache: dict[Expr, Codec] = {}
        self._own: dict[str, Codec] = {}

    def register(self, name: str, enc: Encoder, dec: Decoder, zero: Any = None, min_size: int = 1) -> None:
        self._own[name] = Codec(name, enc, dec, zero, min_size)

    def __call__(self, type_: str | Expr) -> Codec:
        expr = type_ if isinstance(type_, Expr) else parse(type_)
        codec = self._cache.get(expr)
        if codec is None:
            codec = self._cache[expr] = self._compile(expr)
        return codec

    def _compile(self, expr: Expr) -> Codec:
        return self._own.get(expr.name) or Codec(str(expr), *self._parts(expr))

    def _parts(self, expr: Expr) -> builtin.Parts:
        name = expr.name
        if name in INTS:
            parts = builtin.integer(name, *INTS[name])
        elif name == "bool":
            parts = builtin.boolean()
        elif name in FIXED_BYTES:
            parts = builtin.fixed_bytes(FIXED_BYTES[name])
        elif name == "String":
            parts = builtin.string()
        elif name == "Compact":
            parts = builtin.compact_of(self._unwrap(expr.args[0]))
        elif name == "Option":
            parts = builtin.option_of(self(expr.args[0]))
        elif name == "()":
            parts = builtin.tuple_of([self(arg) for arg in expr.args])
        elif name == "[]":
            parts = self._array(*expr.args)
        elif name in SEQUENCES:
            parts = self._sequence(expr)
        elif name in MAPS:
            parts = builtin.map_of(self(expr.args[0]), self(expr.args[1]))
        elif name == "Result":
            parts = self._enum(EnumDef("Result", {"Ok": (0, (expr.args[0],)), "Err": (1, (expr.args[1],))}, "Result"))
        else:
            parts = self._declared(name)
        return parts

    def _declared(self, name: str) -> builtin.Parts:
        definition = DECLARED.get(name)
        if isinstance(definition, NewtypeDef):
            inner = self(definition.inner)
            return inner.enc, inner.dec, inner.zero, inner.min_size
        if isinstance(definition, StructDef):
            return self._struct(definition)
        if isinstance(definition, EnumDef):
            return self._enum(definition)
        raise ValueError(f"type {name!r} is not declared: declare_struct, declare_enum or declare_newtype it")

    def _unwrap(self, expr: Expr) -> str:
        """The integer type inside a compact type, also inside newtypes."""
        definition = DECLARED.get(expr.name)
        return self._unwrap(parse(definition.inner)) if isinstance(definition, NewtypeDef) else expr.name

    def _array(self, element: Expr, length: int) -> builtin.Parts:
        if element.name == "u8":
            return builtin.fixed_bytes(length)
        return builtin.tuple_of([self(element)] * length)

    def _sequence(self, expr: Expr) -> builtin.Parts:
        element = expr.args[0]
        bound = expr.args[1] if len(expr.args) > 1 and isinstance(expr.args[1], int) else None
        if element.name == "u8" and expr.name not in ("BTreeSet", "BoundedBTreeSet"):
            return builtin.byte_vec(bound)
        inner = self(element)
        if element.name in PACKED and not expr.name.endswith("BTreeSet"):
            return builtin.packed_vec(element.name, bound)
        names = {part.name for part in element.args} if element.name == "()" else set()
        if len(names) == 1 and names < PACKED.keys() - {"bool"} and not expr.name.endswith("BTreeSet"):
            return builtin.packed_rows(names.pop(), len(element.args), bound)
        return builtin.vec_of(inner, bound, ordered=expr.name.endswith("BTreeSet"))

    def _struct(self, definition: StructDef) -> builtin.Parts:
        fields = [(name, self(type_).enc) for name, type_ in definition.fields.items()]
        encs = [encode for _, encode in fields]
        decs = [self(type_).dec for type_ in definition.fields.values()]
        cls, make = definition.cls, definition.cls._make

        def enc(value, out):
            if isinstance(value, tuple) and type(value) in (cls, tuple):
                if len(value) != len(encs):
                    raise ValueError(f"{len(value)} fields instead of {len(encs)}")
                for encode, item in zip(encs, value):
                    encode(item, out)
            elif isinstance(value, dict):
                for name, encode in fields:
                    encode(value[name], out)
            else:
                for name, encode in fields:
                    encode(getattr(value, name), out)

        def dec(data, pos):
            values = []
            for decode in decs:
                value, pos = decode(data, pos)
                values.append(value)
            return make(values), pos

        codecs = [self(type_) for type_ in definition.fields.values()]
        return enc, dec, definition.cls(*(c.zero for c in codecs)), sum(c.min_size for c in codecs)

    def _enum(self, definition: EnumDef) -> builtin.Parts:
        by_name: dict[str, tuple[int, Encoder | None]] = {}
        by_index: dict[int, tuple[str, Decoder | None]] = {}
        zero = None
        for variant, (index, payload) in definition.variants.items():
            if isinstance(payload, StructDef):
                enc_payload, dec_payload, payload_zero, _ = self._struct(payload)
            elif len(payload) == 1:
                inner = self(payload[0])
                enc_payload, dec_payload, payload_zero = inner.enc, inner.dec, inner.zero
            elif payload:
                enc_payload, dec_payload, payload_zero, _ = builtin.tuple_of([self(t) for t in payload])
            else:
                enc_payload = dec_payload = payload_zero = None
            by_name[variant] = (index, enc_payload)
            by_index[index] = (variant, dec_payload)
            if index == min(i for i, _ in definition.variants.values()):
                zero = (variant, payload_zero) if enc_payload else variant

        def enc(value, out):
            name, payload = (value, None) if isinstance(value, str) else value
            index, encode = by_name[name]
            out.append(index)
            if encode is not None:
                encode(payload, out)

        def dec(data, pos):
            if pos >= len(data):
                raise ScaleError(f"{definition.name}: input ends too early")
            entry = by_index.get(data[pos])
            if entry is None:
                raise ScaleError(f"{definition.name} has no variant {data[pos]}")
            variant, decode = entry
            if decode is None:
                return variant, pos + 1
            payload, pos = decode(data, pos + 1)
            return (variant, payload), pos

        return enc, dec, zero, 1
