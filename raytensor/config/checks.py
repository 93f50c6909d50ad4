"""Refusals of impossible settings: every mistake is found, and each is told with its value and the fix.

In: a configuration. Out: nothing, or one `ConfigError` with a line per mistake. Knows no particular job.
"""

from __future__ import annotations

import math
from typing import Any

from raytensor.errors import ConfigError


class Checks:
    """Collects what is wrong with `cfg`; `raise_all` tells all of it at once."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        self._wrong: list[str] = []

    def need(self, ok: bool, key: str, why: str) -> None:
        """`key` (dotted) is wrong unless `ok`; `why` says what it must be."""
        if not ok:
            self.add(f"{key}={self._value(key)!r}: {why}")

    def positive(self, *keys: str) -> None:
        """Each of `keys` is null, or finite and greater than 0."""
        for key in keys:
            value = self._value(key)
            self.need(value is None or (math.isfinite(value) and value > 0), key, "must be greater than 0")

    def one_of(self, key: str, choices: tuple[str, ...]) -> None:
        value = self._value(key)
        if len(choices) == 2:
            words = " or ".join(choices)
        else:
            words = ", ".join(choices[:-1]) + f" or {choices[-1]}"
        self.need(value in choices, key, f"must be {words}")

    def add(self, mistake: str) -> None:
        self._wrong.append(mistake)

    def raise_all(self) -> None:
        """Raises `ConfigError` when anything was wrong."""
        if self._wrong:
            raise ConfigError("\n".join(self._wrong))

    def _value(self, key: str) -> Any:
        value: Any = self._cfg
        for part in key.split("."):
            value = getattr(value, part)
        return value
