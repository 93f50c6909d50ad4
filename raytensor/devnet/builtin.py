"""Codecs of Rust's built-in types, as pairs of closures.

In: sizes, bounds, the codecs of parts. Out: `(enc, dec, zero, min_size)`: enc(value, out) appends to a bytearray;
dec(data, pos) returns (value, next position); the zero of the type; the smallest size of a value in bytes.
A decoder never reads past its input and never allocates more than the input can hold.
Knows nothing of declared structs and enums (scale.py) or of the runtime.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

Encoder = Callable[[Any, bytearray], object]
Decoder = Callable[[bytes, int], tuple[Any, int]]
Parts = tuple[Encoder, Decoder, Any, int]  # enc, dec, zero, min_size

INTS = {f"{sign}{bits}": (bits // 8, sign == "i") for sign in "ui" for bits in (8, 16, 32, 64, 128, 256)}
PACKED = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i8": "b", "i16": "h", "i32": "i", "i64": "q", "bool": "?"}


class ScaleError(ValueError):
    """Bytes that encode no value of the type, or a value that the type cannot hold."""


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


def integer(name: str, size: int, signed: bool) -> Parts:
    def enc(value, out):
        out += int(value).to_bytes(size, "little", signed=signed)

    def dec(data, pos):
        end = pos + size
        if end > len(data):
            raise ScaleError(f"{name}: input ends too early")
        return int.from_bytes(data[pos:end], "little", signed=signed), end

    return enc, dec, 0, size


def boolean() -> Parts:
    def enc(value, out):
        out.append(1 if value else 0)

    def dec(data, pos):
        if pos >= len(data) or data[pos] > 1:
            raise ScaleError("bool: neither 0 nor 1")
        return data[pos] == 1, pos + 1

    return enc, dec, False, 1


def fixed_bytes(size: int) -> Parts:
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


def byte_vec(bound: int | None) -> Parts:
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


def string() -> Parts:
    enc_bytes, dec_bytes, _, _ = byte_vec(None)

    def dec(data, pos):
        raw, pos = dec_bytes(data, pos)
        try:
            return raw.decode(), pos
        except UnicodeDecodeError:
            raise ScaleError("String: not UTF-8") from None

    return lambda value, out: enc_bytes(value.encode(), out), dec, "", 1


def compact_of(inner: str) -> Parts:
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


def option_of(inner: Any) -> Parts:
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


def tuple_of(items: list[Any]) -> Parts:
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
    # Items of size zero consume no input, so a few bytes could declare 2^32 of them.
    if (bound is not None and length > bound) or length * max(item_size, 1) > max(len(data) - pos, 0) + (not item_size):
        raise ScaleError(f"sequence of {length} items: input ends too early, or above its bound")
    return length, pos


def packed_vec(name: str, bound: int | None) -> Parts:
    code, dtype = PACKED[name], "|b1" if name == "bool" else f"<{name[0]}{struct.calcsize('<' + PACKED[name])}"
    size = struct.calcsize("<" + code)

    def enc(value, out):
        if bound is not None and len(value) > bound:
            raise ValueError(f"{len(value)} items, at most {bound}")
        out += compact(len(value))
        packed = isinstance(value, np.ndarray)
        out += value.astype(dtype).tobytes() if packed else struct.pack(f"<{len(value)}{code}", *value)

    def dec(data, pos):
        length, pos = _read_length(data, pos, size, bound)
        return struct.unpack_from(f"<{length}{code}", data, pos), pos + length * size

    return enc, dec, (), 1


def packed_rows(name: str, width: int, bound: int | None) -> Parts:
    """Vec of tuples of `width` integers of one type: weights, bonds. Takes lists of tuples, and arrays (n, width)."""
    code, size = PACKED[name], struct.calcsize("<" + PACKED[name]) * width
    dtype, one = f"<{name[0]}{size // width}", struct.Struct(f"<{width}{code}")

    def enc(value, out):
        if bound is not None and len(value) > bound:
            raise ValueError(f"{len(value)} items, at most {bound}")
        out += compact(len(value))
        if isinstance(value, np.ndarray):
            if len(value) and value.shape[1:] != (width,):
                raise ValueError(f"an array of shape {value.shape} instead of (n, {width})")
            out += value.astype(dtype).tobytes()
        else:
            out += b"".join(one.pack(*row) for row in value)

    def dec(data, pos):
        length, pos = _read_length(data, pos, size, bound)
        end = pos + length * size
        return tuple(one.iter_unpack(data[pos:end])), end

    return enc, dec, (), 1


def vec_of(inner: Any, bound: int | None, ordered: bool) -> Parts:
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


def map_of(key: Any, item: Any) -> Parts:
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
