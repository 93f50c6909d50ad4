"""The validator on the terminal: live tables of subnets and hotkeys, or a line per event, or one JSON object per line.

In: events, and the rows of all subnets. Out: text on standard output. Knows nothing of Ray, chains or files.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import rich.console
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raytensor.telemetry import events
from raytensor.telemetry.event_log import to_line
from raytensor.telemetry.views import amount

if TYPE_CHECKING:
    from raytensor.chain.reads.watchdog import Health
    from raytensor.validators.operator import Clock, SubnetRow

PLAIN_WIDTH = 120
SUBNET_COLUMNS = ("netuid", "epoch in", "round", "asked", "answered", "scored", "state")
HOTKEY_COLUMNS = ("netuid", "hotkey", "uid", "permit", "stake (alpha)", "weights set", "tempos ago", "weights")
WORDS = ("state", "hotkey", "weights")  # columns of text
NEWEST = 6  # lines of the newest events, below the tables
_STYLES = {"waiting": "green", "asking": "cyan", "starting": "dim", "done": "green", "failed": "red", "stuck": "red"}


@dataclass(frozen=True)
class ShownHotkey:
    """A hotkey on a subnet. health: by what the chain says; None until it was read. stake_rao: of alpha, if known."""

    netuid: int
    name: str
    health: Health | None = None
    stake_rao: int | None = None

    @property
    def trouble(self) -> bool:
        return self.health is not None and bool(self.health.cause)

    @property
    def cells(self) -> list[str | Text]:
        """Values of `HOTKEY_COLUMNS`."""
        one, start = self.health, [str(self.netuid), self.name]
        stake = "?" if self.stake_rao is None else amount(self.stake_rao)
        if one is None:
            return [*start, "?", "?", stake, "?", "?", ""]
        if one.uid is None:
            return [*start, "-", "-", "-", "-", "-", Text("not registered", style="red")]
        waits = bool(one.cause) or one.due_block is not None
        style = "red" if one.overdue else "yellow" if waits else "green"
        state = Text("overdue: " * one.overdue + one.state, style=style)
        last = str(one.last_update) if one.last_update else "never"
        return [*start, str(one.uid), "yes" if one.permit else "no", stake, last, f"{one.age_tempos:.1f}", state]


@dataclass(frozen=True)
class Shown:
    """A subnet's line, and its hotkeys'."""

    row: SubnetRow
    clock: Clock
    hotkeys: Sequence[ShownHotkey]

    @property
    def trouble(self) -> bool:
        return self.row.state in ("failed", "stuck") or any(one.trouble for one in self.hotkeys)

    @property
    def cells(self) -> list[str | Text]:
        """Values of `SUBNET_COLUMNS`."""
        row, clock, last, rest_s = self.row, self.clock, self.row.last, self.row.retry_at - time.time()
        epoch_in = f"{max(0, clock.next_epoch - clock.block)} of {clock.tempo}" if clock.tempo else "?"
        counts = [last.round, last.asked, last.answered, last.scored] if last else ["-", 0, 0, 0]
        again = f"again in {rest_s:.0f} s: " if row.state == "failed" and rest_s > 0 else ""
        state = Text(row.state + (f": {again}{row.cause}" if row.cause else ""), style=_STYLES.get(row.state, ""))
        return [str(row.netuid), epoch_in, *map(str, counts), state]


class View:
    """A context manager. out: standard output if None.

    rows, notes  called whenever the table is drawn: the newest rows, and what else is wrong, a line each.
    """

    def __init__(
        self,
        title: str,
        rows: Callable[[], list[Shown]],
        *,
        as_json: bool,
        notes: Callable[[], list[str]] = list,
        out: rich.console.Console | None = None,
    ) -> None:
        self._title, self._rows, self._notes, self._json = title, rows, notes, as_json
        self._out = out or rich.console.Console(highlight=False)
        if out is None and not self._out.is_terminal:
            self._out = rich.console.Console(highlight=False, width=PLAIN_WIDTH)
        self._is_live = not as_json and self._out.is_terminal and not self._out.is_dumb_terminal
        self._newest: deque[Text] = deque(maxlen=NEWEST)
        self._lock = threading.Lock()
        self._live: Live | None = None

    def __enter__(self) -> View:
        if self._is_live:
            out, draw = self._out, self.table
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
            self._out.print(self.table())

    def table(self) -> Group:
        """What the screen shows now."""
        with self._lock:
            newest = list(self._newest)
        subnets = self._rows()
        hotkeys = [one for row in subnets for one in row.hotkeys]
        # Five lines: title, column names, what is left out. Half of the rest is for subnets, or as much as they need.
        room = max(2, self._out.height - len(newest) - 5)
        for_subnets = min(len(subnets), max(room // 2, room - len(hotkeys)))
        parts = self._part(SUBNET_COLUMNS, subnets, for_subnets, "subnets")
        parts += self._part(HOTKEY_COLUMNS, hotkeys, room - for_subnets, "hotkeys")
        wrong = [Text(note, style="red") for note in self._notes()]
        return Group(Text(self._title, style="italic"), *wrong, *parts, *newest)

    def _part(
        self, columns: Sequence[str], rows: Sequence[Shown] | Sequence[ShownHotkey], room: int, what: str
    ) -> list[RenderableType]:
        """A table. A live one has a line per row, those in trouble first where not all fit; a plain one shows all."""
        table = Table(box=None, pad_edge=False, expand=self._is_live)
        for name in columns:
            table.add_column(name, justify="left" if name in WORDS else "right", no_wrap=True)
        last = table.columns[-1]
        last.no_wrap, last.ratio = self._is_live, 1 if self._is_live else None  # the width that the others leave
        left_out = len(rows) - room if self._is_live else 0
        for row in sorted(rows, key=lambda row: not row.trouble)[:room] if left_out > 0 else rows:
            table.add_row(*row.cells)
        return [table, *([Text(f"and {left_out} more {what}", style="dim")] if left_out > 0 else [])]


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
