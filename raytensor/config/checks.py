"""Refusals of impossible settings: every mistake is found, and each is told with its value and the fix.

In: a configuration. Out: nothing, or one `ConfigError` with a line per mistake. Knows no particular job.
"""

from __future__ import annotations

import importlib.metadata
import ipaddress
import math
from pathlib import Path
from typing import Any

from raytensor.config.optimizers import ENGINES, OPTIMIZERS
from raytensor.errors import ConfigError


def is_publishable(address: str) -> bool:
    """Whether the chain takes this IP address as an axon's (pallet subtensor, `is_valid_ip_address`)."""
    try:
        return str(ipaddress.ip_address(address)) not in ("127.0.0.1", "::1", "0.0.0.0", "::", "255.255.255.255")
    except ValueError:
        return False


def absolute_folder(name: str | None) -> str | None:
    """A model's name as it is; if it names a folder that is here, the folder's absolute path: actors stand elsewhere."""
    if name is None or not Path(name).expanduser().is_dir():
        return name
    return str(Path(name).expanduser().absolute())


def training_mistakes(cfg: Any) -> list[str]:
    """What is wrong with `engine`, `optimizer`, `ranks`, `gpus_per_rank`, `cpus_per_rank`, `precision`, `accumulate`, `batch_size` and
    `lora_rank` of a model's training; "key=value: why" each."""
    wrong = []

    def need(ok: bool, key: str, why: str) -> None:
        if not ok:
            wrong.append(f"{key}={getattr(cfg, key)!r}: {why}")

    need(cfg.engine in ENGINES, "engine", f"must be one of {', '.join(ENGINES)}")
    need(cfg.optimizer in OPTIMIZERS, "optimizer", f"there is {', '.join(OPTIMIZERS)}; take one of these")
    engine, optimizer = ENGINES.get(cfg.engine), OPTIMIZERS.get(cfg.optimizer)
    parallel = [name for name, row in ENGINES.items() if row.parallel]
    if optimizer is not None:
        simple = [name for name, row in OPTIMIZERS.items() if not row.whole_matrices and not row.least_torch]
        instead = f"optimizer={' or '.join(simple)}"
        whole = ", ".join(name for name in parallel if not ENGINES[name].cuts)
        need(
            not (optimizer.whole_matrices and engine is not None and engine.cuts),
            "optimizer",
            f"works on whole matrices, which engine={cfg.engine} cuts; take engine={whole}, or {instead}",
        )
        torch, least = importlib.metadata.version("torch"), optimizer.least_torch
        if least and tuple(int(part) for part in torch.split(".")[:2]) < least:
            need(
                False,
                "optimizer",
                f"comes with torch {least[0]}.{least[1]}, here is {torch}; take {instead}, or a newer torch",
            )
    need(cfg.ranks >= 1, "ranks", "must be 1 or greater")
    need(
        engine is None or engine.parallel or cfg.ranks == 1,
        "ranks",
        f"engine={cfg.engine} is one process; take engine={', '.join(parallel[:-1])} or {parallel[-1]}",
    )
    need(
        cfg.gpus_per_rank in (0, 1), "gpus_per_rank", "must be 0 or 1: a rank has one device; more GPUs are more ranks"
    )
    need(math.isfinite(cfg.cpus_per_rank) and cfg.cpus_per_rank > 0, "cpus_per_rank", "must be greater than 0")
    need(cfg.precision in ("fp32", "bf16"), "precision", "must be fp32 or bf16")
    need(cfg.accumulate >= 1, "accumulate", "must be 1 or greater")
    need(cfg.lora_rank >= 0, "lora_rank", "must be 0 (train all weights) or greater")
    parts = max(1, cfg.ranks) * max(1, cfg.accumulate)
    if cfg.batch_size > 0 and cfg.batch_size % parts:
        near = -(-cfg.batch_size // parts) * parts
        need(
            False,
            "batch_size",
            f"does not divide by ranks * accumulate ({cfg.ranks} * {cfg.accumulate}); take {near}, say",
        )
    return wrong


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
