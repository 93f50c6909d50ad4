"""SCALE: type strings to codecs. Each type is compiled once into a pair of closures.

In: type strings (typedefs.py says which Python values stand for which type). Out: bytes, or values.
`ScaleError` says what could not be encoded or decoded; a decoder never reads past its input and never allocates
more than the input can hold. Knows nothing of pallets: what a call or an event is, the runtime registers here.
Format: the SCALE specification of Polkadot (little endian, compact lengths, enums by index byte).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

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

Encoder = Callable[[Any, bytearray], None]
Decoder = Callable[[bytes, int], "tuple[Any, int]"]

INTS = {f"{sign}{bits}": (bits // 8, sign == "i") for sign in "ui" for bits in (8, 16, 32, 64, 128, 256)}
FIXED_BYTES = {"AccountId32": 32, "H256": 32, "H160": 20}
SEQUENCES = ("Vec", "VecDeque", "BoundedVec", "WeakBoundedVec", "BTreeSet", "BoundedBTreeSet")
MAPS = ("BTreeMap", "BoundedBTreeMap")
_PACK = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i8": "b", "i16": "h", "i32": "i", "i64": "q", "bool": "?"}


class ScaleError(ValueError):
    """Bytes that are no value of the type, or a value that the type can't hold."""


class Encoded(bytes):
    """A value that is already SCALE: encoders of whole values pass it through."""


class Codec:
    """encode(value) -> bytes; decode(bytes) -> value (all bytes must be used); `enc`/`dec` work inside a larger one."""

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


def compact(value: int) -> bytes:
    """SCALE compact integer."""
    if value < 1 << 6:
        return (value << 2).to_bytes(1, "little")
    if value < 1 << 14:
        return (value << 2 | 1).to_bytes(2, "little")
    if value < 1 << 30:
        return (value << 2 | 2).to_bytes(4, "little")
    size = (value.bit_length() + 7) // 8
    return bytes([(size - 4) << 2 | 3]) + value.to_bytes(size, "little")


def read_compact(data: bytes, pos: int) -> tuple[int, int]:
    """A compact integer at `pos`: (value, next position)."""
    try:
        first = data[pos]
        mode = first & 3
        if mode == 0:
            return first >> 2, pos + 1
        if mode == 3:
            size = (first >> 2) + 4
            if pos + 1 + size > len(data):
                raise IndexError
            return int.from_bytes(data[pos + 1 : pos + 1 + size], "little"), pos + 1 + size
        end = pos + (2 if mode == 1 else 4)
        if end > len(data):
            raise IndexError
        return int.from_bytes(data[pos:end], "little") >> 2, end
    except IndexError:
        raise ScaleError("compact integer: input ends too early") from None


