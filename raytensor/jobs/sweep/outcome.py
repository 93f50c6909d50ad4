"""The outcome of a sweep: the ranked trials, their table, and the best settings.

In: trials with their results. Out: trials.csv, a table for the terminal, and the best trial as an experiment file of
`raytensor run`. Knows nothing of Tune.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from raytensor.config import MinerProfile
from raytensor.config.sweep import SweepConfig
from raytensor.disk import write_text
from raytensor.jobs.sweep.store import Lineage

FINISHED, STOPPED, FAILED, DIVERGED = "finished", "stopped early", "failed", "diverged"


@dataclass
class TrialOutcome:
    """What became of one trial.

    number          in the order of the trials, from 1.
    status          FINISHED, STOPPED, FAILED or DIVERGED.
    heldout, train  losses by round, nats per token.
    wall_s          seconds of training.
    incentive       its share of the incentive; None when trials are not ranked by incentive.
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
        """The settings of the newest rounds."""
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
    """The outcome of a trial from its results by round, as `Store.results` returns them."""
    heldout = {n: r["heldout_loss"] for n, r in sorted(results.items()) if r["heldout_loss"] is not None}
    train = {n: r["train_loss"] for n, r in sorted(results.items()) if r["train_loss"] is not None}
    last = max(results, default=0)
    status = FAILED if error else DIVERGED if last and last not in heldout else FINISHED if last >= rounds else STOPPED
    return TrialOutcome(number, lineage, status, heldout, train, sum(r["wall_s"] for r in results.values()), error)


def ranked(trials: Sequence[TrialOutcome], by: str) -> list[TrialOutcome]:
    """The trials, best first: by the newest held-out loss, or by incentive. Failed and diverged trials are last."""

    def place(trial: TrialOutcome) -> tuple[Any, ...]:
        loss = float("inf") if trial.loss is None or trial.status in (FAILED, DIVERGED) else trial.loss
        if by == "incentive":
            return (-(trial.incentive or 0.0), loss, trial.number)
        return (loss, -trial.rounds, trial.number)

    return sorted(trials, key=place)


def table(trials: Sequence[TrialOutcome], keys: Sequence[str]) -> list[list[str]]:
    """Rows of text, the column names first, for trials.csv, the terminal and the report."""
    paid = any(trial.incentive is not None for trial in trials)
    head = ["rank", "trial", *keys, "status", "rounds", "heldout_loss", "train_loss"]
    rows = [[*head, *(["incentive"] if paid else []), "train_s"]]
    for place, trial in enumerate(trials, start=1):
        train = trial.train.get(max(trial.train, default=0))
        settings = dict(item.split("=", 1) for item in trial.overrides)
        row = [str(place), str(trial.number), *(settings.get(key, "") for key in keys), trial.status, str(trial.rounds)]
        row += ["" if value is None else f"{value:.4f}" for value in (trial.loss, train)]
        row += [f"{trial.incentive or 0.0:.4f}"] if paid else []
        rows.append([*row, f"{trial.wall_s:.1f}"])
    return rows


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write the rows of `table` as a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """The rows of `table` as aligned text: the status to the left, all other columns to the right."""
    columns = []
    for name, *cells in zip(*rows, strict=True):
        width = max(map(len, (name, *cells)))
        columns.append([cell.ljust(width) if name == "status" else cell.rjust(width) for cell in (name, *cells)])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def run_settings(cfg: SweepConfig) -> dict[str, Any]:
    """A trial's configuration as settings of `raytensor run`: only those that differ from the defaults of a run."""
    profile = _differing(asdict(cfg.profile), asdict(MinerProfile()))
    found: dict[str, Any] = {"miners": {"seq_len": cfg.miners.seq_len, "profiles": [profile]}}
    for name in ("data", "mechanism"):
        section = getattr(cfg, name)
        found[name] = _differing(asdict(section), asdict(type(section)()))
    return {name: section for name, section in found.items() if section}


def _differing(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        default = defaults.get(key)
        if value != default:
            nested = isinstance(value, dict) and isinstance(default, dict)
            found[key] = _differing(value, defaults[key]) if nested else value
    return found


def write_best(folder: Path, cfg: SweepConfig, trial: TrialOutcome) -> str:
    """Write experiment/best.yaml, an experiment file of `raytensor run`. Returns the command that runs it."""
    head = f"# Best of the sweep {folder.name}: trial {trial.number}, {' '.join(trial.overrides)}\n#"
    if trial.loss is not None:
        head += f" held-out loss {trial.loss:.4f} after {trial.rounds} rounds"
    if len(trial.lineage) > 1:
        changes = [f"after round {after}: {' '.join(items)}" for after, items in trial.lineage]
        head += f"\n# Its settings changed while it trained: {'; '.join(changes)}"
    place = folder / "experiment"
    place.mkdir(exist_ok=True)
    settings = OmegaConf.to_yaml(OmegaConf.create(run_settings(cfg)))
    write_text(place / "best.yaml", f"# @package _global_\n{head}\n{settings}")
    return f"raytensor run 'hydra.searchpath=[file://{folder}]' experiment=best"


def summary(trials: Sequence[TrialOutcome], *, name: str, rank_by: str, command: str, wall_s: float) -> dict[str, Any]:
    """The content of summary.json; the best trial is the first."""
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
