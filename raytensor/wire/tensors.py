"""The safetensors container: reading within bounds, and writing.

In: untrusted bytes, and the arrays that they may hold. Out: numpy arrays (views on the bytes, read-only) and the
metadata. Sizes are checked before anything is allocated, and the format carries no code. Knows nothing of messages.

Format (from the safetensors specification): 8 bytes little-endian N; N bytes of JSON, {name: {"dtype", "shape",
"data_offsets"}} and "__metadata__" (text to text); then the arrays, packed, little-endian, row-major. The header may
be padded with spaces at its end.
"""

import json
import math
import re
import struct
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from raytensor.payload import DTYPES
from raytensor.wire.errors import PayloadError

MAX_HEADER_BYTES = 16384
_DTYPES = {name: np.dtype(dtype).newbyteorder("<") for dtype, name in DTYPES.items()}
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')  # a text within valid JSON
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file: the entry of each array, not yet checked; where the arrays start."""

    entries: Mapping[str, Any]
    metadata: Mapping[str, str]
    start: int


def dumps(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Arrays and text as a safetensors file."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts, offset = [], 0
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _NAMES:
            raise PayloadError(f"{name}: {array.dtype} can't be sent")
        data = np.ascontiguousarray(array, dtype=dtype).tobytes()
        end = offset + len(data)
        header[name] = {"dtype": _NAMES[dtype], "shape": list(array.shape), "data_offsets": [offset, end]}
        parts.append(data)
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()  # as ever: ASCII, with escapes
    text += b" " * (-len(text) % 8)  # aligns the arrays
    return b"".join((struct.pack("<Q", len(text)), text, *parts))


def open_header(data: bytes) -> Header:
    """The header of a safetensors file. Raises PayloadError for one that is too long or not JSON."""
    if len(data) < 8:
        raise PayloadError(f"a safetensors body has 8 bytes or more, not {len(data)}")
    (size,) = struct.unpack_from("<Q", data)
    if size > MAX_HEADER_BYTES or size > len(data) - 8:
        most = f"at most {MAX_HEADER_BYTES} and the body are read"
        raise PayloadError(f"the safetensors header says {size} bytes; {most}")
    entries = load_object(data[8 : 8 + size], "the safetensors header")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise PayloadError("the safetensors metadata must map text to text")
    return Header(entries, metadata, 8 + size)


def read(
    data: bytes, header: Header, expected: Mapping[str, tuple[str, int]], optional: Set[str] = frozenset()
) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file.

    expected  {name: (dtype as the format names it, number of dimensions)}: exactly these must be there.
    optional  those of them that may be missing.

    Raises PayloadError for unknown or missing arrays, gaps, overlaps, or bytes after the last array.
    """
    if not expected.keys() - optional <= header.entries.keys() <= expected.keys():
        raise PayloadError(f"the safetensors body must hold exactly the arrays {', '.join(sorted(expected))}")
    spans, arrays = [], {}
    for name, entry in header.entries.items():
        dtype_name, ndim = expected[name]
        shape, begin, end = _entry(name, entry, dtype_name, ndim)
        dtype = _DTYPES[dtype_name]
        if end > len(data) - header.start or end - begin != math.prod(shape) * dtype.itemsize:
            raise PayloadError(f"{name}: the shape {shape} does not fit its bytes")
        spans.append((begin, end))
        array = np.frombuffer(data, dtype, math.prod(shape), header.start + begin).reshape(shape)
        arrays[name] = np.require(array, dtype.newbyteorder("="), "A")  # copies only unaligned arrays
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise PayloadError("the safetensors arrays overlap or leave gaps")
        position = end
    if position != len(data) - header.start:
        raise PayloadError("the safetensors body has bytes after its last array")
    return arrays


def _entry(name: str, entry: Any, dtype: str, ndim: int) -> tuple[tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise PayloadError(f"{name}: a safetensors array has dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if entry["dtype"] != dtype:
        raise PayloadError(f"{name}: the dtype must be {dtype}")
    if not _sizes(shape, ndim) or not _sizes(offsets, 2) or offsets[0] > offsets[1]:
        raise PayloadError(f"{name}: needs a shape of {ndim} sizes and two data_offsets")
    return tuple(shape), offsets[0], offsets[1]


def _sizes(value: Any, count: int) -> bool:
    """Whether this is a list of `count` sizes below 2^40 (`type` rather than isinstance: bool is a subclass of int)."""
    return isinstance(value, list) and len(value) == count and all(type(v) is int and 0 <= v < 2**40 for v in value)


def load_object(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object from bytes; the caller bounds their number. Raises PayloadError.

    NaN, infinities and duplicate keys are refused; of duplicate keys, two readers could use different ones.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:  # includes bad UTF-8, very long numbers and very deep nesting
        raise PayloadError(f"{what} is not JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise PayloadError(f"{what} must be a JSON object")
    # The parser keeps the last of duplicate keys. Each key is followed by a colon, so fewer keys than colons outside of
    # texts are duplicates.
    keys = len(value) if text.count(b"{") == 1 else _num_keys(value)
    if text.count(b":") != keys and _TEXT.sub(b"", text).count(b":") != keys:
        raise PayloadError(f"{what} is not JSON (a key is duplicated)")
    return value


def dump_object(value: Mapping[str, Any]) -> bytes:
    """A JSON object as bytes; arrays as nested lists. Raises PayloadError for NaN and infinities in arrays and fields.

    A float32 is written as the float64 that equals it, and that in the fewest digits that give it back.
    """
    fields = {}
    for name, field in value.items():
        if isinstance(field, np.ndarray):
            field = np.ascontiguousarray(field, np.float64 if field.dtype.kind == "f" else None)
        if isinstance(field, (np.ndarray, float)) and not np.isfinite(field).all():
            raise PayloadError(f"{name}: JSON has no NaN and no infinities")
        fields[name] = field
    try:
        return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as error:
        raise PayloadError(f"can't be sent as JSON: {error}") from None


def _num_keys(value: Any) -> int:
    """Number of members of all objects within a JSON value."""
    count, todo = 0, [value]
    while todo:
        inner = todo.pop()
        if isinstance(inner, dict):
            count += len(inner)
            inner = inner.values()
        todo += [child for child in inner if isinstance(child, (dict, list))]
    return count
