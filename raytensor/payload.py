"""Payloads: named values that a `Task` or a `Response` carries, and the declaration that bounds them.

In: values by name, from anybody, as Python objects or as JSON gives them. Out: the same values in one canonical form,
or `ValueError` with the name of the field. `Fields.read` is the only check: an answer in the cluster and one from the
wire go through it, so the same answer is accepted or refused on both, and has the same bits.
Bounds: every field declares its largest size; `most_bytes` is the largest body that the wire reads for it. Pure.
"""

import base64
import itertools
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

Payload = Mapping[str, Any]

# Types of elements of arrays -> their names in safetensors.
_LETTERS = (("uint", "U", 8), ("int", "I", 8), ("float", "F", 16))
DTYPES = {f"{kind}{n}": f"{letter}{n}" for kind, letter, least in _LETTERS for n in (8, 16, 32, 64) if n >= least}
DTYPES["bool"] = "BOOL"
MAX_NAME = 64
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NUMBER_BYTES = 26  # the longest number in JSON, with its comma and a space
_CHAR_BYTES = 12  # the longest form of a character in JSON: two escapes \uXXXX


class Field:
    """One value of a payload. `optional`: it may be left out."""

    __slots__ = ()
    optional: bool

    @property
    def tensor(self) -> tuple[str, int] | None:
        """Its type and number of dimensions in a safetensors file; None for a value that is JSON there, too."""
        return None

    def read(self, value: Any) -> Any:
        """The value in canonical form. Raises ValueError when it is outside of the bounds."""
        raise NotImplementedError

    def from_json(self, value: Any) -> Any:
        """The value from its JSON form. Raises ValueError."""
        return value

    def most_bytes(self, as_json: bool) -> int:
        """Bytes of the largest value on the wire, as JSON or as safetensors."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Array(Field):
    """A numpy array.

    dtype   a name of `DTYPES`, for example "float32". The dtype of a value must be exactly this.
    shape   of each dimension the size, or (least, most).
    finite  whether NaN and infinities are refused. JSON can't carry them.
    """

    dtype: str
    shape: tuple[int | tuple[int, int], ...]
    finite: bool = True
    optional: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r}: must be one of {', '.join(DTYPES)}")
        if not self.shape:
            raise ValueError("shape=(): an array has one dimension or more; a single number is a Number")
        for least, most in self.sizes:
            if not 0 <= least <= most:
                raise ValueError(f"shape={self.shape}: a dimension is a size >= 0, or (least, most)")

    @property
    def tensor(self) -> tuple[str, int] | None:
        return DTYPES[self.dtype], len(self.shape)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(least, most) of each dimension."""
        return [(size, size) if isinstance(size, int) else size for size in self.shape]

    def read(self, value: Any) -> np.ndarray:
        if not isinstance(value, np.ndarray):
            raise ValueError(f"must be an array, not {type(value).__name__}")
        if value.dtype != np.dtype(self.dtype):
            raise ValueError(f"must be {self.dtype}, not {value.dtype}")
        if value.ndim != len(self.shape):
            raise ValueError(f"must have {len(self.shape)} dimensions, not {value.ndim}")
        for place, (size, (least, most)) in enumerate(zip(value.shape, self.sizes, strict=True)):
            if not least <= size <= most:
                raise ValueError(f"dimension {place} must be {_range(least, most)}, not {size}")
        if value.size == 0:  # JSON has no form for the dimensions after the first empty one
            return np.zeros(self._shape([*itertools.takewhile(bool, value.shape), 0]), self.dtype)
        if self.finite and value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError("must hold no NaN and no infinities")
        return np.ascontiguousarray(value)

    def from_json(self, value: Any) -> np.ndarray:
        shape: list[int] = []
        level = [value]
        for place, (least, most) in enumerate(self.sizes):
            if not all(isinstance(one, list) for one in level):
                raise ValueError(f"must be lists in {len(self.shape)} dimensions")
            lengths = {len(one) for one in level}
            if len(lengths) > 1:
                raise ValueError(f"dimension {place} must have one length")
            if not lengths:
                break
            (length,) = lengths
            if not least <= length <= most:
                raise ValueError(f"dimension {place} must be {_range(least, most)}, not {length}")
            shape.append(length)
            level = list(itertools.chain.from_iterable(level))
        dtype = np.dtype(self.dtype)
        # By `type`, as bool is a subclass of int.
        kinds = {bool} if dtype.kind == "b" else {int, float} if dtype.kind == "f" else {int}
        if not kinds.issuperset(map(type, level)):
            raise ValueError(f"must hold {' or '.join(sorted(kind.__name__ for kind in kinds))} only")
        try:
            wide = np.array(level, np.float64 if dtype.kind == "f" else dtype)
        except OverflowError:
            raise ValueError(f"must hold numbers that fit {self.dtype}") from None
        if dtype.kind == "f" and wide.size and np.abs(wide).max() > np.finfo(dtype).max:
            raise ValueError(f"must hold numbers that fit {self.dtype}")
        return wide.astype(dtype).reshape(self._shape(shape))

    def most_bytes(self, as_json: bool) -> int:
        mosts = [most for _, most in self.sizes]
        count = math.prod(mosts)
        if not as_json:
            return count * np.dtype(self.dtype).itemsize
        lists = sum(math.prod(mosts[:depth]) for depth in range(len(mosts)))
        return count * _NUMBER_BYTES + lists * 4

    def _shape(self, known: list[int]) -> tuple[int, ...]:
        return (*known, *(least for least, _ in self.sizes[len(known) :]))


