"""The YAML files of `conf/`, composed by Hydra onto the schema of a job.

In: a job's schema, group choices and typed settings. Out: the job's root dataclass, not yet checked. Of a file that
several jobs share, a section that this job does not have is left out. Raises `ConfigError` for a file that does not fit
the schema.
"""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from raytensor.config import overrides
from raytensor.config.checks import Section
from raytensor.errors import ConfigError

Typed = Sequence[tuple[str, Any]]


def compose(
    folder: Path, job: str, schema: type[Section], choices: Sequence[str], values: Typed, known: AbstractSet[str]
) -> Section:
    """The root file of a job in `folder` with the chosen group files, then `values` by dotted key.

    known  sections and settings of all jobs: what a file sets beside these is a mistake.
    """
    try:
        node = _from_files(folder, job, schema, choices, known)
        for key, value in values:
            _set(node, schema, key, value)
        cfg = OmegaConf.to_object(node)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from error
    assert isinstance(cfg, schema)
    return cfg


def _from_files(
    folder: Path, job: str, schema: type[Section], choices: Sequence[str], known: AbstractSet[str]
) -> DictConfig:
    root = OmegaConf.structured(schema)
    OmegaConf.set_struct(root, False)  # a file may set sections of other jobs
    ConfigStore.instance().store(name=f"{job}_schema", node=root)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(folder), version_base="1.3"):
        node = hydra_compose(job, overrides=list(choices))
    with open_dict(node):
        for key in [str(key) for key in node if key not in overrides.type_hints(schema)]:
            if key not in known:
                raise ConfigError(f"unknown setting {key!r} in a file of {folder}")
            del node[key]
    return node


def _set(node: DictConfig, schema: type[Section], key: str, value: Any) -> None:
    place = overrides.find(schema, key)
    assert place is not None, key
    for match in re.finditer(r"[.\[](\d+)\b", key):
        found = OmegaConf.select(node, key[: match.start()])
        if int(match.group(1)) >= len(found):
            raise ConfigError(f"{key}: {key[: match.start()]} has {len(found)} entries, numbered from 0")
    if place.allows.dotted and place.free:
        section = OmegaConf.select(node, key.removesuffix("." + place.free[0]))
        with open_dict(section):
            section[place.free[0]] = value
    else:
        OmegaConf.update(node, key, value, merge=True, force_add=bool(place.free) or isinstance(value, dict))


def _explain(error: Exception) -> str:
    """The message of Hydra or OmegaConf about a YAML file, without its internals."""
    noise = (
        "full_key:",
        "object_type=",
        "reference_type=",
        "Set the env",
        "Config search path",
        "provider=",
        "See https",
    )
    text = f"{error}\n{error.__cause__ or ''}"
    lines = [re.sub(r"^In '\w+': ", "", line.strip()) for line in text.splitlines() if line.strip()]
    where = re.search(r"full_key: (\S+)", text)
    lines = [line for line in dict.fromkeys(lines) if not line.startswith(noise)]
    return (f"{where.group(1)}: " if where else "") + "\n".join(lines)


def to_yaml(cfg: Any) -> str:
    """A configuration as YAML, every value resolved."""
    return OmegaConf.to_yaml(OmegaConf.structured(cfg), resolve=True)
