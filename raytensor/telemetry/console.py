"""A run on the terminal: one live view, or plain lines where there is no terminal, and the final table.

In: the run's events, in order. Out: text on standard output, never more than a screen of it at a time.
Imports rich only, so that the first line is there at once. Knows nothing of Ray, torch or files.
"""

from __future__ import annotations

import io
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import rich.console
from rich.live import Live
from rich.text import Text

from raytensor.telemetry.events import Event, NetworkUp, Phase, RoundDone, Started, Stopped, Warned
from raytensor.telemetry.history import History
from raytensor.telemetry.views import closing_lines, final_table, live_view, round_line

PLAIN_WIDTH = 120
PLAIN_ROWS = 40  # of the final table where there is no screen to fill


class Console:
    """A context manager: `show` events while the run runs, `finish` with its summary.

    folder  of the run; its name is the title.
    rounds  planned, until an event has the number.
    live    True: the live view; False: plain lines; None: live where standard output is a terminal with cursor control.
    past    events of earlier processes of the same run; not shown.
    out     a rich console to write to; standard output when not given.

    Leaving the context always restores the terminal; after an exception the last view stays on it.
    Safe to call from several threads.
    """

    def __init__(
        self,
        folder: Path | str,
        rounds: int,
        live: bool | None = None,
        *,
        past: Iterable[Event] = (),
        out: rich.console.Console | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.history = History(past)
        self.history.rounds_planned = rounds
        if out is None:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="replace")  # a terminal without Unicode shows "?" instead of an error
            out = rich.console.Console(highlight=False)
            if not out.is_terminal:
                out = rich.console.Console(highlight=False, width=PLAIN_WIDTH)
        self.out = out
        self.is_live = out.is_terminal and not out.is_dumb_terminal if live is None else live
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._warned: set[str] = set()

    def __enter__(self) -> Console:
        if self.is_live:
            self._live = Live(console=self.out, get_renderable=self._view, vertical_overflow="crop")
            self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop_live(keep=kind is not None)

    def show(self, event: Event) -> None:
        """Show an event. Plain mode prints a line for a phase, the network, a round, a warning and the end."""
        with self._lock:
            self.history.apply(event)
        if isinstance(event, Warned):
            self._warn(event)
        elif not self.is_live:
            line = _LINES.get(type(event))
            if line is not None:
                self._print(Text(line(event, self)))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """End the live view and print the final table of all neurons and the folder of the run."""
        self._stop_live(keep=False)
        lines = closing_lines(summary)
        taken = sum(-(-len(line.plain) // self.out.width) for line in lines)
        rows = max(6, self.out.height - 7 - taken) if self.out.is_terminal else PLAIN_ROWS
        self.out.print(final_table(summary, self.out.width, max_rows=rows))
        for line in lines:
            self.out.print(line, soft_wrap=not self.out.is_terminal)
        self._print(Text(f"folder: {self.folder}"))

    def _view(self) -> rich.console.RenderableType:
        with self._lock:
            return live_view(self.history, self.folder.name, time.time(), self.out.width, self.out.height)

    def _stop_live(self, keep: bool) -> None:
        if self._live is not None:
            self._live.transient = not keep
            self._live.stop()
            self._live = None

    def _print(self, text: Text) -> None:
        self.out.print(text, soft_wrap=True)  # one line of text stays one line, for grep

    def _warn(self, event: Warned) -> None:
        """Print each warning once; the view counts the repeated ones."""
        if event.text not in self._warned:
            self._warned.add(event.text)
            self._print(Text(f"warning: {event.text}" + (f" ({event.fix})" if event.fix else ""), style="yellow"))


def _network_line(event: NetworkUp, _: Console) -> str:
    roles = Counter(neuron.role for neuron in event.neurons)
    chain = f"{event.endpoint}, netuid {event.netuid}, spec {event.spec_version}, tempo {event.tempo} blocks"
    return f"network: {chain}, {roles['miner']} miners, {roles['validator']} validators"


# The plain line of each event that has one.
_LINES: dict[type[Event], Callable[[Any, Console], str]] = {
    Started: lambda e, console: f"raytensor {e.version}: run {e.name}, {e.rounds} rounds, folder {console.folder}",
    Phase: lambda e, console: f"[{console.history.clock(e.t):6.1f} s] {e.text}",
    NetworkUp: _network_line,
    RoundDone: lambda e, console: round_line(e, console.history),
    Stopped: lambda e, _: f"stopped: {e.reason}",
}
