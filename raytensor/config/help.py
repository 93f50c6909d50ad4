"""The `--help` pages of the jobs, made from the settings dataclasses and the groups of `conf/`.

In: a job, its usage text and the words beside --help. Out: text. A short page by default; `--help SECTION` shows the
settings of a section with their defaults, `--help all` every setting. The comment above a field is its help text.
"""

import inspect
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raytensor.config import behaviours, optimizers
from raytensor.config.checks import Section, is_section, type_hints
from raytensor.config.compose import conf_dir, groups_of, schema_of
from raytensor.config.overrides import find, unknown
from raytensor.errors import ConfigError


@dataclass(frozen=True)
class Setting:
    """One setting as `--help` shows it."""

    default: Any
    comment: str


def settings(schema: type[Section], prefix: str = "") -> dict[str, Setting]:
    """Dotted key -> default and comment of each setting, in order, those of sections included."""
    out: dict[str, Setting] = {}
    for name, setting in _fields(schema).items():
        if isinstance(setting.default, Section):
            out.update(settings(type(setting.default), f"{prefix}{name}."))
        else:
            out[prefix + name] = setting
    return out


def asks_for_help(args: Sequence[str]) -> bool:
    """Whether the arguments of a job ask for its help page."""
    return any(arg in ("-h", "--help") for arg in args)


def help_page(job: str, usage: str, args: Sequence[str]) -> str:
    """The help page that the arguments of a job ask for. Raises `ConfigError` for a word that is no setting.

    usage  what the job does, with examples.
    args   for example ["--help"], ["--help", "miners.wire"] or ["--help", "all"].
    """
    schema = schema_of(job)
    words = [arg.partition("=")[0] for arg in args if arg not in ("-h", "--help")]
    if words:
        return "".join(_section_page(schema, "" if word == "all" else word) for word in words)
    groups = "\n".join(f"  {name}={'|'.join(choices)}" for name, choices in groups_of(job).items())
    single, sections = [], []
    for name, setting in _fields(schema).items():
        line = f"  {name if isinstance(setting.default, Section) else f'{name}={_shown(setting.default)}':<24} "
        sentence = re.split(r"(?<=[.;]) ", setting.comment, maxsplit=1)[0].rstrip(".;")
        (sections if isinstance(setting.default, Section) else single).append(f"{line}{sentence}.")
    if find(schema, "mechanism.path"):
        groups += (
            "\n  subnet=NAME  the settings of a subnet package: an entry point of raytensor.subnets, or a dotted path"
        )
    groups = f"groups (GROUP=CHOICE; files in {conf_dir()}):\n{groups}\n\n" if groups else ""
    head = f"{usage.rstrip()}\n\n{groups}settings:"
    more = f"\nsections (`raytensor {job} --help SECTION` shows one with its settings, `--help all` shows all):"
    return "\n".join([head, *single, more, *sections, ""])


def _section_page(schema: type[Section], key: str) -> str:
    """The settings of one section, or one setting, with defaults and comments; "" is all of the job."""
    place = find(schema, key) if key else None
    if key and place is None:
        raise ConfigError(unknown(schema, key, {}))
    hint = place.hint if place else schema
    if typing.get_origin(hint) is list and is_section(inner := typing.get_args(hint)[0]):
        return f"each of {key}:\n" + "".join(_lines(name, one) for name, one in settings(inner).items())
    if is_section(hint):
        return "".join(_lines(name, one) for name, one in settings(hint, f"{key}." if key else "").items())
    parent, _, name = key.rpartition(".")
    above = find(schema, parent).hint if parent else schema  # pyright: ignore[reportOptionalMemberAccess] (key was found)
    found = _fields(above).get(name) if is_section(above) else None
    return _lines(key, found) if found else f"{key}: free, any value\n"


def _lines(key: str, setting: Setting) -> str:
    return f"  {key}={_shown(setting.default)}\n      {setting.comment}\n"


def _shown(default: Any) -> str:
    if isinstance(default, list):
        return "[...]" if any(isinstance(one, Section) for one in default) else f"[{', '.join(map(str, default))}]"
    if isinstance(default, bool):
        return str(default).lower()
    return "null" if default is None else str(default)


def _fields(schema: type[Section]) -> dict[str, Setting]:
    """Field -> its default and the comment above it, inherited ones included."""
    comments: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        if issubclass(base, Section):
            comments |= _comments(base)
    default, found = schema(), {}
    for name, hint in type_hints(schema).items():
        comment = comments.get(name, "")
        if typing.get_origin(hint) is list and is_section(typing.get_args(hint)[0]):
            comment += f" Its settings: --help with the key of `{name}`."
        found[name] = Setting(getattr(default, name), comment)
    return found


def _comments(schema: type[Section]) -> dict[str, str]:
    tables = {"behaviours": behaviours.help_text()}
    tables |= {name: optimizers.help_text(getattr(optimizers, name.upper())) for name in ("optimizers", "engines")}
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(schema).splitlines():
        if line.strip().startswith("#"):
            above.append(line.strip("# "))
            continue
        if field_line := re.match(r"    (\w+): ", line):
            comment = " ".join(above)
            for name, text in tables.items():
                comment = comment.replace(f"{{{name}}}", text)
            if comment:  # a default alone keeps what its base class says
                found[field_line.group(1)] = comment
        above = []
    return found
