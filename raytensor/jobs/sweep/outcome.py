"""The outcome of a sweep: its ranked trials, the table, the best settings.

In: trials with their results. Out: trials.csv, a table for the terminal, and the best trial as a file that
`raytensor run` takes. Knows nothing of Tune.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raytensor.config import MinerProfile
from raytensor.config.sweep import SweepConfig
from raytensor.disk import write_text
from raytensor.jobs.sweep.store import Lineage

FINISHED, STOPPED, FAILED, DIVERGED = "finished", "stopped early", "failed", "diverged"


@dataclass
class TrialOutcome:
    """number    in the order of the trials, from 1.
    overrides    settings of the last rounds it trained.
    heldout      held-out loss by round, nats per token.
    incentive    share that it earned beside the others; None when trials are not ranked by it.
    """

    number: int
    lineage: Lineage
    status: str
    heldout: dict[int, float]
    train: dict[int, float]
    wall_s: float = 0.0
    error: str = ""
    incentive: float | None = None

    @property
    def overrides(self) -> tuple[str, ...]:
        return self.lineage[-1][1]

    @property
    def rounds(self) -> int:
        return max(self.heldout, default=0)

    @property
    def loss(self) -> float | None:
        """Newest held-out loss."""
        return self.heldout[self.rounds] if self.heldout else None


def outcome_of(
    number: int, lineage: Lineage, results: Mapping[int, Mapping[str, Any]], *, rounds: int, error: str
) -> TrialOutcome:
    """results: by round, as the store has them."""
    heldout = {n: r["heldout_loss"] for n, r in sorted(results.items()) if r["heldout_loss"] is not None}
    train = {n: r["train_loss"] for n, r in sorted(results.items()) if r["train_loss"] is not None}
    last = max(results, default=0)
    status = FAILED if error else DIVERGED if last and last not in heldout else FINISHED if last >= rounds else STOPPED
    return TrialOutcome(number, lineage, status, heldout, train, sum(r["wall_s"] for r in results.values()), error)


def ranked(trials: Sequence[TrialOutcome], by: str) -> list[TrialOutcome]:
    """Best first: by the newest held-out loss, or by incentive. What failed or diverged comes last."""

    def place(trial: TrialOutcome) -> tuple[Any, ...]:
        loss = float("inf") if trial.loss is None or trial.status in (FAILED, DIVERGED) else trial.loss
        if by == "incentive":
            return (-(trial.incentive or 0.0), loss, trial.number)
        return (loss, -trial.rounds, trial.number)

    return sorted(trials, key=place)


def table(trials: Sequence[TrialOutcome], keys: Sequence[str]) -> list[list[str]]:
    """Rows of text, heads first: what people and trials.csv see."""
    paid = any(trial.incentive is not None for trial in trials)
    head = [
        "rank",
        "trial",
        *keys,
        "status",
        "rounds",
        "heldout_loss",
        "train_loss",
        *(["incentive"] if paid else []),
        "train_s",
    ]
    rows = [head]
    for place, trial in enumerate(trials, start=1):
        train = trial.train.get(max(trial.train, default=0))
        settings = dict(item.split("=", 1) for item in trial.overrides)
        row = [str(place), str(trial.number), *(settings.get(key, "") for key in keys), trial.status, str(trial.rounds)]
        row += ["" if value is None else f"{value:.4f}" for value in (trial.loss, train)]
        row += [f"{trial.incentive or 0.0:.4f}"] if paid else []
        rows.append([*row, f"{trial.wall_s:.1f}"])
    return rows


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side; numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = {i for i, name in enumerate(rows[0]) if name == "status"}
    lines = [
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def run_settings(cfg: SweepConfig) -> dict[str, Any]:
    """A trial's configuration as the settings of a `run`: only what differs from a run's defaults."""
    found: dict[str, Any] = {
        "miners": {"seq_len": cfg.miners.seq_len, "profiles": [_differing(asdict(cfg.profile), asdict(MinerProfile()))]}
    }
    for name in ("data", "mechanism"):
        section = getattr(cfg, name)
        found[name] = _differing(asdict(section), asdict(type(section)()))
    return {name: section for name, section in found.items() if section}


def _differing(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        inner = (
            _differing(value, defaults[key])
            if isinstance(value, dict) and isinstance(defaults.get(key), dict)
            else value
        )
        if value != defaults.get(key):
            found[key] = inner
    return found


def write_best(folder: Path, cfg: SweepConfig, trial: TrialOutcome) -> str:
    """experiment/best.yaml: a Hydra file for `raytensor run`; the command that takes it."""
    from omegaconf import OmegaConf

    settings = run_settings(cfg)
    head = (
        f"# @package _global_\n# Best of the sweep {folder.name}: trial {trial.number}, {' '.join(trial.overrides)}\n"
    )
    head += f"# held-out loss {trial.loss:.4f} after {trial.rounds} rounds" if trial.loss is not None else "#"
    if len(trial.lineage) > 1:
        head += "\n# Its settings changed while it trained: " + "; ".join(
            f"after round {after}: {' '.join(items)}" for after, items in trial.lineage
        )
    place = folder / "experiment"
    place.mkdir(exist_ok=True)
    write_text(place / "best.yaml", head + "\n" + OmegaConf.to_yaml(OmegaConf.create(settings)))
    return f"raytensor run 'hydra.searchpath=[file://{folder}]' experiment=best"


def summary(trials: Sequence[TrialOutcome], *, name: str, rank_by: str, command: str, wall_s: float) -> dict[str, Any]:
    """The same for programs; the first trial is the best."""
    return {
        "name": name,
        "rank_by": rank_by,
        "wall_s": wall_s,
        "run_the_best": command,
        "trials": [
            {
                "number": trial.number,
                "overrides": list(trial.overrides),
                "lineage": json.loads(json.dumps(trial.lineage)),
                "status": trial.status,
                "rounds": trial.rounds,
                "heldout_loss": trial.loss,
                "incentive": trial.incentive,
                "train_s": trial.wall_s,
                "error": trial.error,
                "heldout": {str(n): loss for n, loss in trial.heldout.items()},
            }
            for trial in trials
        ],
    }
