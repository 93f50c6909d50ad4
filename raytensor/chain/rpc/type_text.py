"""Types of a runtime in words, and values of these types from what people write.

In: a `Codec` and type ids; JSON values or words of a command line. Out: text like "Vec<(u64, AccountId32)>", and values
that the codec encodes. Raises ConfigError with the type for a value that does not fit. Knows nothing of connections.
"""

import json
from collections.abc import Callable
from typing import Any

from raytensor.chain.calls import Call
from raytensor.chain.rpc.codec import Codec
from raytensor.errors import ConfigError

MAX_NAMES = 12  # variants of an enum that a description lists


def type_text(codec: Codec, type_id: int, depth: int = 3) -> str:
    """A type in the notation of Rust; deep structures end in their name."""
    definition = codec.definition(type_id)
    path, (kind, detail) = definition["path"], next(iter(definition["def"].items()))
    if kind == "primitive":
        return str(detail).lower()
    if path[-1:] in (["AccountId32"], ["MultiAddress"], ["RuntimeCall"], ["H256"]):
        return path[-1]
    if depth == 0:
        return codec.name(type_id)
    inner = lambda one: type_text(codec, one, depth - 1)  # noqa: E731
    if kind == "compact":
        return inner(detail["type"])
    if kind == "sequence":
        return f"Vec<{inner(detail['type'])}>"
    if kind == "array":
        return f"[{inner(detail['type'])}; {detail['len']}]"
    if kind == "tuple":
        return f"({', '.join(inner(one) for one in detail)})"
    if kind == "composite":
        fields = detail["fields"]
        if len(fields) == 1 and fields[0]["name"] is None:
            return inner(fields[0]["type"])
        return "{" + ", ".join(f"{field['name']}: {inner(field['type'])}" for field in fields) + "}"
    variants = detail["variants"]
    if path == ["Option"]:
        return f"Option<{inner(next(v for v in variants if v['name'] == 'Some')['fields'][0]['type'])}>"
    names = [variant["name"] for variant in variants]
    return " | ".join(names[:MAX_NAMES]) + (" | ..." if len(names) > MAX_NAMES else "")


class Reader:
    """Values of a codec's types from words and JSON. account: the ss58 address of a word; raises ConfigError."""

    def __init__(self, codec: Codec, account: Callable[[str], str]) -> None:
        self._codec, self._account = codec, account

    def word(self, type_id: int, text: str) -> Any:
        """The value of one word of a command line: JSON for lists, objects, null and flags, else the word itself."""
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if isinstance(value, float) or (isinstance(value, int) and self._is_text(type_id)):
            value = text
        return self.value(type_id, value)

    def value(self, type_id: int, value: Any) -> Any:
        """A JSON value as the codec takes it."""
        definition = self._codec.definition(type_id)
        path, (kind, detail) = definition["path"], next(iter(definition["def"].items()))
        if path[-1:] == ["AccountId32"]:
            return self._account(self._expect(type_id, value, str))
        if path[-1:] == ["RuntimeCall"]:
            return self._call(type_id, value)
        if kind in ("primitive", "compact", "composite"):
            return self._plain(type_id, kind, detail, value)
        if kind in ("sequence", "array") and self._codec.definition(detail["type"])["def"] == {"primitive": "u8"}:
            return self._bytes(type_id, value)
        if kind in ("sequence", "array"):
            return [self.value(detail["type"], one) for one in self._expect(type_id, value, list)]
        if kind == "tuple":
            given = self._expect(type_id, value, list)
            if len(given) != len(detail):
                raise self._wrong(type_id, value)
            return tuple(self.value(one, part) for one, part in zip(detail, given, strict=True))
        return self._variant(type_id, path, detail["variants"], value)

    def _plain(self, type_id: int, kind: str, detail: Any, value: Any) -> Any:
        if kind == "compact":
            return self.value(detail["type"], value)
        if kind == "primitive":
            wanted = {"bool": bool, "str": str}.get(str(detail).lower(), int)
            if wanted is int and isinstance(value, bool):
                raise self._wrong(type_id, value)
            return self._expect(type_id, value, wanted)
        fields = detail["fields"]
        if len(fields) == 1 and fields[0]["name"] is None:
            return self.value(fields[0]["type"], value)
        if fields and fields[0]["name"] is None:
            given = self._expect(type_id, value, list)
            return tuple(self.value(field["type"], one) for field, one in zip(fields, given, strict=True))
        given, names = self._expect(type_id, value, dict), [field["name"] for field in fields]
        if set(given) != set(names):
            raise ConfigError(f"{json.dumps(value)[:120]}: give an object with {', '.join(names)}")
        return {field["name"]: self.value(field["type"], given[field["name"]]) for field in fields}

    def _bytes(self, type_id: int, value: Any) -> str:
        """Bytes: 0x and hexadecimal digits, or text as UTF-8."""
        text = self._expect(type_id, value, str)
        if not text.startswith("0x"):
            return "0x" + text.encode().hex()
        try:
            bytes.fromhex(text[2:])
        except ValueError:
            raise self._wrong(type_id, value) from None
        return text

    def _variant(self, type_id: int, path: list[str], variants: list[dict], value: Any) -> Any:
        if path == ["Option"]:
            some = next(variant for variant in variants if variant["name"] == "Some")
            return None if value is None or value == "none" else self.value(some["fields"][0]["type"], value)
        if path[-1:] == ["MultiAddress"] and isinstance(value, str):
            return self._account(value)
        chosen: tuple[Any, Any] = (value, None)
        if isinstance(value, dict) and len(value) == 1:
            chosen = next(iter(value.items()))
        name, inner = chosen
        found = next((variant for variant in variants if variant["name"] == name), None)
        if found is None:
            raise self._wrong(type_id, value)
        fields = found["fields"]
        if not fields:
            return name
        if len(fields) == 1 and fields[0]["name"] is None:
            return {name: self.value(fields[0]["type"], inner)}
        return {name: self._plain(type_id, "composite", {"fields": fields}, inner)}

    def _call(self, type_id: int, value: Any) -> Call:
        """A call inside a call: {"Pallet.call": {argument: value}}."""
        if not isinstance(value, dict) or len(value) != 1:
            raise ConfigError(
                f'{json.dumps(value)[:120]}: write a call inside as {{"Pallet.call": {{"argument": value}}}}'
            )
        name, given = next(iter(value.items()))
        pallets = {v["name"]: v["fields"][0]["type"] for v in self._codec.variants(type_id).values()}
        pallet, _, function = name.partition(".")
        if pallet not in pallets:
            raise ConfigError(f'{name!r}: write a call inside as {{"Pallet.call": {{"argument": value}}}}')
        inner = self.value(pallets[pallet], {function: given} if given else function)
        return Call(pallet, function, inner[function] if isinstance(inner, dict) else {})

    def _is_text(self, type_id: int) -> bool:
        kind = self._codec.definition(self._codec.plain(type_id))["def"]
        if kind == {"primitive": "str"}:
            return True
        element = kind.get("sequence") or kind.get("array")
        return element is not None and self._codec.definition(element["type"])["def"] == {"primitive": "u8"}

    def _expect(self, type_id: int, value: Any, kind: type) -> Any:
        if not isinstance(value, kind):
            raise self._wrong(type_id, value)
        return value

    def _wrong(self, type_id: int, value: Any) -> ConfigError:
        return ConfigError(f"{json.dumps(value)[:120]} is no {type_text(self._codec, type_id)}")