class Codecs:
    """The codecs of one runtime, compiled when first asked for. `register` adds a type of the runtime's own."""

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
        name = expr.name
        if name in self._own:
            return self._own[name]
        if name in INTS:
            parts = _int(name, *INTS[name])
        elif name == "bool":
            parts = _bool()
        elif name in FIXED_BYTES:
            parts = _fixed_bytes(FIXED_BYTES[name])
        elif name == "String":
            parts = _string()
        elif name == "Compact":
            inner = self._unwrap(expr.args[0])
            parts = _compact(inner)
        elif name == "Option":
            parts = _option(self(expr.args[0]))
        elif name == "()":
            parts = _tuple([self(arg) for arg in expr.args])
        elif name == "[]":
            parts = self._array(*expr.args)
        elif name in SEQUENCES:
            parts = self._sequence(expr)
        elif name in MAPS:
            parts = _map(self(expr.args[0]), self(expr.args[1]))
        elif name == "Result":
            parts = self._enum(EnumDef("Result", {"Ok": (0, (expr.args[0],)), "Err": (1, (expr.args[1],))}, "Result"))
        else:
            parts = self._declared(name)
        return Codec(str(expr), *parts)

    def _declared(self, name: str):
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
        """The integer type inside a compact, through newtypes."""
        definition = DECLARED.get(expr.name)
        return self._unwrap(parse(definition.inner)) if isinstance(definition, NewtypeDef) else expr.name

    def _array(self, element: Expr, length: int):
        if element.name == "u8":
            return _fixed_bytes(length)
        inner = self(element)
        enc_all, dec_all, zero, size = _tuple([inner] * length)
        return enc_all, dec_all, zero, size

    def _sequence(self, expr: Expr):
        element = expr.args[0]
        bound = expr.args[1] if len(expr.args) > 1 and isinstance(expr.args[1], int) else None
        if element.name == "u8" and expr.name not in ("BTreeSet", "BoundedBTreeSet"):
            return _byte_vec(bound)
        inner = self(element)
        if element.name in _PACK and not expr.name.endswith("BTreeSet"):
            return _packed_vec(element.name, bound)
        return _vec(inner, bound, ordered=expr.name.endswith("BTreeSet"))

    def _struct(self, definition: StructDef):
        names = tuple(definition.fields)
        encs = [(name, self(type_).enc) for name, type_ in definition.fields.items()]
        decs = [self(type_).dec for type_ in definition.fields.values()]
        make = definition.cls._make

        def enc(value, out):
            if isinstance(value, dict):
                for name, encode in encs:
                    encode(value[name], out)
            else:
                for name, encode in encs:
                    encode(getattr(value, name), out)

        def dec(data, pos):
            values = []
            for decode in decs:
                value, pos = decode(data, pos)
                values.append(value)
            return make(values), pos

        codecs = [self(type_) for type_ in definition.fields.values()]
        return enc, dec, definition.cls(*(c.zero for c in codecs)), sum(c.min_size for c in codecs)

    def _enum(self, definition: EnumDef):
        by_name: dict[str, tuple[int, Encoder | None]] = {}
        by_index: dict[int, tuple[str, Decoder | None]] = {}
        zero = None
        for variant, (index, payload) in definition.variants.items():
            if isinstance(payload, StructDef):
                parts = self._struct(payload)
            elif len(payload) == 1:
                inner = self(payload[0])
                parts = (inner.enc, inner.dec, inner.zero)
            elif payload:
                parts = _tuple([self(t) for t in payload])
            else:
                parts = (None, None, None)
            by_name[variant] = (index, parts[0])
            by_index[index] = (variant, parts[1])
            if index == min(i for i, _ in definition.variants.values()):
                zero = (variant, parts[2]) if parts[0] else variant

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


def _int(name: str, size: int, signed: bool):
    def enc(value, out):
        out += int(value).to_bytes(size, "little", signed=signed)

    def dec(data, pos):
        end = pos + size
        if end > len(data):
            raise ScaleError(f"{name}: input ends too early")
        return int.from_bytes(data[pos:end], "little", signed=signed), end

    return enc, dec, 0, size


def _bool():
    def enc(value, out):
        out.append(1 if value else 0)

    def dec(data, pos):
        if pos >= len(data) or data[pos] > 1:
            raise ScaleError("bool: neither 0 nor 1")
        return data[pos] == 1, pos + 1

    return enc, dec, False, 1


def _fixed_bytes(size: int):
    def enc(value, out):
        if len(value) != size:
            raise ValueError(f"{len(value)} bytes instead of {size}")
        out += value

    def dec(data, pos):
        end = pos + size
        if end > len(data):
            raise ScaleError(f"[u8; {size}]: input ends too early")
        return bytes(data[pos:end]), end

    return enc, dec, bytes(size), size


def _byte_vec(bound: int | None):
    def enc(value, out):
        if bound is not None and len(value) > bound:
            raise ValueError(f"{len(value)} bytes, at most {bound}")
        out += compact(len(value))
        out += value

    def dec(data, pos):
        size, pos = read_compact(data, pos)
        end = pos + size
        if end > len(data) or (bound is not None and size > bound):
            raise ScaleError(f"Vec<u8> of {size} bytes: input ends too early, or above its bound")
        return bytes(data[pos:end]), end

    return enc, dec, b"", 1


