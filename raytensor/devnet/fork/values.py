"""Plain values, as a chain's snapshot has them, turned into values of the embedded chain's types.

In: an `Expr` and a value of JSON: integers, ss58 addresses, 0x and hexadecimal digits, {"bits": integer}, lists,
objects by field name, names of variants. Out: the Python value that typedefs.py lists for the type. Structs are read
by field name, integers of any width, so that a snapshot of another spec is understood where its values fit.
Raises ValueError for a value that does not fit. Knows nothing of storage.
"""

from collections.abc import Callable
from typing import Any

from raytensor.devnet.scale import FIXED_BYTES, INTS, MAPS, SEQUENCES, Codecs
from raytensor.devnet.ss58 import decode_account
from raytensor.devnet.typedefs import DECLARED, EnumDef, Expr, NewtypeDef, StructDef, parse


class Reader:
    """Values of types by the declarations of one runtime."""

    def __init__(self, codecs: Codecs) -> None:
        self._codecs = codecs
        self._compound: dict[str, Callable[[Expr, Any], Any]] = {"()": self._tuple, "[]": self._array}
        self._compound |= {"Option": self._option, "Compact": lambda expr, value: self(expr.args[0], value)}
        self._compound |= dict.fromkeys(SEQUENCES, self._sequence) | dict.fromkeys(MAPS, self._map)

    def __call__(self, type_: str | Expr, value: Any) -> Any:
        """The value of the type. Raises ValueError."""
        expr = parse(type_) if isinstance(type_, str) else type_
        if expr.name in INTS or expr.name == "bool":
            return _number(expr, value)
        if expr.name == "AccountId32":
            return decode_account(_expect(expr, value, str))
        if expr.name in FIXED_BYTES:
            return _bytes(expr, value)
        if expr.name in self._compound:
            return self._compound[expr.name](expr, value)
        return self._declared(expr, value)

    def _tuple(self, expr: Expr, value: Any) -> tuple:
        if isinstance(value, dict):  # a struct in the snapshot
            value = list(value.values())
        given = _expect(expr, value, list | tuple)
        if len(given) != len(expr.args):
            raise ValueError(f"{len(given)} values for {expr}")
        return tuple(self(part, one) for part, one in zip(expr.args, given, strict=True))

    def _array(self, expr: Expr, value: Any) -> Any:
        return _bytes(expr, value) if expr.args[0].name == "u8" else self._sequence(expr, value)

    def _sequence(self, expr: Expr, value: Any) -> Any:
        if expr.args[0].name == "u8":
            return _bytes(expr, value)
        element = expr.args[0]
        if element.name in INTS or {part.name for part in element.args} <= INTS.keys() and element.name == "()":
            return tuple(tuple(one) if isinstance(one, list) else one for one in _expect(expr, value, list | tuple))
        return tuple(self(element, one) for one in _expect(expr, value, list | tuple))

    def _map(self, expr: Expr, value: Any) -> dict:
        pairs = value.items() if isinstance(value, dict) else _expect(expr, value, list | tuple)
        return {self(expr.args[0], key): self(expr.args[1], one) for key, one in pairs}

    def _option(self, expr: Expr, value: Any) -> Any:
        return None if value is None else self(expr.args[0], value)

    def _declared(self, expr: Expr, value: Any) -> Any:
        definition = DECLARED.get(expr.name)
        if isinstance(definition, NewtypeDef):
            if definition.field and isinstance(value, dict):
                value = value[definition.field]
            return self(definition.inner, value)
        if isinstance(definition, StructDef):
            return self._struct(definition, _expect(expr, value, dict))
        if isinstance(definition, EnumDef):
            return self._enum(definition, value)
        raise ValueError(f"no values of {expr} are read from a snapshot")

    def _struct(self, definition: StructDef, value: dict) -> Any:
        """Fields that the snapshot lacks are zero, others that it has are dropped."""
        zero = self._codecs(definition.name).zero
        given = [
            self(type_, value[name]) if name in value else default
            for (name, type_), default in zip(definition.fields.items(), zero, strict=True)
        ]
        return definition.cls(*given)

    def _enum(self, definition: EnumDef, value: Any) -> Any:
        name, inner = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else (value, None)
        if name not in definition.variants:
            raise ValueError(f"{name!r:.80} is no variant of {definition.name}")
        payload = definition.variants[name][1]
        if isinstance(payload, StructDef):
            return name, self._struct(payload, inner or {})
        if not payload:
            return name
        return name, self(payload[0], inner) if len(payload) == 1 else self._tuple(Expr("()", payload), inner)


def _expect(expr: Expr, value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{value!r:.80} is no {expr}")
    return value


def _number(expr: Expr, value: Any) -> int | bool:
    if isinstance(value, dict) and list(value) == ["bits"]:
        value = value["bits"]
    return _expect(expr, value, bool if expr.name == "bool" else int)


def _bytes(expr: Expr, value: Any) -> bytes:
    text = _expect(expr, value, str | bytes)
    if isinstance(text, bytes):
        return text
    return bytes.fromhex(text[2:]) if text.startswith("0x") else text.encode()
