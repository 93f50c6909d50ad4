"""The checks of settings that all jobs share: each field declares what it may be, and one walk checks a configuration.

In: a dataclass of settings. Out: nothing, or one `ConfigError` with a line per mistake: key, value, what it must be.

A number is finite and greater than 0 unless its field declares another range with `setting`; a text is not empty; null
passes only where the type allows it. What relates several fields is in the `conflicts` method of their section.
Knows no particular job.
"""

import dataclasses
import functools
import ipaddress
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from raytensor.errors import ConfigError


@dataclass(frozen=True)
class Form:
    """What a text must look like: `fits` decides, `says` completes "KEY=VALUE: ..."."""

    fits: Callable[[str], Any]
    says: str


@dataclass(frozen=True)
class Allowed:
    """The values that a field takes. Without any bound a number must be greater than 0."""

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    form: Form | None = None
    # "path": made absolute when a configuration is composed; "model": as well, where it names a folder that exists.
    path: str = ""
    # Keys of a free dictionary are dotted keys of settings, not levels.
    dotted: bool = False

    def words(self) -> str:
        """The range as a sentence without its subject."""
        above = 0 if self.above is None and self.least is None else self.above
        low = f"above {above}" if above is not None else f"at least {self.least}"
        if self.most is None and self.below is None:
            return f"must be greater than {above}" if above is not None else f"must be {self.least} or greater"
        if self.least is not None and self.most is not None:
            return f"must lie between {self.least} and {self.most}"
        if above is not None and self.below is not None:
            return f"must lie between {above} and {self.below}, both excluded"
        return f"must be {low} and " + (f"below {self.below}" if self.below is not None else f"at most {self.most}")

    def holds(self, number: float) -> bool:
        """Whether a number lies in the range; NaN and infinities never do."""
        above = 0 if self.above is None and self.least is None else self.above
        low = (above is None or number > above) and (self.least is None or number >= self.least)
        high = (self.below is None or number < self.below) and (self.most is None or number <= self.most)
        return math.isfinite(number) and low and high


