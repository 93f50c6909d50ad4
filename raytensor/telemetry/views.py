"""What the terminal shows of a run, as rich renderables: the live view, the line of a round, the final table.

In: a `History` or a summary, and the size of the screen. Out: renderables and strings; prints nothing. "Loss" is what
the validators' scores say (`history.Row.loss`); "held-out loss" is measured at the end of a run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, JustifyMethod, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from raytensor.telemetry.events import RoundDone
from raytensor.telemetry.history import History, Row, ranked
from raytensor.telemetry.summary import disk_sentence
from raytensor.telemetry.unpaid import unpaid_lines, why_nothing_was_paid

SPARKS = "▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉"
STYLES = {"honest": "green", "": "dim"}  # everything else is a cheat
CHEAT = "red"


def sparkline(values: Sequence[float], low: float, high: float, width: int) -> str:
    """The newest `width` values as blocks, on a scale from `low` to `high`."""
    span = high - low
    steps = (int(8 * (value - low) / span) if span > 0 else 0 for value in values[-width:])
    return "".join(SPARKS[min(7, max(0, step))] for step in steps)


def bar(share: float, width: int) -> str:
    """A bar of `share` (0..1) of `width` columns, in eighths of a column, padded to the width."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(width)


def short(hotkey: str) -> str:
    """The two ends of an address, for a narrow column: "5Grw…utQY"."""
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
    """All rows, or the first and last with the number of those left out, in at most `room` lines."""
    room = max(3, room)
    if len(rows) <= room:
        return rows, 0, ()
    last = (room - 1) // 3
    first = room - 1 - last
    return rows[:first], len(rows) - first - last, rows[len(rows) - last :] if last else ()


