"""`raytensor train` on the terminal and as a page: progress while it trains, the curve at the end.

In: the run's events. Out: one live line, or plain lines where there is no terminal; report.html. Imports rich only, until
the page is drawn. Knows nothing of Ray or torch.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich.console
from rich.progress import BarColumn, Progress, TextColumn

from raytensor.telemetry.event_log import read_events
from raytensor.telemetry.events import Event, Phase, Started, Stopped, TrainStep, Warned
from raytensor.telemetry.page import CSS
from raytensor.telemetry.runfolder import write_text
from raytensor.telemetry.views import minutes


def step_line(event: TrainStep) -> str:
    """One step in words: loss, pace, time to go."""
    parts = [f"step {event.step}/{event.steps}", f"loss {event.loss:.3f}"]
    if event.heldout is not None:
        parts.append(f"held-out {event.heldout:.3f}")
    parts += [f"{event.tokens_per_s:,.0f} tokens/s", f"{event.ranks} rank(s)"]
    if event.mfu is not None:
        parts.append(f"MFU {event.mfu:.1%}")
    return "  ".join([*parts, f"{minutes(event.eta_s)} to go"])


class TrainingView:
    """A context manager: `show` events while it trains."""

    def __init__(self, folder: Path, out: rich.console.Console | None = None) -> None:
        self._out = out or rich.console.Console(highlight=False)
        live = self._out.is_terminal and not self._out.is_dumb_terminal
        self._bar = (
            Progress(BarColumn(20), TextColumn("{task.description}"), console=self._out, transient=False)
            if live
            else None
        )
        self._task: Any = None
        self._folder = folder

    def __enter__(self) -> TrainingView:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: Event) -> None:
        """Take an event in."""
        if isinstance(event, TrainStep):
            if self._bar is None:
                self._say(step_line(event))
                return
            if self._task is None:
                self._task = self._bar.add_task("", total=event.steps)
            self._bar.update(self._task, completed=event.step, total=event.steps, description=step_line(event))
        elif isinstance(event, Started):
            self._say(f"training {event.name} in {self._folder}")
        elif isinstance(event, Phase):
            self._say(event.text)
        elif isinstance(event, Warned):
            self._say(f"warning: {event.text}" + (f"\n  fix: {event.fix}" if event.fix else ""))
        elif isinstance(event, Stopped) and event.reason != "finished":
            self._say(f"stopped: {event.reason}")

    def _say(self, text: str) -> None:
        self._out.print(text, markup=False, soft_wrap=True)


def write_training_report(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write `report.html` in a training's folder: what was trained, the curves, the configuration."""
    steps = [event for event in read_events(folder / "events.jsonl") if isinstance(event, TrainStep)]
    facts = [
        ("Model", summary["model"]),
        ("Engine", f"{summary['engine']}, {summary['ranks']} rank(s)"),
        ("Steps", f"{summary['steps']} of {summary['steps_planned']} ({summary['stopped']})"),
        ("Tokens", f"{summary['tokens']:,}"),
        ("Held-out loss", _number(summary["heldout_loss"], "nats per token")),
        ("Training loss", _number(summary["loss"], "nats per token")),
        ("Pace", _number(summary["tokens_per_s"], "tokens/s (median)")),
    ]
    listed = "".join(
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(str(value))}</dd></div>" for label, value in facts
    )
    config = (folder / "config.yaml").read_text() if (folder / "config.yaml").is_file() else ""
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(str(summary['name']))}</title><style>{CSS}</style></head><body><main>"
        f"<header><h1>{html.escape(str(summary['name']))}</h1><p>raytensor train</p></header><dl>{listed}</dl>"
        f'<div class="plots">{_plots(steps)}</div>'
        f"<details><summary>Configuration</summary><pre>{html.escape(config)}</pre></details></main></body></html>\n"
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _plots(steps: list[TrainStep]) -> str:
    if len(steps) < 2:
        return ""
    import matplotlib
    from matplotlib.figure import Figure

    from raytensor.telemetry.plots import STYLE, VARIABLES

    figures = []
    measured = [event for event in steps if event.heldout is not None]
    for title, unit, lines in (
        ("Loss", "nats per token", [("training", steps, "loss"), ("held out", measured, "heldout")]),
        ("Pace", "tokens/s", [("tokens/s", steps, "tokens_per_s")]),
    ):
        with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):
            figure = Figure(figsize=(6, 3.4), layout="constrained")
            axes = figure.subplots()
            for label, points, key in lines:
                axes.plot(
                    [event.step for event in points],
                    [getattr(event, key) for event in points],
                    label=label,
                    marker="." if len(points) < 30 else "",
                )
            axes.set_xlabel("step")
            axes.set_ylabel(unit)
            axes.legend()
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None})
        svg = text.getvalue()
        svg = svg[svg.index("<svg") :]
        for colour, variable in VARIABLES.items():
            svg = svg.replace(colour, variable)
        figures.append(f"<figure><figcaption>{title}</figcaption>{svg}</figure>")
    return "".join(figures)


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:,.3f} {unit}" if value < 100 else f"{value:,.0f} {unit}"