@dataclass(frozen=True, slots=True)
class Text(Field):
    """A str of `least` to `most` characters."""

    most: int
    least: int = 0
    optional: bool = False

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be text, not {type(value).__name__}")
        if not self.least <= len(value) <= self.most:
            raise ValueError(f"must have {_range(self.least, self.most)} characters, not {len(value)}")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("must be Unicode text: it holds half of a surrogate pair")
        return str(value)

    def most_bytes(self, as_json: bool) -> int:
        return self.most * _CHAR_BYTES + 8


@dataclass(frozen=True, slots=True)
class Number(Field):
    """A finite float, or an int with `whole`, of `least` to `most`."""

    least: float = -1e300
    most: float = 1e300
    whole: bool = False
    optional: bool = False

    def read(self, value: Any) -> int | float:
        if isinstance(value, np.number):
            value = value.item()
        if type(value) is not int and (self.whole or type(value) is not float):  # bool is a subclass of int
            raise ValueError(f"must be a {'whole ' if self.whole else ''}number, not {type(value).__name__}")
        if not self.least <= value <= self.most:  # never so for NaN
            raise ValueError(f"must be {_range(self.least, self.most)}, not {value!r:.40}")
        return value if self.whole else float(value)

    def most_bytes(self, as_json: bool) -> int:
        return _NUMBER_BYTES


@dataclass(frozen=True, slots=True)
class Bytes(Field):
    """A bytes object of `least` to `most` bytes. In JSON: base64."""

    most: int
    least: int = 0
    optional: bool = False

    def read(self, value: Any) -> bytes:
        if not isinstance(value, bytes):
            raise ValueError(f"must be bytes, not {type(value).__name__}")
        if not self.least <= len(value) <= self.most:
            raise ValueError(f"must have {_range(self.least, self.most)} bytes, not {len(value)}")
        return value

    def from_json(self, value: Any) -> bytes:
        if not isinstance(value, str) or not value.isascii():
            raise ValueError("must be text in base64")
        return base64.b64decode(value, validate=True)  # raises binascii.Error, a ValueError

    def most_bytes(self, as_json: bool) -> int:
        return self.most * 4 // 3 + 8 if as_json else self.most

    @property
    def tensor(self) -> tuple[str, int] | None:
        return "U8", 1


@dataclass(frozen=True, slots=True)
class Json(Field):
    """Nested JSON: dict with text keys, list, str, int (64 bits), finite float, bool, None; tuples become lists.
    most: bytes of its shortest form."""

    most: int
    optional: bool = False

    def read(self, value: Any) -> Any:
        try:
            json.dumps(value, allow_nan=False)  # orjson writes NaN as null
            text = orjson.dumps(value)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"is not JSON: {error}") from None
        if len(text) > self.most:
            raise ValueError(f"must have at most {self.most} bytes as JSON, not {len(text)}")
        return orjson.loads(text)

    def most_bytes(self, as_json: bool) -> int:
        return self.most * 3 + 8  # others write spaces and escapes


class Fields:
    """The fields of a payload by name: `Fields(prompt=Text(4000), seed=Number(0, 2**32, whole=True))`. Names are
    lower-case identifiers. A value may leave out optional fields and has no others."""

    def __init__(self, **fields: Field) -> None:
        for name in fields:
            if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
                raise ValueError(f"{name!r}: names have a-z, 0-9 and _, begin with a letter, and at most {MAX_NAME}")
        self.by_name: Mapping[str, Field] = fields

    def read(self, payload: Any) -> dict[str, Any]:
        """A payload in canonical form, in the order of the declaration. Raises ValueError for what is outside of it."""
        if not isinstance(payload, Mapping):
            raise ValueError(f"the payload must be a mapping, not {type(payload).__name__}")
        return self._each(payload, lambda field, value: field.read(value))

    def from_json(self, payload: Any) -> dict[str, Any]:
        """A payload from its JSON form; values that are arrays or bytes already stay. Not yet bounded: see `read`."""
        if not isinstance(payload, Mapping):
            raise ValueError("the payload must be a JSON object")
        done = (np.ndarray, bytes)
        return self._each(payload, lambda field, value: value if isinstance(value, done) else field.from_json(value))

    def most_bytes(self, as_json: bool) -> int:
        """The largest body of these fields on the wire, without the message around it."""
        return sum(field.most_bytes(as_json) + 2 * len(name) + 160 for name, field in self.by_name.items())

    def _each(self, payload: Mapping[str, Any], convert: Any) -> dict[str, Any]:
        found = {}
        if unknown := sorted(str(name)[:MAX_NAME] for name in payload.keys() - self.by_name.keys()):
            raise ValueError(f"{unknown[0]!r} is no field of the payload; there is {', '.join(self.by_name) or 'none'}")
        for name, field in self.by_name.items():
            if name not in payload:
                if not field.optional:
                    raise ValueError(f"{name}: is missing")
                continue
            try:
                found[name] = convert(field, payload[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return found


@dataclass(frozen=True)
class Schema:
    """A kind of questions: what a question holds, and what its answer holds. answer None: a file or a distribution."""

    question: Fields
    answer: Fields | None


Schemas = Mapping[str, Schema]  # by kind


def num_bytes(payload: Payload | None) -> int:
    """About the memory of a payload."""
    values = (payload or {}).values()
    return sum(value.nbytes if isinstance(value, np.ndarray) else sys.getsizeof(value) for value in values)


def _range(least: float, most: float) -> str:
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"
