"""Settings as typed on the command line: "key=value" -> a value of the type that the schema declares.

In: arguments. Out: group choices for Hydra, and (key, value) pairs. A text setting stays exactly as typed (`name=1e3`
is the text 1e3); lists are [a, b], dictionaries {key: value}; quotes ('...' or "...") keep commas, brackets and `null`
as text.
Raises `ConfigError`, which names the very field and says what to type.
"""

import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raytensor.config.checks import Allowed, Section, allowed, is_section, type_hints, without_null
from raytensor.errors import ConfigError

# Settings of earlier versions -> what replaces them.
RENAMED = {
    "miners.wire.require_permit": "miners.wire.policy.require_permit",
    "miners.wire.min_stake_alpha": "miners.wire.policy.min_stake_alpha_rao (in rao: 10^9 are 1 alpha)",
    "miners.wire.allow": "miners.wire.policy.allow",
    "asking.max_file_mib": "asking.bounds.max_file_bytes (in bytes: 2^20 are 1 MiB)",
}
_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)"
_TRUE, _FALSE = ("true", "yes", "on", "y", "1"), ("false", "no", "off", "n", "0")


@dataclass(frozen=True)
class Word:
    """A single value as typed; a quoted one is always text."""

    text: str
    quoted: bool = False


@dataclass(frozen=True)
class Place:
    """Where a key points to: the declared type, what the field allows, and the keys inside a free dictionary."""

    hint: Any
    allows: Allowed
    free: tuple[str, ...] = ()


def split(
    schema: type[Section], groups: Mapping[str, Sequence[str]], args: Sequence[str], others: Mapping[str, type[Section]]
) -> tuple[list[str], list[tuple[str, Any]]]:
    """(group choices "group=choice", pairs of a dotted key and its value) of a job's arguments.

    groups  group -> its choices.
    others  other jobs -> their schemas, to say where a key that is unknown here belongs.
    """
    choices: list[str] = []
    values: list[tuple[str, Any]] = []
    for number, arg in enumerate(args):
        key, equals, text = arg.partition("=")
        key = key.removeprefix("++").removeprefix("+")
        if not equals or arg.startswith("-") or not re.fullmatch(r"[\w.\[\]/-]+", key):
            raise ConfigError(_how_to_type(schema, groups, arg, args[number + 1 : number + 2]))
        if key in groups and not text.startswith("{"):
            if text not in groups[key]:
                raise ConfigError(f"{key}={text}: must be one of {', '.join(groups[key])}{_near(text, groups[key])}")
            choices.append(f"{key}={text}")
        else:
            if (place := find(schema, key)) is None:
                raise ConfigError(unknown(schema, key, others))
            values.append((key, convert(parse(text, key, place.hint), place.hint, key, place.allows)))
    return choices, values


