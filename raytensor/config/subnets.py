"""Subnets as packages: a mechanism, a responder and defaults under one name, `subnet=NAME` on the command line.

In: the name of an entry point in the group `raytensor.subnets`, or a dotted path (`package.module` with a `SUBNET`, or
`package.module:NAME`), also in the current folder. Out: settings as typed, which come before those that were typed.
Knows nothing of mechanisms.
"""

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raytensor.arguments import did_you_mean
from raytensor.errors import ConfigError, cause_of

GROUP = "raytensor.subnets"
ATTRIBUTE = "SUBNET"  # of a module that is named alone
PREFIX = "subnet="


@dataclass(frozen=True)
class Subnet:
    """What a package declares as `SUBNET`, or under another name that its entry point gives.

    mechanism  dotted path of the class (`raytensor.mechanisms.base.Mechanism`).
    responder  dotted path of the class (`raytensor.miners.responder.Responder`); "": as the mechanism declares.
    defaults   settings as on the command line, for the jobs that have them: ("miners.num_miners=4", "data=bytes").
    docs       what the subnet asks and pays for, in a few lines.
    """

    mechanism: str
    responder: str = ""
    defaults: tuple[str, ...] = ()
    docs: str = ""

    @property
    def settings(self) -> list[str]:
        """All settings of the package."""
        paths = {"mechanism.path": self.mechanism, "mechanism.responder": self.responder}
        return [f"{key}={path}" for key, path in paths.items() if path] + list(self.defaults)


def expand(args: Sequence[str], has: Callable[[str], bool]) -> list[str]:
    """Typed settings with `subnet=NAME` replaced by the settings of that subnet, except those that are typed, too.

    has  whether the job has a setting or a group of that name. Raises ConfigError.
    """
    names = [arg.removeprefix(PREFIX) for arg in args if arg.startswith(PREFIX)]
    typed = [arg for arg in args if not arg.startswith(PREFIX)]
    if not names:
        return typed
    if not has("mechanism.path"):
        raise ConfigError(f"{PREFIX}{names[0]}: this job plays no subnet; `raytensor run`, `mine` and `validate` do")
    settings = find(names[-1]).settings
    mine = {_key(arg) for arg in typed}
    return [arg for arg in settings if has(_key(arg)) and _key(arg) not in mine] + typed


def find(name: str) -> Subnet:
    """The subnet of an entry point or a dotted path. Raises ConfigError when there is none."""
    installed = {point.name: point.value for point in importlib.metadata.entry_points(group=GROUP)}
    target = installed.get(name, name)
    module, _, attribute = target.partition(":")
    search_working_folder()
    try:
        loaded = importlib.import_module(module)
        if (found := vars(loaded).get(attribute or ATTRIBUTE)) is None:
            raise ImportError(f"{module} has no {attribute or ATTRIBUTE}")
    except ImportError as error:
        known, near = f"; installed: {', '.join(sorted(installed)) or 'none'}", did_you_mean(name, installed)
        fix = f"install the package, or start from the folder that holds it (now {os.getcwd()})"
        raise ConfigError(f"{PREFIX}{name}: {cause_of(error)}{known}{near}\n  fix: {fix}") from error
    except Exception as error:  # the edge of the package's code
        raise ConfigError(f"{PREFIX}{name}: {target} can't be imported: {type(error).__name__}: {error}") from error
    if not isinstance(found, Subnet):
        raise ConfigError(f"{PREFIX}{name}: {target} is a {type(found).__name__}, not a raytensor Subnet")
    return found


def search_working_folder() -> None:
    """Let packages of the current folder be imported: the `raytensor` script puts its own folder there instead."""
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)


def _key(arg: str) -> str:
    return arg.partition("=")[0].lstrip("+")