def live_view(history: History, name: str, now: float, width: int, height: int) -> RenderableType:
    """The whole screen of a running network: at most `width` x (`height` - 1) characters."""
    width = min(width, 110)
    facts, title = _facts(history, now, width), Text(f"raytensor · {name}")
    head = Panel(facts, title=title, title_align="left", box=box.ROUNDED, width=width)
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
    left = f"about {minutes(eta)}" if eta is not None else "-"
    text.append(f"  elapsed {minutes(history.clock(now) if history.started_at else 0.0)}, left {left}\n")
    if history.block is None or history.blocks_until_epoch is None:
        text.append("block    - \n")
    else:
        past = history.tempo - history.blocks_until_epoch
        text.append(f"block {history.block:>9} ", "bold")
        text.append(bar(past / history.tempo if history.tempo else 0.0, gauge), "magenta on grey23")
        text.append(f"  tempo {past}/{history.tempo}, epochs {len(history.epochs)}\n")
    text.append(f"{newest.scored_per_s if newest else 0.0:.1f} responses/s, ")
    text.append(f"extrinsics {counts['submitted']} sent, {counts['included']} included, ")
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
    ranks = any(row.standing for row in rows)  # only some mechanisms report standings
    standing = 0 if not ranks else 11 if width >= 90 else 9
    taken = standing + 2 if ranks else 0
    named = max(10, min(20, width - 70 - taken))
    spare = width - named - 34 - 16 - taken  # what is left of the fixed columns and the gaps
    trend, gauge = max(4, min(16, spare // 2)), max(4, min(20, spare - spare // 2))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    columns: list[tuple[str, JustifyMethod, int]] = [("uid", "right", 4), ("miner", "left", named)]
    columns.extend([("behaviour", "left", 9), *([("standing", "left", standing)] if ranks else [])])
    columns.extend([("loss", "right", 6), ("", "left", trend), ("weight", "right", 6)])
    columns.extend([("incentive", "right", 9), ("", "left", gauge)])
    for title, justify, num_characters in columns:
        table.add_column(title, justify=justify, width=num_characters, no_wrap=True, overflow="ellipsis")
    losses = {row.hotkey: [loss for _, loss in history.losses(row.hotkey)[-trend:]] for row in rows}
    seen = [loss for values in losses.values() for loss in values]
    low, high = (min(seen), max(seen)) if seen else (0.0, 0.0)
    top = max((row.incentive or 0.0 for row in rows), default=0.0)

    def cells(row: Row) -> list[str | Text]:
        line = Text(sparkline(losses[row.hotkey], low, high, trend).ljust(trend), "cyan")
        gauged = Text(bar((row.incentive or 0.0) / top if top else 0.0, gauge), "green")
        found = [str(row.uid), Text(row.name or short(row.hotkey)), _behaviour(row.behaviour)]
        found += [_standing(row.standing)] if ranks else []
        return [*found, number(row.loss), line, number(row.weight), number(row.incentive), gauged]

    _fill(table, rows, room, cells)
    return table


def _fill(table: Table, rows: Sequence[Any], room: int, cells: Callable[[Any], Sequence[str | Text]]) -> None:
    """Add the first and last rows in at most `room` lines, with the number of those left out between them."""
    first, left_out, last = ends(rows, room)
    for row in first:
        table.add_row(*cells(row))
    if left_out:
        table.add_row("", Text(f"… {left_out} more", "dim"))
    for row in last:
        table.add_row(*cells(row))


def _behaviour(name: str) -> Text:
    return Text(name, STYLES.get(name, CHEAT))


def _standing(word: str) -> Text:
    return Text(word, "bold" if word == "king" else "")


def _validators(history: History, width: int) -> Text:
    """The validators' dividends, or why nothing was paid."""
    text = Text(no_wrap=True, overflow="ellipsis")
    if why := why_nothing_was_paid(history):
        text.append(f" nothing paid yet: {why}", "yellow")
    else:
        rows = [row for row in history.rows() if row.role == "validator"]
        rows.sort(key=lambda row: -(row.dividends or 0.0))
        text.append(" dividends: ", "dim")
        text.append("  ".join(f"{row.name or short(row.hotkey)} {number(row.dividends)}" for row in rows))
    text.truncate(width, overflow="ellipsis")
    return text


def _errors(history: History) -> str:
    return ", ".join(f"{name} x{count}" for name, count in history.errors.most_common(3))


def round_line(event: RoundDone, history: History) -> str:
    """One line of one round, for logs."""
    counts = history.counts()
    losses = sorted(row.loss for row in history.rows() if row.loss is not None)
    parts = [f"round {event.round}/{event.rounds}", f"{event.wall_s:.1f} s", f"{event.scored_per_s:.1f} responses/s"]
    if losses:
        parts.append(f"loss {losses[0]:.3f} to {losses[-1]:.3f}")
    if kings := [row for row in history.rows() if row.standing == "king"]:
        parts.append(f"king {kings[0].name or short(kings[0].hotkey)}")
    if why := why_nothing_was_paid(history):
        parts.append(f"nothing paid yet: {why}")
    elif history.epochs and (best := ranked(history.rows())):
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


# Columns of the final table: heading, heading on a narrow screen ("": left out there), alignment, least width, cell.
Column = tuple[str, str, JustifyMethod, int, Callable[[Mapping[str, Any]], str | Text]]
_COLUMNS: tuple[Column, ...] = (
    ("uid", "uid", "right", 4, lambda n: str(n["uid"])),
    ("hotkey", "hotkey", "left", 9, lambda n: short(n["hotkey"])),
    ("role", "role", "left", 9, lambda n: n["role"]),
    ("behaviour", "behaves", "left", 8, lambda n: _behaviour(n["behaviour"])),
    ("standing", "", "left", 8, lambda n: _standing(n["standing"])),
    ("loss", "loss", "right", 6, lambda n: _of("miner", n, "loss")),
    ("held-out", "", "right", 6, lambda n: _of("miner", n, "heldout_loss")),
    ("score", "score", "right", 6, lambda n: _of("miner", n, "score")),
    ("weight", "weight", "right", 6, lambda n: _of("miner", n, "weight", 4)),
    ("incentive", "incent", "right", 6, lambda n: _of("miner", n, "incentive", 4)),
    ("dividends", "divid", "right", 6, lambda n: _of("validator", n, "dividends", 4)),
    ("paid alpha", "alpha", "right", 9,
     lambda n: "-" if n["emission_alpha_rao"] is None else amount(n["emission_alpha_rao"])),
)  # fmt: skip


def _of(role: str, neuron: Mapping[str, Any], name: str, digits: int = 3) -> str:
    return number(neuron[name], digits) if neuron["role"] == role else ""


def final_table(summary: Mapping[str, Any], width: int, max_rows: int) -> Table:
    """All neurons of a summary: owner and validators by uid, then miners, the best paid first; fits 80 columns."""
    wide, neurons = width >= 100, summary["neurons"]
    title = Text(f"{summary['name']}: all neurons")
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", title=title, title_justify="left")
    ranks = any(n["standing"] for n in neurons)
    shown = [column for column in _COLUMNS if (wide or column[1]) and (ranks or column[0] != "standing")]
    for full, narrow, justify, least, _ in shown:
        name = full if wide else narrow
        table.add_column(name, justify=justify, min_width=max(least, len(name)), no_wrap=True, overflow="ellipsis")
    others = sorted((n for n in neurons if n["role"] != "miner"), key=lambda n: n["uid"])
    miners = [n for n in neurons if n["role"] == "miner"]
    miners.sort(key=lambda n: (-(n["incentive"] or 0.0), n["loss"] or math.inf, n["uid"]))
    room = min(len(others), max(4, max_rows // 4))
    for group, lines in ((others, room), (miners, max_rows - room)):
        _fill(table, group, lines, lambda neuron: [cell(neuron) for *_, cell in shown])
    return table


def closing_lines(summary: Mapping[str, Any]) -> list[Text]:
    """The lines after the final table: why nothing was paid, pay and fees, rounds, extrinsics, disk."""
    counts, chain = summary["extrinsics"], summary["chain"]
    lines = [Text(f"nothing was paid: {line}", "yellow") for line in unpaid_lines(summary)]
    fees = amount(sum(summary["fees_rao"].values()))
    before = f"; at set-up: {setup(summary)}" if summary["setup_rao"] else ""
    lines.append(Text(f"paid: {paid(summary['neurons'])}; fees: {fees} TAO{before}"))
    rounds = f"{summary['rounds']} rounds in {summary['wall_s']:.0f} s, block {chain['last_block']}"
    sent = f"{counts['submitted']} sent, {counts['included']} included, {counts['failed']} failed"
    lines.append(Text(f"{rounds}, extrinsics: {sent}"))
    used = disk_sentence(summary["disk_bytes"])
    return [*lines, Text(f"disk: {used}")] if used else lines


def amount(rao: int) -> str:
    """An amount of rao, of TAO or of alpha, in whole units: the nine digits are exact, cut to four for the screen."""
    return f"{rao // 10**9}.{rao % 10**9 // 10**5:04d}"


def setup(summary: Mapping[str, Any]) -> str:
    """What a run's set-up cost: "2.0013 TAO (fees 0.0013, subnet 1.0000, registrations 1.0000)"; "-": not recorded."""
    shown = ", ".join(f"{what} {amount(rao)}" for what, rao in summary["setup_rao"].items())
    return f"{amount(sum(summary['setup_rao'].values()))} TAO ({shown})" if shown else "-"


def paid(neurons: Sequence[Mapping[str, Any]]) -> str:
    """What all neurons were paid: "41.2000 alpha, worth 39.1000 TAO when it was paid"."""
    worth = amount(sum(neuron["emission_rao"] for neuron in neurons))
    alpha = [neuron["emission_alpha_rao"] for neuron in neurons]
    if any(one is not None for one in alpha):
        return f"{amount(sum(one or 0 for one in alpha))} alpha, worth {worth} TAO when it was paid"
    return f"alpha worth {worth} TAO when it was paid"
