"""How a job's configuration is composed, printed and explained.

In: the job's name, its schema and Hydra overrides. Out: a checked configuration of plain dataclasses.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytensor.config import behaviours
from raytensor.config.optimizers import help_of_engines, help_of_optimizers
from raytensor.errors import ConfigError


def conf_dir() -> Path:
    """The folder of the YAML groups: `conf/` of a checkout, or the copy inside an installed package."""
    here = Path(__file__).resolve().parent.parent
    for folder in (here.parent / "conf", here / "_conf"):
        if (folder / "run.yaml").is_file():
            return folder
    raise ConfigError(f"the configuration folder is missing beside {here}; install the package again")


# job -> (module, root dataclass, function that refuses impossible settings); imported when the job is composed.
ROOTS = {
    "run": ("raytensor.config.run", "RunConfig", "check"),
    "train": ("raytensor.config.train", "TrainConfig", "check"),
    "validate": ("raytensor.config.validate", "ValidateConfig", "check"),
    "sweep": ("raytensor.config.sweep", "SweepConfig", "check"),
}


def compose(job: str, overrides: list[str]) -> Any:
    """The checked configuration of a job, from `conf/<job>.yaml` and Hydra overrides ("miners.num_miners=16").

    Returns the job's root dataclass (see `ROOTS`).

    Raises `ConfigError` for an unknown key, a wrong type, an unknown group option or an impossible number.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    module, name, check_name = ROOTS[job]
    schema = getattr(importlib.import_module(module), name)
    check = getattr(importlib.import_module(module), check_name)
    ConfigStore.instance().store(name=f"{job}_schema", node=schema)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            node = hydra_compose(job, overrides=overrides)
        cfg = OmegaConf.to_object(node)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(f"{error}\n{error.__cause__ or ''}", job, schema)) from error
    unknown = [str(key) for key in node if key not in schema.__dataclass_fields__]
    if unknown:  # Hydra's "+key=value" adds keys that nothing would read
        raise ConfigError(f"unknown setting {unknown[0]!r}; `raytensor {job} --help` lists all settings")
    assert isinstance(cfg, schema)
    cfg.paths.runs = str(Path(cfg.paths.runs).expanduser().absolute())
    cfg.paths.cache = str(Path(cfg.paths.cache).expanduser().absolute())
    check(cfg)
    return cfg


def to_yaml(cfg: Any) -> str:
    """A configuration as YAML, every value resolved."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(cfg), resolve=True)


@dataclass(frozen=True)
class Setting:
    """One setting as `--help` shows it."""

    default: Any
    comment: str


def settings(schema: Any, prefix: str = "") -> dict[str, Setting]:
    """Dotted key -> default and the comment that stands above the field, sections opened, in order."""
    out: dict[str, Setting] = {}
    comments = _comments(schema)
    for item in dataclasses.fields(schema):
        default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        if dataclasses.is_dataclass(default):
            out.update(settings(type(default), f"{prefix}{item.name}."))
        else:
            out[prefix + item.name] = Setting(default, comments.get(item.name, ""))
    return out


def help_of_settings(schema: Any) -> str:
    """Each setting with its default and what it means, as lines of a `--help` text."""
    lines = []
    for key, setting in settings(schema).items():
        default = (
            "[...]" if isinstance(setting.default, list) else "null" if setting.default is None else setting.default
        )
        lines.append(
            f"  {key}={str(default).lower() if isinstance(default, bool) else default}\n      {setting.comment}"
        )
    return "\n".join(lines)


def help_of_groups(names: Iterable[str] | None = None) -> str:
    """The choices of each group of `conf/` (those of `names`, or all), as lines of a `--help` text."""
    groups: dict[str, list[str]] = {}
    for file in sorted(conf_dir().glob("*/*.yaml")):
        if names is None or file.parent.name in names:
            groups.setdefault(file.parent.name, []).append(file.stem)
    return "\n".join(f"  {group}={'|'.join(choices)}" for group, choices in groups.items())


def _comments(schema: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(schema).splitlines():
        field_line = re.match(r"    (\w+): ", line)
        if line.strip().startswith("#"):
            above.append(line.strip("# "))
        elif field_line:
            found[field_line.group(1)] = _with_tables(" ".join(above))
            above = []
        else:
            above = []
    return found


def _with_tables(comment: str) -> str:
    """A comment with the rows of the tables that it names in braces."""
    tables = {"behaviours": behaviours.help_text, "optimizers": help_of_optimizers, "engines": help_of_engines}
    for name, text in tables.items():
        comment = comment.replace(f"{{{name}}}", text())
    return comment


def _explain(message: str, job: str, schema: Any) -> str:
    """Hydra's message without its internals, and the nearest key when one is misspelt."""
    noise = (
        "full_key:",
        "object_type=",
        "reference_type=",
        "Set the env",
        "Config search path",
        "provider=",
        "See https",
    )
    lines = [re.sub(r"^In '\w+': ", "", line.strip()) for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(noise)]
    text = "\n".join(dict.fromkeys(lines))
    found = re.search(r"Could not override '([^']+)'", text)
    if found:
        near = difflib.get_close_matches(found.group(1), list(settings(schema)), n=3, cutoff=0.6)
        text = f"unknown setting {found.group(1)!r}"
        text += f"; did you mean {' or '.join(near)}?" if near else f"; `raytensor {job} --help` lists all settings"
    return text
