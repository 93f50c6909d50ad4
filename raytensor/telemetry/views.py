"""What the terminal shows, as rich renderables: the live view, the line of a round, the final table.

In: a `History` or a summary, and the size of the screen. Out: renderables and strings; nothing is printed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from raytensor.telemetry.events import RoundDone
from raytensor.telemetry.history import History, Row, ranked

SPARKS = "▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉"
STYLES = {"honest": "green", "": "dim"}  # everything else is a cheat
CHEAT = "red"


def sparkline(values: Sequence[float], low: float, high: float, width: int) -> str:
    """The newest `width` values as blocks, on a scale from `low` to `high`."""
    span = high - low
    marks = [
        SPARKS[min(7, max(0, int(8 * (value - low) / span)))] if span > 0 else SPARKS[0] for value in values[-width:]
    ]
    return "".join(marks)


def bar(share: float, width: int) -> str:
    """A bar of `share` (0..1) of `width` columns, in eighths of a column, padded to the width."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(width)


def short(hotkey: str) -> str:
    """The ends of an address: "5Grw…utQY" tells neurons apart and fits a column."""
    return hotkey if len(hotkey) <= 9 else f"{hotkey[:4]}…{hotkey[-4:]}"


def minutes(seconds: float | None) -> str:
    """ "1:05", "2:00:09"; "-" when unknown."""
    if seconds is None:
        return "-"
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def number(value: float | None, digits: int = 3) -> str:
    """A fixed number of digits, "-" when unknown."""
    return "-" if value is None else f"{value:.{digits}f}"


def ends(rows: Sequence[Any], room: int) -> tuple[Sequence[Any], int, Sequence[Any]]:
    """All rows, or the first and last of them with the number left out, in at most `room` lines, that line included."""
    room = max(3, room)
    if len(rows) <= room:
        return rows, 0, ()
    last = (room - 1) // 3
    first = room - 1 - last
    return rows[:first], len(rows) - first - last, rows[len(rows) - last :] if last else ()


# -------------------------------------------------------------------------------------------------------- live view


def live_view(history: History, name: str, now: float, width: int, height: int) -> RenderableType:
    """The whole screen of a running network: at most `width` x (`height` - 1) characters."""
    width = min(width, 110)
    head = Panel(
        _facts(history, now, width), title=Text(f"raytensor · {name}"), title_align="left", box=box.ROUNDED, width=width
    )
    if not history.neurons:
        return head
    validators = _validators(history, width)
    # The panel's 4 lines and its frame, the table's head, the validators' line, and the cursor's.
    room = height - 1 - 6 - 1 - 1
    return Group(head, _miners(history, room, width), validators)


def _facts(history: History, now: float, width: int) -> Text:
    newest = history.rounds[-1] if history.rounds else None
    counts = history.counts()
    gauge = max(8, min(24, width - 60))
    text = Text(no_wrap=True, overflow="ellipsis")
    done = history.round / history.rounds_planned if history.rounds_planned else 0.0
    text.append(f"round {history.round:>4}/{history.rounds_planned:<4} ", "bold")
    text.append(bar(done, gauge), "cyan on grey23")
    eta = history.eta_s()
    text.append(
        f"  elapsed {minutes(history.clock(now) if history.started_at else 0.0)}, left {'about ' + minutes(eta) if eta is not None else '-'}\n"
    )
    if history.block is None or history.blocks_until_epoch is None:
        text.append("block    - \n")
    else:
        past = history.tempo - history.blocks_until_epoch
        text.append(f"block {history.block:>9} ", "bold")
        text.append(bar(past / history.tempo if history.tempo else 0.0, gauge), "magenta on grey23")
        text.append(f"  tempo {past}/{history.tempo}, epochs {len(history.epochs)}\n")
    text.append(
        f"{newest.scored_per_s if newest else 0.0:.1f} responses/s, extrinsics {counts['submitted']} sent, {counts['included']} included, "
    )
    text.append(f"{counts['failed']} failed", "red" if counts["failed"] else "")
    if history.errors:
        text.append(f" ({_errors(history)})", "red")
    if history.warnings:
        text.append(f", {len(history.warnings)} warnings", "yellow")
    text.append("\nnow: ")
    text.append(history.phase or "starting", "italic")
    return text


