"""The validator on the terminal: one live table, or a line for each thing that happens, or one JSON object a line.

In: events, and the rows of all subnets. Out: text on standard output. Knows nothing of Ray, chains or files.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import rich.console
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raytensor.telemetry import events
from raytensor.telemetry.event_log import to_line

PLAIN_WIDTH = 120
NUMBERS = ("netuid", "epoch in", "hotkeys", "round", "asked", "answered", "scored", "weights set", "tempos ago")
NEWEST = 6  # lines of the newest events, below the table
_STYLES = {"waiting": "green", "asking": "cyan", "starting": "dim", "done": "green", "failed": "red", "stuck": "red"}


@dataclass(frozen=True)
class Shown:
    """A subnet's line. hotkeys: how many validate; overdue: how many of them have no weights in time."""

    netuid: int
    block: int
    tempo: int
    blocks_left: int
    hotkeys: int
    round: int
    asked: int
    answered: int
    scored: int
    last_set: int
    age_tempos: float | None
    overdue: int
    state: str
    cause: str

    @property
    def trouble(self) -> bool:
        return bool(self.overdue) or self.state in ("failed", "stuck")


class View:
    """A context manager. rows: called for the newest rows whenever the table is drawn. out: standard output if None."""

    def __init__(
        self, title: str, rows: Callable[[], list[Shown]], *, as_json: bool, out: rich.console.Console | None = None
    ) -> None:
        self._title, self._rows, self._json = title, rows, as_json
        self._out = out or rich.console.Console(highlight=False)
        if out is None and not self._out.is_terminal:
            self._out = rich.console.Console(highlight=False, width=PLAIN_WIDTH)
        self._is_live = not as_json and self._out.is_terminal and not self._out.is_dumb_terminal
        self._newest: deque[Text] = deque(maxlen=NEWEST)
        self._lock = threading.Lock()
        self._live: Live | None = None

    def __enter__(self) -> View:
        if self._is_live:
            out, draw = self._out, self._table
            self._live = Live(console=out, get_renderable=draw, refresh_per_second=2, vertical_overflow="crop")
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, event: events.Event) -> None:
        """Take in an event. Safe to call from several threads."""
        if self._json:
            with self._lock:
                sys.stdout.write(to_line(event) + "\n")
                sys.stdout.flush()
            return
        line = self.line(event)
        if line is None:
            return
        with self._lock:
            at = time.strftime("%H:%M:%S", time.localtime(event.t))
            text = Text(f"{at} {line}", style=self.style(event), overflow="ellipsis", no_wrap=self._is_live)
            if self._is_live:
                self._newest.append(text)
            else:
                self._out.print(text, soft_wrap=True)

    def line(self, event: events.Event) -> str | None:
        """One line for a person; None for an event that has none."""
        return line_of(event)

    def style(self, event: events.Event) -> str:
        """The colour of an event's line."""
        return _style(event)

    def table_once(self) -> None:
        """The table as text, for the end of a plain run."""
        if not self._json and not self._is_live:
            self._out.print(self._table())

    def _table(self) -> Group:
        table = Table(title=self._title, title_justify="left", box=None, pad_edge=False, expand=False)
        for name in NUMBERS:
            table.add_column(name, justify="right", no_wrap=True)
        # A live table has one line per subnet, those in trouble first where not all fit; a plain one shows everything.
        table.add_column("state", no_wrap=self._is_live)
        if self._is_live:
            table.expand, table.columns[-1].ratio = True, 1  # the width that the other columns leave
        with self._lock:
            newest = list(self._newest)
        rows, left_out = self._rows(), 0
        room = max(1, self._out.height - len(newest) - 3)  # title, column names, and the line for subnets left out
        if self._is_live and len(rows) > room:
            rows, left_out = sorted(rows, key=lambda row: not row.trouble)[:room], len(rows) - room
        for row in rows:
            state = "overdue, " * bool(row.overdue) + row.state + (f": {row.cause}" if row.cause else "")
            table.add_row(
                str(row.netuid),
                f"{row.blocks_left} of {row.tempo}" if row.tempo else "?",
                str(row.hotkeys),
                str(row.round) if row.round >= 0 else "-",
                str(row.asked),
                str(row.answered),
                str(row.scored),
                str(row.last_set) if row.last_set else "never",
                "-" if row.age_tempos is None else f"{row.age_tempos:.1f}",
                Text(state, style="red" if row.overdue else _STYLES.get(row.state, "")),
            )
        more = [Text(f"and {left_out} more subnets", style="dim")] if left_out else []
        return Group(table, *more, *newest)


def line_of(event: events.Event) -> str | None:
    """One line for a person; None for an event that has none."""
    match event:
        case events.ValidatorUp():
            subnets = ", ".join(map(str, event.netuids))
            return f"{event.name}: {len(event.hotkeys)} hotkeys on subnets {subnets} of {event.network}"
        case events.RoundDone():
            failed = ", ".join(f"{number} {reason}" for reason, number in sorted(event.failures.items()))
            where = f"subnet {event.netuid}: round {event.round} at block {event.block}"
            numbers = f"{event.asked} asked, {event.answered} answered, {event.scored} scored in {event.wall_s:.1f} s"
            return f"{where}, {numbers}" + (f" ({failed})" if failed else "")
        case events.WeightsMade():
            what = f"weights of {event.hotkey[:8]} for {len(event.values)} miners"
            return f"subnet {event.netuid}: {what} handed to the chain writer"
        case events.ReceiptSeen():
            where = f" in block {event.block}" if event.block else ""
            why = f", {event.error}: {event.action}" if event.error else ""
            return f"subnet {event.netuid}: weights of {event.signer[:8]} {event.fate}{where}{why}"
        case events.SubnetFault():
            return f"subnet {event.netuid} failed and rests for {event.rest_s:.0f} s: {event.cause}"
        case events.WeightsOverdue():
            return event.sentence
        case events.Warned():
            return f"warning: {event.text}" + (f" ({event.fix})" if event.fix else "")
        case events.Phase():
            return event.text
        case events.Stopped():
            return f"stopped: {event.reason}"
    return None


def _style(event: events.Event) -> str:
    if isinstance(event, events.SubnetFault) or (isinstance(event, events.WeightsOverdue) and event.overdue):
        return "red"
    return "yellow" if isinstance(event, events.Warned) else ""
