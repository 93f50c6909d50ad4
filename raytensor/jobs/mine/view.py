"""The miner on the terminal: one live table, or a line for each thing that happens, or one JSON object a line.

In: events, and the standing of each hotkey on each subnet. Out: text on standard output. The screen is that of
`validate`; the columns and the lines are the miner's. Knows nothing of Ray, chains or files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import rich.console
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raytensor.jobs.validate import view
from raytensor.telemetry import events, miner_events

NUMBERS = ("netuid", "hotkey", "uid", "rank", "incentive", "alpha/tempo", "immune", "replaced in")
RAO = 10**9
SOON = 20  # registrations; a line names no larger number


@dataclass(frozen=True)
class Shown:
    """A hotkey's line on a subnet. at: its standing. state: what is wrong, or what it does."""

    at: miner_events.Standing
    state: str
    wrong: bool


class MinerView(view.View):
    """rows: called for the newest lines whenever the table is drawn; summary: for the line below it."""

    def __init__(
        self,
        title: str,
        rows: Callable[[], list[Shown]],
        summary: Callable[[], str],
        *,
        as_json: bool,
        out: rich.console.Console | None = None,
    ) -> None:
        super().__init__(title, list, as_json=as_json, out=out)
        self._lines, self._summary = rows, summary

    def line(self, event: events.Event) -> str | None:
        return line_of(event)

    def style(self, event: events.Event) -> str:
        if isinstance(event, miner_events.MinerAlarm):
            return "red" if event.on else "green"
        return super().style(event)

    def table(self) -> Group:
        table = Table(title=self._title, title_justify="left", box=None, pad_edge=False, expand=False)
        for name in NUMBERS:
            table.add_column(name, justify="left" if name == "hotkey" else "right", no_wrap=True)
        table.add_column("axon on the chain", no_wrap=True)
        table.add_column("state", no_wrap=self._is_live)
        if self._is_live:
            table.expand, table.columns[-1].ratio = True, 1  # the width that the other columns leave
        with self._lock:
            newest = list(self._newest)
        rows, left_out = self._lines(), 0
        room = max(1, self._out.height - len(newest) - 4)  # title, column names, the summary, the line for the rest
        if self._is_live and len(rows) > room:
            rows, left_out = sorted(rows, key=lambda row: not row.wrong)[:room], len(rows) - room
        for row in rows:
            table.add_row(*_cells(row.at), Text(row.state, style="red" if row.wrong else "green"))
        more = [Text(f"and {left_out} more", style="dim")] if left_out else []
        return Group(table, *more, Text(self._summary(), style="dim"), *newest)


def _cells(at: miner_events.Standing) -> list[str]:
    if at.uid is None:
        return [str(at.netuid), at.hotkey[:8], *["-"] * 7]
    return [
        str(at.netuid),
        at.hotkey[:8],
        str(at.uid),
        f"{at.rank} of {at.num_miners}" if at.rank else "-",
        f"{at.incentive:.4f}",
        f"{at.emission_alpha_rao / RAO:.4f}",
        str(at.immune_blocks) if at.immune_blocks else "no",
        "-" if at.replaced_in is None else str(at.replaced_in),
        at.axon or "none",
    ]


def line_of(event: events.Event) -> str | None:
    """One line for a person; None for an event that has none."""
    match event:
        case miner_events.MinerUp():
            subnets = ", ".join(map(str, event.netuids))
            at = sorted(set(event.addresses.values()))
            where = at[0] if len(at) == 1 else f"{at[0]} .. {at[-1]}"
            return (
                f"{event.name}: {len(event.hotkeys)} hotkeys on subnets {subnets} of {event.network}, served at {where}"
            )
        case miner_events.MinerRound():
            losses = list(event.losses.values())
            mean = f", mean loss {sum(losses) / len(losses):.3f}" if losses else ""
            return f"trained round {event.round} in {event.wall_s:.1f} s{mean}"
        case miner_events.StandingSeen():
            where = f"subnet {event.netuid}: {event.hotkey[:8]}"
            if event.uid is None:
                return f"{where} is not registered"
            rank = f"rank {event.rank} of {event.num_miners}" if event.rank else "no incentive"
            paid = f"incentive {event.incentive:.4f}, {event.emission_alpha_rao / RAO:.4f} alpha in the last tempo"
            left = event.replaced_in
            soon = "" if left is None or left > SOON else f", next to be replaced in about {left} registrations"
            immune = f", immune for {event.immune_blocks} blocks" if event.immune_blocks else ""
            return f"{where} has uid {event.uid}, {rank}, {paid}{immune}{soon}"
        case miner_events.TrafficSeen():
            return "requests so far: " + traffic_line(event.outcomes, event.callers)
        case events.ReceiptSeen():
            where = f" in block {event.block}" if event.block else ""
            why = f", {event.error}: {event.action}" if event.error else ""
            what = event.call.partition(".")[2]
            return f"subnet {event.netuid}: {what} of {event.signer[:8]} {event.fate}{where}{why}"
        case miner_events.MinerAlarm():
            return event.sentence
    return view.line_of(event)


def traffic_line(outcomes: Mapping[str, int], callers: Mapping[str, int]) -> str:
    """Answers and refusals by reason, and who asked most."""
    refused = ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items()) if name != "ok")
    most = sorted(callers.items(), key=lambda item: -item[1])[:3]
    asked = ", ".join(f"{hotkey[:8]} {number}" for hotkey, number in most)
    more = f" and {len(callers) - len(most)} more" if len(callers) > len(most) else ""
    return (
        f"{outcomes.get('ok', 0)} answered"
        + f" ({refused})" * bool(refused)
        + f"; asked by {asked}{more}" * bool(asked)
    )
