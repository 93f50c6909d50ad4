"""Fields of a message -> values with checked types and sizes.

In: the fields as JSON, or the header of a safetensors file, gives them. Out: text, numbers, arrays. A field that does
not fit raises `PayloadError` with its name. Knows nothing of which message has which fields.
"""

import itertools
from typing import Any

import numpy as np

from raytensor.wire.errors import PayloadError

MAX_TEXT = 256  # characters of an id or an address: an id may hold two addresses and a digest
_INT32 = 2**31 - 1
_FLOAT32 = float(np.finfo(np.float32).max)


class HeaderText(str):
    """A value of a safetensors header, where all values are text."""


def check_message(fields: dict[str, Any], message: str) -> None:
    """Raise PayloadError when the fields are of another message."""
    if fields.get("message") != message:
        raise PayloadError(f"the body is not a {message}")


def array(fields: dict[str, Any], name: str, dtype: str, ndim: int, max_rows: int, max_columns: int = 0) -> np.ndarray:
    """A field as an array: an array as it is, or JSON lists after a check of their sizes and of every number."""
    value = fields.get(name)
    if isinstance(value, np.ndarray):
        return value
    if value == []:  # no rows: refused by the caller where some are needed
        return np.zeros((0,) * ndim, np.int32 if dtype == "I32" else np.float32)
    most = max_rows if ndim == 1 else max_columns
    rows: Any = [value] if ndim == 1 else value
    if not isinstance(rows, list) or not 1 <= len(rows) <= max_rows:
        raise PayloadError(f"{name}: must be a list of 1 to {max_rows}")
    kinds = {int} if dtype == "I32" else {int, float}  # by `type`, as bool is a subclass of int
    width = len(rows[0]) if isinstance(rows[0], list) else 0
    if not all(isinstance(row, list) and len(row) == width for row in rows) or width > most:
        raise PayloadError(f"{name}: every row must be a list, all of one length up to {most}")
    flat = list(itertools.chain.from_iterable(rows))
    if not kinds.issuperset(map(type, flat)):
        raise PayloadError(f"{name}: must hold {'whole ' if dtype == 'I32' else ''}numbers only")
    try:
        wide = np.array(flat, np.int64 if dtype == "I32" else np.float64)
        wide = wide.reshape((width,) if ndim == 1 else (len(rows), width))
    except OverflowError:
        raise PayloadError(f"{name}: must hold numbers that fit 32 bits") from None
    most = _INT32 if dtype == "I32" else _FLOAT32
    if wide.size and not -most <= wide.min() <= wide.max() <= most:
        raise PayloadError(f"{name}: must hold numbers that fit 32 bits")
    return wide.astype(np.int32 if dtype == "I32" else np.float32)


def phrases(fields: dict[str, Any], name: str, max_rows: int, max_phrases: int, max_length: int) -> np.ndarray:
    """A field as an int32 array of three dimensions, bounded as by `array`."""
    value = fields.get(name)
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, list) or not 1 <= len(value) <= max_rows:
        raise PayloadError(f"{name}: must be a list of 1 to {max_rows}")
    rows = [array({name: row}, name, "I32", 2, max_phrases, max_length) for row in value]
    if len({row.shape for row in rows}) != 1:
        raise PayloadError(f"{name}: every row must hold the same number of phrases, all of one length")
    return np.stack(rows)


def text(fields: dict[str, Any], name: str, most: int = MAX_TEXT) -> str:
    """A field as text of 1 to `most` characters."""
    value = fields.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise PayloadError(f"{name}: must be text of 1 to {most} characters")
    return str(value)


def whole(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    """A field as a whole number."""
    value = fields.get(name)
    if isinstance(value, HeaderText) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if type(value) is not int or not least <= value <= most:
        raise PayloadError(f"{name}: must be a whole number from {least} to {most}")
    return value


def seconds(fields: dict[str, Any], name: str, least: float = 1e-6, most: float = 86400.0) -> float:
    """A field as a float of `least` to `most`."""
    value: Any = fields.get(name)
    if isinstance(value, HeaderText) and len(value) < 40:
        try:
            value = float(value)
        except ValueError:
            pass
    if isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most:  # never so for NaN
        return float(value)
    raise PayloadError(f"{name}: must be a number from {least:g} to {most:g}")
