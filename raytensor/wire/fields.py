"""Fields of a message -> values with checked types and sizes.

In: the fields as JSON or a safetensors header gives them. Out: text, numbers, arrays; or `PayloadError` with the name.
"""

from typing import Any

import numpy as np

from raytensor.payload import Array
from raytensor.wire.errors import PayloadError

MAX_TEXT = 256  # characters of an id or an address: an id may hold two addresses and a digest


class HeaderText(str):
    """A value of a safetensors header, where all values are text."""


def check_message(fields: dict[str, Any], message: str) -> None:
    """Raise PayloadError when the fields are of another message."""
    if fields.get("message") != message:
        raise PayloadError(f"the body is not a {message}")


def array(fields: dict[str, Any], name: str, dtype: str, *most: int) -> np.ndarray:
    """A field as an array: an array as it is, or JSON lists with at most these sizes, and one row or more."""
    value = fields.get(name)
    if isinstance(value, np.ndarray):
        return value
    if value == []:  # no rows: refused by the caller where some are needed
        return np.zeros((0,) * len(most), dtype)
    try:
        return Array(dtype, ((1, most[0]), *((0, one) for one in most[1:]))).from_json(value)
    except ValueError as error:
        raise PayloadError(f"{name}: {error}") from None


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