def setting(default: Any = dataclasses.MISSING, *, make: Callable[[], Any] | None = None, **allowed: Any) -> Any:
    """A field of a settings dataclass: its default (or `make`, which makes one) and what it allows (see `Allowed`)."""
    metadata = {"allowed": Allowed(**allowed)}
    if make is not None:
        return dataclasses.field(default_factory=make, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Section:
    """Base of the settings dataclasses."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """(key relative to this section, why it is wrong) of fields that do not fit together.

        Called only when each field of the section, and of the sections in it, is right by itself.
        """
        return iter(())

    def settle(self) -> None:
        """Give settings that follow from others their values. Called once, on the root, when all settings are right."""


def check(cfg: Section) -> None:
    """Check every field of a configuration. Raises `ConfigError` with all mistakes, each with its value and the fix."""
    if wrong := mistakes(cfg):
        raise ConfigError("\n".join(wrong))


def mistakes(section: Section, prefix: str = "") -> list[str]:
    """One line per mistake: "KEY=VALUE: what it must be"; keys are dotted and start with `prefix`."""
    wrong: list[str] = []
    hints = type_hints(type(section))
    for item in dataclasses.fields(section):  # pyright: ignore[reportArgumentType] (every section is a dataclass)
        wrong += _of_value(prefix + item.name, getattr(section, item.name), hints[item.name], allowed(item))
    if not wrong:
        wrong = [f"{prefix}{key}={value_at(section, key)!r}: {why}" for key, why in section.conflicts()]
    return wrong


def allowed(item: dataclasses.Field[Any]) -> Allowed:
    """What a field of a settings dataclass allows."""
    return item.metadata.get("allowed", Allowed())


@functools.cache
def type_hints(schema: type) -> dict[str, Any]:
    """Field -> type of a settings dataclass."""
    return typing.get_type_hints(schema)


def without_null(hint: Any) -> tuple[Any, bool]:
    """(the type, whether null is allowed as well) of an annotation like `int | None`."""
    if isinstance(hint, types.UnionType):
        return next(one for one in typing.get_args(hint) if one is not type(None)), True
    return hint, False


def is_section(hint: Any) -> TypeGuard[type[Section]]:
    """Whether a type is a settings dataclass."""
    return isinstance(hint, type) and issubclass(hint, Section)


def value_at(section: Any, key: str) -> Any:
    """The value of a dotted key like "miners.profiles[0].lr"."""
    value = section
    for part in re.findall(r"[^.\[\]]+", key):
        value = value[int(part)] if isinstance(value, list) else getattr(value, part)
    return value


def list_of(words: Sequence[str]) -> str:
    """The choices as a sentence without its subject: "must be a, b or c"."""
    if len(words) > 4:
        return f"must be one of {', '.join(words)}"
    return f"must be {', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else f"must be {words[0]}"


def _of_value(key: str, value: Any, hint: Any, allows: Allowed) -> list[str]:
    kind, nullable = without_null(hint)
    if value is None:
        return [] if nullable else [f"{key}=null: must have a value"]
    if isinstance(value, Section):
        return mistakes(value, f"{key}.")
    if typing.get_origin(kind) is list and isinstance(value, list):
        inner = typing.get_args(kind)[0]
        return [line for place, one in enumerate(value) for line in _of_value(f"{key}[{place}]", one, inner, allows)]
    if typing.get_origin(kind) is dict and isinstance(value, dict):
        return [line for name, one in value.items() for line in _of_free(f"{key}.{name}", one)]
    return [f"{key}={value!r}: {why}"] if (why := _why_wrong(value, kind, allows)) else []


def _of_free(key: str, value: Any) -> list[str]:
    """Mistakes in a value whose shape is the user's own: numbers that are not finite."""
    if isinstance(value, dict):
        return [line for name, one in value.items() for line in _of_free(f"{key}.{name}", one)]
    if isinstance(value, list):
        return [line for place, one in enumerate(value) for line in _of_free(f"{key}[{place}]", one)]
    return [f"{key}={value!r}: must be finite"] if isinstance(value, float) and not math.isfinite(value) else []


def _why_wrong(value: Any, kind: Any, allows: Allowed) -> str:
    """Why a single value is wrong; "" when it is right."""
    if kind is bool:
        return "" if isinstance(value, bool) else "must be true or false"
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return "must be a number"
        if kind is int and not isinstance(value, int):
            return "must be a whole number"
        return "" if allows.holds(value) else allows.words()
    if kind is str:
        if not isinstance(value, str):
            return "must be text"
        if allows.choices:
            return "" if value in allows.choices else list_of(allows.choices)
        if not value.strip() or not value.isprintable():
            return "must be text without line breaks, and not empty"
        return "" if allows.form is None or allows.form.fits(value) else allows.form.says
    return ""


def is_publishable(address: str) -> bool:
    """Whether the chain takes this IP address as an axon's (pallet subtensor, `is_valid_ip_address`)."""
    try:
        return str(ipaddress.ip_address(address)) not in ("127.0.0.1", "::1", "0.0.0.0", "::", "255.255.255.255")
    except ValueError:
        return False


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _pattern(regex: str, says: str) -> Form:
    return Form(re.compile(regex).fullmatch, says)


_FOLDER = "must be a folder name: letters, digits, '.', '_' and '-', starting with a letter or digit"
FOLDER_NAME = _pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", _FOLDER)
ENDPOINT = _pattern(r"wss?://\S+", "must be a ws:// or wss:// address")
URL = _pattern(r"https?://\S+", "must be an http:// or https:// address")
HTTP_PATH = _pattern(r"/[\w.~/-]*", "must be a path like /v1/generate")
_NETWORK = r"(finney|test|local|archive|wss?://[^\s,]+)"
_NETWORKS = "must be finney, test, archive, local or ws(s)://...; several are separated by commas"
NETWORK = _pattern(rf"{_NETWORK}(\s*,\s*{_NETWORK})*", _NETWORKS)
_DOTTED = "must be the dotted path of a class, like mypackage.module.Name"
DOTTED_PATH = _pattern(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", _DOTTED)
# The checksum of an address is checked where it is used: `raytensor.wire.policy`.
SS58 = _pattern(r"[1-9A-HJ-NP-Za-km-z]{46,49}", "must be the ss58 address of a hotkey")
PUBLISHABLE = Form(is_publishable, "must be an IP address that the chain takes: not 127.0.0.1, ::1 or 0.0.0.0")
IP_NETWORK = Form(_is_network, "must be a network like 203.0.113.0/24")
ENVIRONMENT_NAME = _pattern(r"[A-Za-z_]\w*", "must be the name of an environment variable")