def _string():
    enc_bytes, dec_bytes, _, _ = _byte_vec(None)

    def dec(data, pos):
        raw, pos = dec_bytes(data, pos)
        try:
            return raw.decode(), pos
        except UnicodeDecodeError:
            raise ScaleError("String: not UTF-8") from None

    return lambda value, out: enc_bytes(value.encode(), out), dec, "", 1


def _compact(inner: str):
    if inner == "()":
        return (lambda value, out: None), (lambda data, pos: ((), pos)), (), 0
    limit = 1 << (8 * INTS[inner][0])

    def enc(value, out):
        value = int(value)
        if not 0 <= value < limit:
            raise ValueError(f"{value} is no {inner}")
        out += compact(value)

    def dec(data, pos):
        value, pos = read_compact(data, pos)
        if value >= limit:
            raise ScaleError(f"compact {value} is no {inner}")
        return value, pos

    return enc, dec, 0, 1


def _option(inner: Codec):
    def enc(value, out):
        if value is None:
            out.append(0)
        else:
            out.append(1)
            inner.enc(value, out)

    def dec(data, pos):
        if pos >= len(data) or data[pos] > 1:
            raise ScaleError("Option: neither 0 nor 1")
        return (None, pos + 1) if data[pos] == 0 else inner.dec(data, pos + 1)

    return enc, dec, None, 1


def _tuple(items: list[Codec]):
    encs, decs = [c.enc for c in items], [c.dec for c in items]

    def enc(value, out):
        if len(value) != len(encs):
            raise ValueError(f"{len(value)} items instead of {len(encs)}")
        for encode, item in zip(encs, value):
            encode(item, out)

    def dec(data, pos):
        values = []
        for decode in decs:
            value, pos = decode(data, pos)
            values.append(value)
        return tuple(values), pos

    return enc, dec, tuple(c.zero for c in items), sum(c.min_size for c in items)


def _read_length(data: bytes, pos: int, item_size: int, bound: int | None) -> tuple[int, int]:
    length, pos = read_compact(data, pos)
    # Zero-size items cost no input, so a few bytes could ask for 2^32 of them.
    if (bound is not None and length > bound) or length * max(item_size, 1) > max(len(data) - pos, 0) + (not item_size):
        raise ScaleError(f"sequence of {length} items: input ends too early, or above its bound")
    return length, pos


def _packed_vec(name: str, bound: int | None):
    code, dtype = _PACK[name], "|b1" if name == "bool" else f"<{name[0]}{struct.calcsize('<' + _PACK[name])}"
    size = struct.calcsize("<" + code)

    def enc(value, out):
        if bound is not None and len(value) > bound:
            raise ValueError(f"{len(value)} items, at most {bound}")
        out += compact(len(value))
        # numpy arrays carry their own bytes; everything else goes through struct
        out += value.astype(dtype).tobytes() if hasattr(value, "astype") else struct.pack(f"<{len(value)}{code}", *value)

    def dec(data, pos):
        length, pos = _read_length(data, pos, size, bound)
        return struct.unpack_from(f"<{length}{code}", data, pos), pos + length * size

    return enc, dec, (), 1


def _vec(inner: Codec, bound: int | None, ordered: bool):
    enc_item, dec_item, item_size = inner.enc, inner.dec, inner.min_size

    def enc(value, out):
        if bound is not None and len(value) > bound:
            raise ValueError(f"{len(value)} items, at most {bound}")
        out += compact(len(value))
        for item in sorted(value) if ordered else value:
            enc_item(item, out)

    def dec(data, pos):
        length, pos = _read_length(data, pos, item_size, bound)
        values = []
        for _ in range(length):
            value, pos = dec_item(data, pos)
            values.append(value)
        return tuple(values), pos

    return enc, dec, (), 1


def _map(key: Codec, item: Codec):
    def enc(value, out):
        out += compact(len(value))
        for k in sorted(value):
            key.enc(k, out)
            item.enc(value[k], out)

    def dec(data, pos):
        length, pos = _read_length(data, pos, key.min_size + item.min_size, None)
        values = {}
        for _ in range(length):
            k, pos = key.dec(data, pos)
            values[k], pos = item.dec(data, pos)
        return values, pos

    return enc, dec, {}, 1
