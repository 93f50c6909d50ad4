"""SCALE by the type registry of a runtime's metadata (V14): values to bytes and back, each type compiled once.

In: the registry, as plain dictionaries, and type ids. Out: bytes, or plain values:

    integers, bool, str        themselves             AccountId32      ss58 string, prefix 42 (see chain/ss58.py)
    Vec<u8>                    bytes                  [u8; N]          "0x..." (both are accepted for encoding)
    Vec, array, tuple          list / tuple           struct           dict by field, or its only unnamed field
    Option                     None or the value      enum             "Name" or {"Name": value or dict}
    Compact<T>                 like T                 runtime call     a `Call`, or {pallet: {function: {args}}}

Raises ValueError for a value that does not fit its type and for bytes that do not decode to one.
The codec of substrate-interface takes about 1 ms per event; this one makes batches of thousands of items affordable.
Format: the SCALE specification (little endian, compact lengths, enums by index). Knows nothing of pallets or nodes.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from raytensor.chain import ss58
from raytensor.chain.calls import Call

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes, int], tuple[Any, int]]

_STRUCT = {"u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q", "i8": "<b", "i16": "<h", "i32": "<i", "i64": "<q"}
_WIDE = {"u128": 16, "u256": 32, "i128": 16, "i256": 32}


def encode_compact(value: int) -> bytes:
    """A SCALE compact integer, below 2^536."""
    if not 0 <= value < 1 << 536:
        raise ValueError(f"{value} is no compact integer")
    if value < 1 << 6:
        return bytes((value << 2,))
    if value < 1 << 14:
        return (value << 2 | 1).to_bytes(2, "little")
    if value < 1 << 30:
        return (value << 2 | 2).to_bytes(4, "little")
    size = (value.bit_length() + 7) // 8
    return bytes(((size - 4) << 2 | 3,)) + value.to_bytes(size, "little")


def decode_compact(data: bytes, at: int) -> tuple[int, int]:
    """(value, next position) of the compact integer at `at`. Raises ValueError or IndexError where the data ends."""
    mode = data[at] & 3
    if mode == 3:
        size = (data[at] >> 2) + 4
        return int.from_bytes(_take(data, at + 1, size), "little"), at + 1 + size
    size = 1 << mode
    return int.from_bytes(_take(data, at, size), "little") >> 2, at + size


def as_bytes(value: Any) -> bytes:
    """Bytes given as bytes, as "0x..." or as a list of integers. Raises ValueError for other text."""
    if isinstance(value, str):
        if not value.startswith("0x"):
            raise ValueError(f"{value[:20]!r}: write bytes as 0x and hexadecimal digits")
        return bytes.fromhex(value[2:])
    return bytes(value)


def _take(data: bytes, at: int, size: int) -> bytes:
    found = data[at : at + size]
    if len(found) != size:
        raise ValueError(f"SCALE data of {len(data)} bytes ends within the {size} bytes at {at}")
    return found


class Codec:
    """The compiled types of one registry. `types`: id -> {"path": [...], "def": {kind: ...}, ...}."""

    def __init__(self, types: Mapping[int, dict]) -> None:
        self._types = types
        self._compiled: dict[int, tuple[Encode, Decode]] = {}

    def encode(self, type_id: int, value: Any) -> bytes:
        try:
            return self._codec(type_id)[0](value)
        except (struct.error, OverflowError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{str(value)[:120]} is no {self.name(type_id)}: {error!r}") from error

    def decode(self, type_id: int, data: bytes) -> Any:
        """The value that `data` holds. Raises ValueError for bytes left over."""
        value, end = self.decode_at(type_id, data, 0)
        if end != len(data):
            raise ValueError(f"{self.name(type_id)}: {len(data) - end} of {len(data)} bytes left over")
        return value

    def decode_at(self, type_id: int, data: bytes, at: int) -> tuple[Any, int]:
        try:
            return self._codec(type_id)[1](data, at)
        except (struct.error, IndexError) as error:
            raise ValueError(f"{self.name(type_id)} is cut off: {error}") from error

    def array(self, type_id: int, data: bytes) -> np.ndarray:
        """A Vec of fixed-size numbers or bool as a numpy array, without one Python object per element."""
        kind = self._types[self.plain(type_id)]["def"]
        assert "sequence" in kind, f"{self.name(type_id)} is no Vec"
        primitive = self._types[self.plain(kind["sequence"]["type"])]["def"]["primitive"].lower()
        dtype = np.dtype("bool" if primitive == "bool" else f"<{primitive[0]}{int(primitive[1:]) // 8}")
        count, at = decode_compact(data, 0)
        if len(data) - at != count * dtype.itemsize:
            raise ValueError(f"{self.name(type_id)} of {count} elements has {len(data) - at} bytes of content")
        return np.frombuffer(data, dtype, count, at)

    def definition(self, type_id: int) -> dict:
        """The registry's entry of a type: {"path": [...], "def": {kind: ...}}."""
        return self._types[type_id]

    def name(self, type_id: int) -> str:
        path = self._types[type_id]["path"]
        return "::".join(path) if path else str(next(iter(self._types[type_id]["def"])))

    def kind(self, type_id: int) -> str | tuple[str, ...]:
        """A primitive's name, as "u16"; the variants of an enum without fields; else the name of the type."""
        if self._types[type_id]["path"][-1:] != ["AccountId32"]:
            type_id = self.plain(type_id)
        path, ((kind, detail),) = self._types[type_id]["path"], self._types[type_id]["def"].items()
        if kind == "primitive":
            return detail.lower()
        if kind == "variant" and not any(variant["fields"] for variant in detail["variants"]):
            return tuple(variant["name"] for variant in detail["variants"])
        if kind == "composite" and [field["name"] for field in detail["fields"]] == ["bits"]:
            return "U64F64"
        return path[-1] if path else kind

    def plain(self, type_id: int) -> int:
        """The type inside newtypes (structs of one unnamed field, like NetUid)."""
        kind = self._types[type_id]["def"]
        fields = kind.get("composite", {}).get("fields", ()) if "composite" in kind else ()
        if len(fields) == 1 and fields[0]["name"] is None:
            return self.plain(fields[0]["type"])
        return type_id

    def element(self, type_id: int) -> int:
        """The type of a Vec's elements."""
        return self._types[self.plain(type_id)]["def"]["sequence"]["type"]

    def parts(self, type_id: int) -> tuple[int, ...]:
        """The types of a tuple's elements."""
        return tuple(self._types[type_id]["def"]["tuple"])

    def variants(self, type_id: int) -> dict[int, dict]:
        """index -> variant of an enum type."""
        return {v["index"]: v for v in self._types[type_id]["def"]["variant"]["variants"]}

    def _codec(self, type_id: int) -> tuple[Encode, Decode]:
        if type_id not in self._compiled:
            # A type may contain itself: its parts find this entry while it is being compiled.
            self._compiled[type_id] = (
                lambda value: self._compiled[type_id][0](value),
                lambda data, at: self._compiled[type_id][1](data, at),
            )
            self._compiled[type_id] = self._compile(self._types[type_id])
        return self._compiled[type_id]

    def _compile(self, definition: dict) -> tuple[Encode, Decode]:
        path = definition["path"]
        ((kind, detail),) = definition["def"].items()
        if path[-1:] == ["AccountId32"]:
            return ss58.decode, lambda data, at: (ss58.encode(_take(data, at, 32)), at + 32)
        if kind == "primitive":
            return _primitive(detail.lower())
        if kind == "compact":
            inner = self._types[self.plain(detail["type"])]["def"]
            zero_size = inner.get("tuple") == []
            return (lambda v: b"", lambda data, at: ((), at)) if zero_size else (encode_compact, decode_compact)
        if kind == "sequence":
            return _bytes() if self._is_u8(detail["type"]) else _sequence(*self._codec(detail["type"]))
        if kind == "array":
            return _array(*self._codec(detail["type"]), detail["len"], self._is_u8(detail["type"]))
        if kind == "tuple":
            return _tuple([self._codec(inner) for inner in detail])
        if kind == "composite":
            return self._fields(detail["fields"])
        if kind == "variant":
            return self._variant(detail["variants"], path)
        raise ValueError(f"SCALE type {kind} is not supported")

    def _is_u8(self, type_id: int) -> bool:
        return self._types[type_id]["def"].get("primitive", "").lower() == "u8"

    def _fields(self, fields: list[dict]) -> tuple[Encode, Decode]:
        codecs = [self._codec(field["type"]) for field in fields]
        names = [field["name"] for field in fields]
        if not names or names[0] is None:
            return codecs[0] if len(codecs) == 1 else _tuple(codecs)

        def encode(value: Any) -> bytes:
            if extra := set(value) - set(names):
                raise ValueError(f"unknown field {', '.join(sorted(extra))}: there are {', '.join(names)}")
            return b"".join(codec[0](value[name]) for name, codec in zip(names, codecs))

        def decode(data: bytes, at: int) -> tuple[dict, int]:
            found = {}
            for name, codec in zip(names, codecs):
                found[name], at = codec[1](data, at)
            return found, at

        return encode, decode

    def _variant(self, variants: list[dict], path: list[str]) -> tuple[Encode, Decode]:
        if path == ["Option"]:
            return _option(*self._codec(next(v for v in variants if v["name"] == "Some")["fields"][0]["type"]))
        by_name = {v["name"]: v for v in variants}
        by_index = {v["index"]: v for v in variants}
        compiled: dict[str, tuple[Encode, Decode]] = {}
        address = path[-1:] == ["MultiAddress"]

        def fields_of(variant: dict) -> tuple[Encode, Decode]:
            if variant["name"] not in compiled:
                compiled[variant["name"]] = self._fields(variant["fields"])
            return compiled[variant["name"]]

        def encode(value: Any) -> bytes:
            if isinstance(value, Call):
                value = {value.module: {value.function: value.args}}
            elif isinstance(value, str):
                value = {"Id": value} if address else {value: ()}
            ((name, inner),) = value.items()
            if name not in by_name:
                raise ValueError(f"{'::'.join(path)} has no {name!r}: it has {', '.join(by_name)[:400]}")
            return bytes((by_name[name]["index"],)) + fields_of(by_name[name])[0](inner)

        def decode(data: bytes, at: int) -> tuple[Any, int]:
            variant = by_index.get(_take(data, at, 1)[0])
            if variant is None:
                raise ValueError(f"{'::'.join(path)} has no variant {data[at]}")
            if not variant["fields"]:
                return variant["name"], at + 1
            inner, at = fields_of(variant)[1](data, at + 1)
            return {variant["name"]: inner}, at

        return encode, decode