def find(schema: type[Section], key: str) -> Place | None:
    """Where a dotted key like "miners.profiles[0].lr" points to; None when there is no such setting."""
    hint: Any = schema
    allows = Allowed()
    parts = re.findall(r"[^.\[\]]+", key)
    for number, part in enumerate(parts):
        kind, _ = without_null(hint)
        if is_section(kind):
            fields = {item.name: item for item in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
            if part not in fields:
                return None
            hint, allows = type_hints(kind)[part], allowed(fields[part])
        elif typing.get_origin(kind) is list and part.isdigit():
            (hint,) = typing.get_args(kind)
        elif typing.get_origin(kind) is dict:
            rest = parts[number:]
            return Place(Any, allows, (".".join(rest),) if allows.dotted else tuple(rest))
        else:
            return None
    return Place(hint, allows)


def keys_of(schema: type[Section], prefix: str = "") -> list[str]:
    """Every dotted key of a schema, sections included."""
    found = []
    for name, hint in type_hints(schema).items():
        found.append(prefix + name)
        if is_section(hint):
            found += keys_of(hint, f"{prefix}{name}.")
    return found


def unknown(schema: type[Section], key: str, others: Mapping[str, type[Section]]) -> str:
    """Why a key is refused, with the nearest ones."""
    if key in RENAMED and find(schema, RENAMED[key].partition(" ")[0]):
        return f"{key} is now {RENAMED[key]}"
    if owners := [job for job, other in others.items() if find(other, key)]:
        return f"unknown setting {key!r}: it belongs to {', '.join(f'`raytensor {job}`' for job in owners)}"
    parent = key.rpartition(".")[0]
    place = find(schema, parent) if "[" in parent else None
    beside = [f"{parent}.{one}" for one in type_hints(place.hint)] if place and isinstance(place.hint, type) else []
    if near := difflib.get_close_matches(key, beside or keys_of(schema), n=1 if beside else 3, cutoff=0.6):
        return f"unknown setting {key!r}; did you mean {' or '.join(near)}?"
    return f"unknown setting {key!r}; --help lists the sections, --help all every setting"


def parse(text: str, key: str, hint: Any) -> Any:
    """A value as typed -> lists, dictionaries and `Word`s. Only what may be a list or dictionary is read as one."""
    kind, _ = without_null(hint)
    stripped = text.strip()
    if kind in (str, int, float, bool) or not stripped.startswith(("[", "{")):
        return _word(text if kind is str else stripped)
    reader = _Reader(stripped, key)
    value = reader.value("")
    if reader.rest:
        raise reader.error(f"nothing may follow the closing bracket, but {reader.rest!r} does")
    return value


def convert(tree: Any, hint: Any, key: str, allows: Allowed) -> Any:
    """A parsed value as the declared type. Raises `ConfigError` with the key of the very part that does not fit."""
    kind, nullable = without_null(hint)
    if isinstance(tree, Word) and not tree.quoted and tree.text == "null" and kind is not Any:
        if not nullable:
            raise ConfigError(f"{key}=null: must have a value")
        return None
    if is_section(kind):
        return _section(tree, kind, key)
    if typing.get_origin(kind) is list:
        if not isinstance(tree, list):
            raise ConfigError(f"{key}={_shown(tree)}: must be a list; type {key}=[{_shown(tree)}]")
        (inner,) = typing.get_args(kind)
        return [convert(one, inner, f"{key}[{place}]", allows) for place, one in enumerate(tree)]
    if kind is Any or typing.get_origin(kind) is dict:
        if kind is not Any and not isinstance(tree, dict):
            raise ConfigError(f"{key}={_shown(tree)}: must be a dictionary; type {key}={{name: value}}")
        return _free(tree)
    if not isinstance(tree, Word):
        raise ConfigError(f"{key}={_shown(tree)}: must be a single value")
    return tree.text if kind is str or "${" in tree.text else _scalar(tree, kind, key)


def _section(tree: Any, kind: type[Section], key: str) -> dict[str, Any]:
    fields = {item.name: item for item in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    if not isinstance(tree, dict):
        some = next(iter(fields))
        fix = f"type {key}.{some}=VALUE or {key}={{{some}: VALUE}}"
        raise ConfigError(f"{key}={_shown(tree)}: has settings of its own; {fix}")
    for name in tree:
        if name not in fields:
            near = _near(name, list(fields)) or f"; there is {', '.join(fields)}"
            raise ConfigError(f"unknown setting '{key}.{name}'{near}")
    hints = type_hints(kind)
    return {name: convert(one, hints[name], f"{key}.{name}", allowed(fields[name])) for name, one in tree.items()}


def _scalar(word: Word, kind: Any, key: str) -> int | float | bool:
    text = word.text
    if kind is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise ConfigError(f"{key}={text!r}: must be true or false")
        return text.lower() in _TRUE
    try:
        number = float(text)
        if kind is int and not number.is_integer():
            raise ValueError
        exact = kind is float or not re.fullmatch(r"[+-]?[\d_]+", text)
        return kind(number) if exact else int(text)
    except (ValueError, OverflowError):
        raise ConfigError(f"{key}={text!r}: must be a {'whole ' if kind is int else ''}number") from None


def _free(tree: Any) -> Any:
    """A value whose type nothing declares: numbers, true, false and null where they look like it, text otherwise."""
    if isinstance(tree, dict):
        return {name: _free(one) for name, one in tree.items()}
    if isinstance(tree, list):
        return [_free(one) for one in tree]
    text = tree.text
    words = {"null": None, "true": True, "false": False}
    if tree.quoted or text in words:
        return text if tree.quoted else words[text]
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(_NUMBER, text) else text


def _word(text: str) -> Word:
    quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
    return Word(text[1:-1].replace(f"\\{text[0]}", text[0]), True) if quoted else Word(text)


class _Reader:
    """Reads one list or dictionary from the front of a text."""

    def __init__(self, text: str, key: str) -> None:
        self._text, self._key = text, key
        self.rest = text

    def value(self, ends: str) -> Any:
        """A list, a dictionary or a word that ends before one of `ends`."""
        if self.rest.startswith("["):
            return self._items("]")
        if self.rest.startswith("{"):
            return dict(self._items("}"))
        return self._word(ends)

    def error(self, why: str) -> ConfigError:
        return ConfigError(
            f"{self._key}={self._text}: {why}\n"
            "  fix: lists are [a, b], dictionaries {key: value}; quote a text with brackets or commas, and it all for "
            f"""the shell: "{self._key}=[{{name: 'a[1], b'}}]\""""
        )

    def _items(self, close: str) -> list[Any]:
        """The items up to `close`; those of a dictionary are pairs."""
        self._drop(1)
        found: list[Any] = []
        while not self.rest.startswith(close):
            if not self.rest:
                raise self.error(f"a {close} is missing at the end")
            if close == "}":
                name = self._word(":")
                if not self.rest.startswith(":"):
                    raise self.error(f"{name.text!r} has no value; type {{{name.text or 'key'}: value}}")
                self._drop(1)
                found.append((name.text, self.value(f",{close}")))
            else:
                found.append(self.value(f",{close}"))
            self._drop(0)
            if self.rest.startswith(","):
                self._drop(1)
            elif not self.rest.startswith(close):
                missing = "a comma" if self.rest and self.rest[0] not in "]}" else f"a {close}"
                raise self.error(f"{missing} is missing" + (f" before {self.rest!r}" if self.rest else " at the end"))
        self.rest = self.rest[1:]
        return found

    def _word(self, ends: str) -> Word:
        quoted = self.rest.startswith(("'", '"'))
        match = re.match(_QUOTED if quoted else rf"[^{re.escape(ends)}\[\]{{}}]*", self.rest)
        if match is None or not (text := match.group().strip()):
            raise self.error("a quote is not closed" if quoted else "a value is missing")
        self._drop(match.end())
        return _word(text)

    def _drop(self, count: int) -> None:
        """Drop the first `count` characters, and the spaces after them."""
        self.rest = self.rest[count:].lstrip()


def _how_to_type(schema: type[Section], groups: Mapping[str, Sequence[str]], arg: str, following: Sequence[str]) -> str:
    """What to type instead of an argument that is not "key=value"."""
    name, equals, text = arg.lstrip("-").partition("=")
    key = name.replace("-", "_").strip("~ ")
    if not equals and following and "=" not in following[0] and not following[0].startswith("-"):
        text = following[0]
    if find(schema, key) is None and key not in groups:
        near = difflib.get_close_matches(key, [*keys_of(schema), *groups], n=1, cutoff=0.6)
        if not near:
            return f"{arg!r}: a setting is typed as key=value, such as name=demo; --help lists the sections"
        key = near[0]
    if key in groups:
        text = text if text in groups[key] else "|".join(groups[key])
    place = find(schema, key)
    text = text or ("true" if place is not None and place.hint is bool else "VALUE")
    said = " ".join([arg, *following]) if not equals and following == [text] else arg
    return f"{said!r}: a setting is typed as key=value; type {key}={text}"


def _near(text: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(text, words, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(tree: Any) -> str:
    """A parsed value as it was typed."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{name}: {_shown(one)}" for name, one in tree.items()) + "}"
    return f"[{', '.join(map(_shown, tree))}]" if isinstance(tree, list) else tree.text
