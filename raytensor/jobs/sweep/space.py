"""The search space: what trials vary, and the points that are tried.

In: `search.space`, dotted settings with a distribution each. Out: points ({key: value}), a trial's overrides, and the
space as Ray Tune takes it. Points of random and grid search are drawn here from the sweep's seed, so that a resumed
sweep tries the same ones. Knows nothing of what a setting means.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raytensor import config
from raytensor.config.sweep import SweepConfig
from raytensor.data import assign
from raytensor.errors import ConfigError

KINDS = ("uniform", "loguniform", "int", "choice", "grid")
HINT = "write {uniform: [low, high]}, {loguniform: [low, high]}, {int: [low, high]}, {choice: [...]} or {grid: [...]}"
# Settings that all trials of a sweep share.
FIXED = (
    "name",
    "seed",
    "resume",
    "dry_run",
    "rounds",
    "rank_by",
    "max_",
    "paths.",
    "cluster.",
    "search.",
    "scheduler.",
    "mechanism.",
    "data.",
    "miners.num_hosts",
    "miners.heldout_rows",
    "miners.cpus",
    "miners.gpus",
    "miners.round",
)
MAX_GRID = 10_000

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
        from ray import tune

        low, high = self.values[0], self.values[-1]
        if self.kind == "int":
            return tune.randint(low, high + 1)
        return (
            tune.uniform(low, high)
            if self.kind == "uniform"
            else tune.loguniform(low, high)
            if self.kind == "loguniform"
            else tune.choice(list(self.values))
        )


def parse(space: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Distribution]:
    """Distributions by dotted key; `settings` are the keys that there are.

    Raises `ConfigError` that says what is wrong with which key, and what would be right; all mistakes at once.
    """
    found: dict[str, Distribution] = {}
    wrong: list[str] = []
    for key, text in space.items():
        if key not in settings:
            near = difflib.get_close_matches(key, settings, n=2, cutoff=0.6)
            wrong.append(
                f"search.space: unknown setting {key!r}; "
                + (f"did you mean {' or '.join(near)}?" if near else "`raytensor sweep --help` lists all settings")
            )
        elif key.startswith(FIXED):
            wrong.append(
                f"search.space: {key} is the same for all trials of a sweep; vary settings of profile., or miners.seq_len"
            )
        else:
            try:
                found[key] = _distribution(text)
            except ValueError as error:
                wrong.append(f"search.space: {key}: {error}")
    if not space:
        wrong.append(
            "search.space is empty: nothing to search; name a space, as in search=small, or give one: search=own '+search.space={profile.lr: {loguniform: [1e-3, 1e-2]}}'"
        )
    if wrong:
        raise ConfigError("\n".join(wrong))
    return found


def points(space: Mapping[str, Distribution], method: str, num_trials: int, seed: int) -> list[Point]:
    """What random and grid search try, in order; for optuna nothing. Random search does not try a point twice."""
    if method == "optuna":
        return []
    if method == "grid":
        ranges = [key for key, distribution in space.items() if distribution.is_range]
        if ranges:
            raise ConfigError(
                f"search.method=grid: {ranges[0]} is a range ({space[ranges[0]].kind}); give its values: {{grid: [...]}}, or take search.method=random"
            )
        count = math.prod(len(distribution.values) for distribution in space.values())
        if count > MAX_GRID:
            raise ConfigError(
                f"search.method=grid: {count} combinations, at most {MAX_GRID}; fewer values, or search.method=random"
            )
        return [
            dict(zip(space, values, strict=True)) for values in itertools.product(*(d.values for d in space.values()))
        ]
    found: list[Point] = []
    seen: set[str] = set()
    for number in itertools.count():
        if len(found) == num_trials or number == 100 * num_trials:  # a small space may hold fewer points
            return found
        generator = assign.generator(seed, "trial", number)
        point = {key: distribution.draw(generator) for key, distribution in space.items()}
        if json.dumps(point) not in seen:
            seen.add(json.dumps(point))
            found.append(point)
    raise AssertionError


def corners(space: Mapping[str, Distribution]) -> list[Point]:
    """Points that between them hold the ends of every range and every choice: what must work before anything starts."""
    longest = max(len(d.values) for d in space.values())
    return [{key: d.values[min(i, len(d.values) - 1)] for key, d in space.items()} for i in range(longest)]


def overrides(point: Mapping[str, Any]) -> list[str]:
    """A point as Hydra overrides, in the order of its keys."""
    return [f"{key}={_text(value)}" for key, value in sorted(point.items())]


@functools.lru_cache(maxsize=1024)
def compose(overrides: tuple[str, ...]) -> SweepConfig:
    """The configuration of an override list; composing one takes a while, and a trial asks for it every round."""
    return config.compose("sweep", list(overrides))


def settings_of(schema: Any) -> list[str]:
    """Dotted keys of a configuration."""
    return list(config.settings(schema))


def _distribution(text: Any) -> Distribution:
    if not isinstance(text, Mapping) or len(text) != 1:
        raise ValueError(f"{text!r} is no distribution; {HINT}")
    ((kind, values),) = text.items()
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1, cutoff=0.6)
        raise ValueError(f"unknown distribution {kind!r}" + (f"; did you mean {near[0]}?" if near else f"; {HINT}"))
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ValueError(
            f"{kind}: {values!r} must be a list of {'two numbers' if kind not in ('choice', 'grid') else 'one value or more'}"
        )
    if kind in ("choice", "grid"):
        return Distribution(kind, tuple(values))
    if len(values) != 2 or not all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values
    ):
        raise ValueError(f"{kind}: {list(values)} must be two numbers, the lowest and the highest")
    low, high = values
    if low >= high:
        raise ValueError(f"{kind}: [{low}, {high}]: the first must be smaller than the second")
    if kind == "loguniform" and low <= 0:
        raise ValueError(f"loguniform: [{low}, {high}]: both must be greater than 0; take uniform for ranges with 0")
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