def _miners(history: History, room: int, width: int) -> Table:
    rows = ranked(history.rows())
    ranks = any(row.standing for row in rows)  # a mechanism that says where each miner stands
    standing = 0 if not ranks else 11 if width >= 90 else 9
    taken = standing + 2 if ranks else 0
    named = max(10, min(20, width - 70 - taken))
    spare = width - named - 34 - 16 - taken  # what is left of the fixed columns and the gaps
    trend, gauge = max(4, min(16, spare // 2)), max(4, min(20, spare - spare // 2))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    columns = (
        ("uid", "right", 4),
        ("miner", "left", named),
        ("behaviour", "left", 9),
        ("loss", "right", 6),
        ("", "left", trend),
        ("weight", "right", 6),
        ("incentive", "right", 9),
        ("", "left", gauge),
    )
    if ranks:
        columns = (*columns[:3], ("standing", "left", standing), *columns[3:])
    for title, justify, columns_wide in columns:
        table.add_column(title, justify=justify, width=columns_wide, no_wrap=True, overflow="ellipsis")
    losses = {row.hotkey: [loss for _, loss in history.losses(row.hotkey)[-trend:]] for row in rows}
    seen = [loss for values in losses.values() for loss in values]
    low, high = (min(seen), max(seen)) if seen else (0.0, 0.0)
    top = max((row.incentive or 0.0 for row in rows), default=0.0)

    def add(row: Row) -> None:
        table.add_row(
            str(row.uid),
            Text(row.name or short(row.hotkey)),
            Text(row.behaviour, STYLES.get(row.behaviour, CHEAT)),
            *([Text(row.standing, "bold" if row.standing == "king" else "")] if ranks else []),
            number(row.loss),
            Text(sparkline(losses[row.hotkey], low, high, trend).ljust(trend), "cyan"),
            number(row.weight),
            number(row.incentive),
            Text(bar((row.incentive or 0.0) / top if top else 0.0, gauge), "green"),
        )

    first, left_out, last = ends(rows, room)
    for row in first:
        add(row)
    if left_out:
        table.add_row("", Text(f"… {left_out} more", "dim"))
    for row in last:
        add(row)
    return table


def _validators(history: History, width: int) -> Text:
    rows = sorted((row for row in history.rows() if row.role == "validator"), key=lambda row: -(row.dividends or 0.0))
    text = Text(" dividends: ", style="dim", no_wrap=True, overflow="ellipsis")
    text.append("  ".join(f"{row.name or short(row.hotkey)} {number(row.dividends)}" for row in rows))
    text.truncate(width, overflow="ellipsis")
    return text


def _errors(history: History) -> str:
    return ", ".join(f"{name} x{count}" for name, count in history.errors.most_common(3))


# ------------------------------------------------------------------------------------------------------------ plain


def round_line(event: RoundDone, history: History) -> str:
    """One line of one round, for logs."""
    counts = history.counts()
    losses = sorted(row.loss for row in history.rows() if row.loss is not None)
    parts = [f"round {event.round}/{event.rounds}", f"{event.wall_s:.1f} s", f"{event.scored_per_s:.1f} responses/s"]
    if losses:
        parts.append(f"loss {losses[0]:.3f} to {losses[-1]:.3f}")
    if kings := [row for row in history.rows() if row.standing == "king"]:
        parts.append(f"king {kings[0].name or short(kings[0].hotkey)}")
    if history.epochs:
        best = ranked(history.rows())
        if best:
            parts.append(f"best paid {best[0].name or short(best[0].hotkey)} {number(best[0].incentive)}")
    if history.block is not None:
        parts.append(f"block {history.block}")
    parts.append(f"extrinsics {counts['submitted']} sent, {counts['included']} included, {counts['failed']} failed")
    if event.failures:
        parts.append("no answer: " + ", ".join(f"{reason} {count}" for reason, count in sorted(event.failures.items())))
    if history.errors:
        parts.append(f"errors: {_errors(history)}")
    eta = history.eta_s()
    if eta:
        parts.append(f"about {minutes(eta)} left")
    return " | ".join(parts)


def final_table(summary: Mapping[str, Any], width: int, max_rows: int) -> Table:
    """All neurons of a summary: owner and validators by uid, then miners, the best paid first; fits 80 columns."""
    wide = width >= 100
    titles = ("held-out loss", "incentive", "dividends", "emission TAO") if wide else ("loss", "incent", "divid", "TAO")
    table = Table(
        box=None,
        padding=(0, 1, 0, 0),
        header_style="bold",
        title=Text(f"{summary['name']}: all neurons"),
        title_justify="left",
    )
    columns = (
        ("uid", "right", 4),
        ("hotkey", "left", 9),
        ("role", "left", 9),
        ("behaviour" if wide else "behaves", "left", 8),
        (titles[0], "right", 6),
        ("score", "right", 6),
        ("weight", "right", 6),
        (titles[1], "right", 6),
        (titles[2], "right", 6),
        (titles[3], "right", 9),
    )
    ranks = wide and any(n.get("standing") for n in summary["neurons"])
    if ranks:
        columns = (*columns[:4], ("standing", "left", 8), *columns[4:])
    for title, justify, least in columns:
        table.add_column(title, justify=justify, min_width=max(least, len(title)), no_wrap=True, overflow="ellipsis")

    def add(n: Mapping[str, Any]) -> None:
        miner = n["role"] == "miner"
        table.add_row(
            str(n["uid"]),
            short(n["hotkey"]),
            n["role"],
            Text(n["behaviour"], STYLES.get(n["behaviour"], CHEAT)),
            *([Text(n["standing"], "bold" if n["standing"] == "king" else "")] if ranks else []),
            number(n["heldout_loss"]) if miner else "",
            number(n["score"]) if miner else "",
            number(n["weight"], 4) if miner else "",
            number(n["incentive"], 4) if miner else "",
            number(n["dividends"], 4) if n["role"] == "validator" else "",
            tao(n["emission_rao"]),
        )

    others = sorted((n for n in summary["neurons"] if n["role"] != "miner"), key=lambda n: n["uid"])
    miners = sorted(
        (n for n in summary["neurons"] if n["role"] == "miner"),
        key=lambda n: (-(n["incentive"] or 0.0), n["heldout_loss"] or math.inf, n["uid"]),
    )
    room = min(len(others), max(4, max_rows // 4))
    for group, lines in ((others, room), (miners, max_rows - room)):
        first, left_out, last = ends(group, lines)
        for neuron in first:
            add(neuron)
        if left_out:
            table.add_row("", Text(f"… {left_out} more", "dim"))
        for neuron in last:
            add(neuron)
    return table


def tao(rao: int) -> str:
    """An amount of rao in TAO, to the rao: the nine digits are exact, cut to four for the screen."""
    return f"{rao // 10**9}.{rao % 10**9 // 10**5:04d}"
