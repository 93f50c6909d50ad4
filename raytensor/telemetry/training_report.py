"""report.html of `raytensor train`: what was trained, the curves, the configuration.

In: the folder of a training with its events, and its summary. Out: `report.html` in the folder.
Knows nothing of Ray or torch.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from raytensor import disk
from raytensor.telemetry import page
from raytensor.telemetry.event_log import read_events
from raytensor.telemetry.events import TrainStep
from raytensor.telemetry.plots import drawn, whole_numbers


def write_training_report(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write `report.html` in a training's folder and return its path."""
    steps = [event for event in read_events(folder / "events.jsonl") if isinstance(event, TrainStep)]
    facts = [
        ("model", str(summary["model"])),
        ("engine", f"{summary['engine']}, {summary['ranks']} rank(s)"),
        ("steps", f"{summary['steps']} of {summary['steps_planned']} ({summary['stopped']})"),
        ("tokens", f"{summary['tokens']:,}"),
        ("held-out loss", _number(summary["heldout_loss"], "nats per token")),
        ("training loss", _number(summary["loss"], "nats per token")),
        ("pace", _number(summary["tokens_per_s"], "tokens/s (median)")),
    ]
    config = folder / "config.yaml"
    text = config.read_text() if config.is_file() else ""
    parts = [page.facts(facts), page.plots(_plots(steps)), page.configuration(text)]
    target = folder / "report.html"
    disk.write_text(target, page.page(str(summary["name"]), "raytensor train", parts))
    return target


def _plots(steps: list[TrainStep]) -> dict[str, str]:
    if len(steps) < 2:
        return {}
    loss = [(event.step, event.loss) for event in steps]
    heldout = [(event.step, event.heldout) for event in steps if event.heldout is not None]
    pace = [(event.step, event.tokens_per_s) for event in steps]
    losses = partial(_curves, unit="nats per token", lines={"training": loss, "held-out": heldout})
    paces = partial(_curves, unit="tokens/s", lines={"tokens/s": pace})
    return {"Loss": drawn("Loss", losses), "Pace": drawn("Pace", paces)}


def _curves(figure: Figure, unit: str, lines: Mapping[str, list[tuple[int, float]]]) -> bool:
    axes = figure.add_subplot(xlabel="step", ylabel=unit)
    whole_numbers(axes.xaxis)
    for label, points in lines.items():
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 30 else "")
    figure.legend(loc="outside lower center", ncols=2)
    return True


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:,.3f} {unit}" if value < 100 else f"{value:,.0f} {unit}"
