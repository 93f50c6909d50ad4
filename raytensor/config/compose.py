"""How the configuration of a job is composed and printed.

In: the name of the job and what a user typed. Out: a checked configuration of plain dataclasses. Hydra composes the
YAML files of `conf/` (`yaml_files`), the settings that were typed come last (`overrides`), then everything is checked.
"""

import dataclasses
import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raytensor.config import overrides as typed
from raytensor.config import subnets
from raytensor.config.checks import Section, allowed, check
from raytensor.errors import ConfigError

# job -> (module, root dataclass); imported when a job is composed.
ROOTS = {
    "run": ("raytensor.config.run", "RunConfig"),
    "train": ("raytensor.config.train", "TrainConfig"),
    "mine": ("raytensor.config.mine", "MineConfig"),
    "validate": ("raytensor.config.validate", "ValidateConfig"),
    "gateway": ("raytensor.config.gateway", "GatewayConfig"),
    "sweep": ("raytensor.config.sweep", "SweepConfig"),
}
SEARCH_PATH = "hydra.searchpath="


def conf_dir() -> Path:
    """The folder of the YAML groups: `conf/` of a checkout, or the copy inside an installed package."""
    here = Path(__file__).resolve().parent.parent
    for folder in (here.parent / "conf", here / "_conf"):
        if (folder / "run.yaml").is_file():
            return folder
    raise ConfigError(f"the configuration folder is missing beside {here}; install the package again")


def schema_of(job: str) -> type[Section]:
    """The root dataclass of a job."""
    module, name = ROOTS[job]
    return getattr(importlib.import_module(module), name)


def groups_of(job: str, more: Sequence[str] = ()) -> dict[str, list[str]]:
    """Group -> its choices, in the order of the root file of a job; `more`: further folders with files of groups."""
    names = re.findall(r"^  - (\w+): ", (conf_dir() / f"{job}.yaml").read_text(), re.MULTILINE)
    folders = [conf_dir(), *map(Path, more)]
    return {name: sorted({file.stem for at in folders for file in (at / name).glob("*.yaml")}) for name in names}


def compose(job: str, overrides: Sequence[str]) -> Any:
    """The checked configuration of a job (its root dataclass, see `ROOTS`).

    overrides  what a user typed: "miners.num_miners=16", "experiment=cheats"; "hydra.searchpath=[file:///folder]" adds
               a folder with files of groups, such as a sweep writes; "subnet=NAME" stands for the settings of a subnet
               package (`subnets`).

    Raises `ConfigError` for an unknown setting, a wrong type, an unknown choice of a group or an impossible value.
    """
    schema = schema_of(job)
    others = {name: schema_of(name) for name in ROOTS if name != job}
    paths = [arg for arg in overrides if arg.startswith(SEARCH_PATH)]
    groups = groups_of(job, re.findall(r"file://([^,\]'\"]+)", " ".join(paths)))
    overrides = subnets.expand(overrides, lambda key: key in groups or typed.find(schema, key) is not None)
    choices, values = typed.split(schema, groups, [arg for arg in overrides if arg not in paths], others)
    known = {name for other in (schema, *others.values()) for name in typed.type_hints(other)}
    cfg: Any = _yaml_files().compose(conf_dir(), job, schema, [*paths, *choices], values, known)
    _make_absolute(cfg)
    if (
        job == "train" and cfg.data.files
    ):  # Ray Train's workers read it; other jobs read it here, and resume it as typed
        cfg.data.files = str(Path(cfg.data.files).expanduser().absolute())
    check(cfg)
    cfg.settle()
    return cfg


def to_yaml(cfg: Any) -> str:
    """A configuration as YAML, every value resolved."""
    return _yaml_files().to_yaml(cfg)


def _yaml_files() -> Any:
    # Hydra takes 0.3 s to import, and actors that import this room never compose.
    from raytensor.config import yaml_files

    return yaml_files


def _make_absolute(section: Section) -> None:
    """Make the paths of a configuration absolute: actors have other working directories."""
    for item in dataclasses.fields(section):  # pyright: ignore[reportArgumentType] (every section is a dataclass)
        value, kind = getattr(section, item.name), allowed(item).path
        if isinstance(value, str) and kind and "://" not in value:
            path = Path(value).expanduser()
            if kind == "path" or path.is_dir():
                setattr(section, item.name, str(path.absolute()))
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Section):
                _make_absolute(one)