def _primitive(name: str) -> tuple[Encode, Decode]:
    if name in _STRUCT:
        packer = struct.Struct(_STRUCT[name])
        pack, unpack, size = packer.pack, packer.unpack_from, packer.size
        return pack, lambda data, at: (unpack(data, at)[0], at + size)
    if name in _WIDE:
        size, signed = _WIDE[name], name[0] == "i"
        return (
            lambda value: int(value).to_bytes(size, "little", signed=signed),
            lambda data, at: (int.from_bytes(_take(data, at, size), "little", signed=signed), at + size),
        )
    if name == "bool":
        return lambda value: b"\1" if value else b"\0", lambda data, at: (bool(_take(data, at, 1)[0]), at + 1)
    if name == "str":
        encode, decode = _bytes()

        def text(data: bytes, at: int) -> tuple[str, int]:
            raw, at = decode(data, at)
            return raw.decode(), at

        return lambda value: encode(value.encode()), text
    raise ValueError(f"SCALE primitive {name} is not supported")


def _bytes() -> tuple[Encode, Decode]:
    """Vec<u8>."""

    def take(data: bytes, at: int) -> tuple[bytes, int]:
        size, at = decode_compact(data, at)
        return _take(data, at, size), at + size

    def put(value: Any) -> bytes:
        raw = as_bytes(value)
        return encode_compact(len(raw)) + raw

    return put, take


