"""The run on the terminal: one live view, or plain lines where there is no terminal, and the final table.

In: the run's events, in order. Out: text on standard output, never more than a screen of it at a time.
Imports rich only, so that the first line is there at once. Knows nothing of Ray, torch or files.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import rich.console
from rich.live import Live
from rich.text import Text

from raytensor.telemetry.events import Event, NetworkUp, Phase, RoundDone, Started, Stopped, Warned
from raytensor.telemetry.history import History
from raytensor.telemetry.views import final_table, live_view, round_line

PLAIN_WIDTH = 120
PLAIN_ROWS = 40  # of the final table where there is no screen to fill


class Console:
    """A context manager: `show` events while the run runs, `finish` with its summary.

    folder  of the run; its name is the title.
    rounds  to play, until an event says it.
    live    True: the live view; False: plain lines; None: live where standard output is a terminal that can.
    past    events of earlier processes of the same run, taken in silently.
    out     a rich console to write to; standard output when not given.

    Leaving the context gives the terminal back whatever happened; the last view stays on it after an exception.
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
            if hasattr(sys.stdout, "reconfigure"):
                sys.stdout.reconfigure(errors="replace")  # a terminal without Unicode shows "?", the run goes on
            out = rich.console.Console(highlight=False)
            if not out.is_terminal:
                out = rich.console.Console(highlight=False, width=PLAIN_WIDTH)
        self.out = out
        self.is_live = out.is_terminal and not out.is_dumb_terminal if live is None else live
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._said: set[str] = set()

    def __enter__(self) -> Console:
        if self.is_live:
            self._live = Live(
                console=self.out,
                get_renderable=self._view,
                refresh_per_second=4,
                transient=False,
                vertical_overflow="crop",
            )
            self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop_live(keep=kind is not None)

    def show(self, event: Event) -> None:
        """Take in an event; plain mode prints a line for a phase, the network, a round, a warning and the end."""
        with self._lock:
            self.history.apply(event)
        if isinstance(event, Warned):
            self._warn(event)
        elif not self.is_live:
            line = self._plain(event)
            if line:
                self._print(Text(line))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """End the live view and print the final table of all neurons and the folder of the run."""
        self._stop_live(keep=False)
        rows = max(6, self.out.height - 8) if self.out.is_terminal else PLAIN_ROWS
        self.out.print(final_table(summary, self.out.width, max_rows=rows))
        counts, chain = summary["extrinsics"], summary["chain"]
        self._print(
            Text(
                f"{summary['rounds']} rounds in {summary['wall_s']:.0f} s, block {chain['last_block']}, extrinsics: "
                f"{counts['submitted']} sent, {counts['included']} included, {counts['failed']} failed"
            )
        )
        self._print(Text(f"folder: {self.folder}"))

    # ------------------------------------------------------------------------------------------------------- inside

    def _view(self) -> rich.console.RenderableType:
        with self._lock:
            return live_view(self.history, self.folder.name, time.time(), self.out.width, self.out.height)

    def _stop_live(self, keep: bool) -> None:
        if self._live is not None:
            self._live.transient = not keep
            self._live.stop()
            self._live = None

    def _print(self, text: Text) -> None:
        self.out.print(text, soft_wrap=True)  # a line stays a line, for whoever greps

    def _warn(self, event: Warned) -> None:
        """Each warning once; the view counts the others."""
        if event.text not in self._said:
            self._said.add(event.text)
            self._print(Text(f"warning: {event.text}" + (f" ({event.fix})" if event.fix else ""), style="yellow"))

    def _plain(self, event: Event) -> str | None:
        match event:
            case Started():
                return f"raytensor {event.version}: run {event.name}, {event.rounds} rounds, folder {self.folder}"
            case Phase():
                return f"[{self.history.clock(event.t):6.1f} s] {event.text}"
            case NetworkUp():
                miners = sum(neuron.role == "miner" for neuron in event.neurons)
                validators = sum(neuron.role == "validator" for neuron in event.neurons)
                return (
                    f"network: {event.endpoint}, netuid {event.netuid}, spec {event.spec_version}, tempo {event.tempo} blocks, "
                    f"{miners} miners, {validators} validators"
                )
            case RoundDone():
                return round_line(event, self.history)
            case Stopped():
                return f"stopped: {event.reason}"
        return None
