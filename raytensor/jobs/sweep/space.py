"""The search space: what trials vary, and the points that are tried.

In: `search.space`, dotted settings with a distribution each. Out: points ({key: value}), a trial's overrides, and the
space as Ray Tune takes it. Points of random and grid search are drawn here from the sweep's seed, so that a resumed
sweep draws the same ones. Knows nothing of what a setting means.
"""

import difflib
import functools
import itertools
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raytensor import config
from raytensor.config.sweep import SweepConfig
from raytensor.data import assign
from raytensor.errors import ConfigError

KINDS = ("uniform", "loguniform", "int", "choice", "grid")
HINT = "write {uniform: [low, high]}, {loguniform: [low, high]}, {int: [low, high]}, {choice: [...]} or {grid: [...]}"
# Settings that all trials of a sweep share.
FIXED = ("name", "seed", "resume", "dry_run", "rounds", "rank_by", "max_")
FIXED += ("paths.", "cluster.", "search.", "scheduler.", "mechanism.", "data.")
FIXED += ("miners.num_hosts", "miners.heldout_rows", "miners.cpus", "miners.gpus", "miners.round")
MAX_GRID = 10_000
RANDOM = "take search.method=random"

Point = dict[str, Any]


@dataclass(frozen=True)
class Distribution:
    """kind: one of KINDS; values: (low, high) of a range (both ends possible), or the choices."""

    kind: str
    values: tuple[Any, ...]

    @property
    def is_range(self) -> bool:
        return self.kind in ("uniform", "loguniform", "int")

    def draw(self, generator: Any) -> Any:
        low, high = self.values[0], self.values[-1]
        if self.kind == "int":
            return int(generator.integers(low, high + 1))
        if self.kind == "uniform":
            return _short(generator.uniform(low, high))
        if self.kind == "loguniform":
            return _short(math.exp(generator.uniform(math.log(low), math.log(high))))
        return self.values[int(generator.integers(len(self.values)))]

    def tune(self) -> Any:
        """The same as a domain of Ray Tune."""
        from ray import tune  # takes seconds, and a search without Tune does not need it

        low, high = self.values[0], self.values[-1]
        if self.kind == "int":
            return tune.randint(low, high + 1)
        if self.is_range:
            return (tune.uniform if self.kind == "uniform" else tune.loguniform)(low, high)
        return tune.choice(list(self.values))


Space = Mapping[str, Distribution]


def parse(space: Mapping[str, Any], settings: Collection[str]) -> dict[str, Distribution]:
    """Distributions by dotted key; `settings` are the keys that exist.

    Raises `ConfigError` that lists every mistake with its key and its fix.
    """
    found: dict[str, Distribution] = {}
    wrong: list[str] = []
    for key, text in space.items():
        if key not in settings:
            near = " or ".join(difflib.get_close_matches(key, settings, n=2, cutoff=0.6))
            hint = f"did you mean {near}?" if near else "`raytensor sweep --help` lists all settings"
            wrong.append(f"search.space: unknown setting {key!r}; {hint}")
        elif key.startswith(FIXED):
            hint = "vary settings of profile., or miners.seq_len"
            wrong.append(f"search.space: {key} is the same for all trials of a sweep; {hint}")
        else:
            try:
                found[key] = _distribution(text)
            except ValueError as error:
                wrong.append(f"search.space: {key}: {error}")
    if not space:
        hint = "search=own '+search.space={profile.lr: {loguniform: [1e-3, 1e-2]}}'"
        wrong.append(f"search.space is empty; name a space, as search=small, or define one: {hint}")
    if wrong:
        raise ConfigError("\n".join(wrong))
    return found


def points(space: Space, method: str, num_trials: int, seed: int) -> list[Point]:
    """The points of random or grid search, in order; none for optuna. Random search returns no point twice.

    Raises `ConfigError` for a grid with a range, or with more than `MAX_GRID` points.
    """
    if method == "optuna":
        return []
    if method == "grid":
        for key, distribution in space.items():
            if distribution.is_range:
                what = f"{key} is a range ({distribution.kind})"
                raise ConfigError(f"search.method=grid: {what}; give its values: {{grid: [...]}}, or {RANDOM}")
        count = math.prod(len(distribution.values) for distribution in space.values())
        if count > MAX_GRID:
            raise ConfigError(f"search.method=grid: {count} points, at most {MAX_GRID}; give fewer values, or {RANDOM}")
        grid = itertools.product(*(distribution.values for distribution in space.values()))
        return [dict(zip(space, values, strict=True)) for values in grid]
    found: dict[str, Point] = {}
    for number in range(100 * num_trials):  # a small space may hold fewer points
        generator = assign.generator(seed, "trial", number)
        point = {key: distribution.draw(generator) for key, distribution in space.items()}
        found.setdefault(json.dumps(point), point)
        if len(found) == num_trials:
            break
    return list(found.values())


def corners(space: Space) -> list[Point]:
    """Points that together contain both ends of every range and every choice. All must work before a sweep starts."""
    longest = max(len(d.values) for d in space.values())
    return [{key: d.values[min(i, len(d.values) - 1)] for key, d in space.items()} for i in range(longest)]


def overrides(point: Mapping[str, Any]) -> list[str]:
    """A point as Hydra overrides, in the order of its keys."""
    return [f"{key}={_text(value)}" for key, value in sorted(point.items())]


@functools.lru_cache(maxsize=1024)
def compose(overrides: tuple[str, ...]) -> SweepConfig:
    """The configuration of an override list; composing one takes a while, and a trial asks for it every round."""
    return config.compose("sweep", list(overrides))


def _distribution(text: Any) -> Distribution:
    if not isinstance(text, Mapping) or len(text) != 1:
        raise ValueError(f"{text!r} is not a distribution; {HINT}")
    ((kind, values),) = text.items()
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1, cutoff=0.6)
        raise ValueError(f"unknown distribution {kind!r}; {f'did you mean {near[0]}?' if near else HINT}")
    is_range = kind not in ("choice", "grid")
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        right = "two numbers" if is_range else "one value or more"
        raise ValueError(f"{kind}: {values!r} must be a list of {right}")
    if not is_range:
        return Distribution(kind, tuple(values))
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)]
    if len(values) != 2 or len(numbers) != 2:
        raise ValueError(f"{kind}: {list(values)} must be two numbers, the lowest and the highest")
    low, high = numbers
    if low >= high:
        raise ValueError(f"{kind}: [{low}, {high}]: the first must be smaller than the second")
    if kind == "loguniform" and low <= 0:
        raise ValueError(f"loguniform: [{low}, {high}]: both must be greater than 0; take uniform for a range with 0")
    if kind == "int" and not (float(low).is_integer() and float(high).is_integer()):
        raise ValueError(f"int: [{low}, {high}] must be whole numbers")
    return Distribution(kind, (int(low), int(high)) if kind == "int" else (float(low), float(high)))


def _short(value: float) -> float:
    """Five digits: what is written in an override list is exactly what was trained."""
    return float(f"{value:.5g}")


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