def _sequence(encode: Encode, decode: Decode) -> tuple[Encode, Decode]:
    def many(data: bytes, at: int) -> tuple[list, int]:
        count, at = decode_compact(data, at)
        if count > len(data):
            raise ValueError(f"a sequence of {count} elements in {len(data)} bytes")
        found = []
        for _ in range(count):
            value, at = decode(data, at)
            found.append(value)
        return found, at

    return lambda values: encode_compact(len(values)) + b"".join(map(encode, values)), many


def _array(encode: Encode, decode: Decode, size: int, of_bytes: bool) -> tuple[Encode, Decode]:
    def put(value: Any) -> bytes:
        raw = as_bytes(value) if of_bytes else value
        if len(raw) != size:
            raise ValueError(f"{len(raw)} elements, {size} expected")
        return raw if of_bytes else b"".join(map(encode, raw))

    def take(data: bytes, at: int) -> tuple[Any, int]:
        if of_bytes:
            return "0x" + _take(data, at, size).hex(), at + size
        found = []
        for _ in range(size):
            value, at = decode(data, at)
            found.append(value)
        return found, at

    return put, take


def _tuple(codecs: list[tuple[Encode, Decode]]) -> tuple[Encode, Decode]:
    def put(values: Any) -> bytes:
        if len(values) != len(codecs):
            raise ValueError(f"{len(values)} values, {len(codecs)} expected")
        return b"".join(codec[0](value) for codec, value in zip(codecs, values))

    def take(data: bytes, at: int) -> tuple[tuple, int]:
        found = []
        for codec in codecs:
            value, at = codec[1](data, at)
            found.append(value)
        return tuple(found), at

    return put, take


def _option(encode: Encode, decode: Decode) -> tuple[Encode, Decode]:
    def take(data: bytes, at: int) -> tuple[Any, int]:
        if _take(data, at, 1) == b"\0":
            return None, at + 1
        return decode(data, at + 1)

    return lambda value: b"\0" if value is None else b"\1" + encode(value), take
