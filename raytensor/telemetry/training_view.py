"""`raytensor train` on the terminal: a progress bar, or a line for each event where there is no terminal.

In: the training's events. Out: text on standard output. Imports rich only, so that the first line is there at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich.console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from raytensor.telemetry.events import Event, Phase, Started, Stopped, TrainStep, Warned
from raytensor.telemetry.views import minutes


def step_line(event: TrainStep) -> str:
    """One line for a step: losses, learning rate, norm of the gradient, pace, time to go."""
    parts = [f"step {event.step}/{event.steps}", f"loss {event.loss:.3f}"]
    if event.heldout is not None:
        error = "" if event.heldout_error is None else f" ± {event.heldout_error:.3f}"
        parts.append(f"held-out {event.heldout:.3f}{error}")
    if event.gradient_norm is not None:
        parts += [f"lr {event.rate:.3g}", f"gradient {event.gradient_norm:.3g}"]
    if event.skipped:
        parts.append(f"{event.skipped} step(s) skipped")
    parts += [f"{event.tokens_per_s:,.0f} tokens/s", f"{event.ranks} rank(s)"]
    if event.mfu is not None:
        parts.append(f"MFU {event.mfu:.1%}")
    return "  ".join([*parts, f"{minutes(event.eta_s)} to go"])


_LINES: dict[type[Event], Callable[[Any, Path], str]] = {
    TrainStep: lambda event, _: step_line(event),
    Started: lambda event, folder: f"training {event.name} in {folder}",
    Phase: lambda event, _: event.text,
    Warned: lambda event, _: f"warning: {event.text}" + (f"\n  fix: {event.fix}" if event.fix else ""),
    Stopped: lambda event, _: "" if event.reason == "finished" else f"stopped: {event.reason}",
}


class TrainingView:
    """A context manager: `show` events while it trains.

    folder  of the training; out: a rich console to write to, standard output when not given.
    """

    def __init__(self, folder: Path, out: rich.console.Console | None = None) -> None:
        self._out = out or rich.console.Console(highlight=False)
        self._folder = folder
        live = self._out.is_terminal and not self._out.is_dumb_terminal
        self._bar = Progress(BarColumn(20), TextColumn("{task.description}"), console=self._out) if live else None
        self._task: TaskID | None = None

    def __enter__(self) -> TrainingView:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: Event) -> None:
        """Show an event: a step moves the bar, anything else is a line."""
        if isinstance(event, TrainStep) and self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task("", total=event.steps)
            self._bar.update(self._task, completed=event.step, total=event.steps, description=step_line(event))
            return
        line = _LINES.get(type(event))
        if line is not None and (text := line(event, self._folder)):
            self._out.print(text, markup=False, soft_wrap=True)
