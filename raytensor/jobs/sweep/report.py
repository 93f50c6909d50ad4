"""report.html of a sweep: one page that needs nothing else, in the look of a run's report.

In: the ranked trials. Out: the page, with learning curves and, for each setting, loss against it. The same trials give
the same bytes, but for the seconds that they took.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raytensor import config
from raytensor.config.sweep import SweepConfig
from raytensor.jobs.sweep.outcome import DIVERGED, FAILED, FINISHED, STOPPED, TrialOutcome, table
from raytensor.telemetry.page import CSS
from raytensor.telemetry.runfolder import write_text
from raytensor.telemetry.views import minutes

MAX_LINES = 64
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(
    folder: Path, cfg: SweepConfig, trials: Sequence[TrialOutcome], keys: Sequence[str], command: str, wall_s: float
) -> Path:
    """Write `report.html`; `trials` best first, `keys` what they varied, `command` runs the best."""
    name, best = html.escape(folder.name), trials[0]
    counts = {
        status: sum(trial.status == status for trial in trials) for status in (FINISHED, STOPPED, DIVERGED, FAILED)
    }
    facts = [
        ("best", f"trial {best.number}: {' '.join(best.overrides)}"),
        ("its held-out loss", f"{best.loss:.4f} nats per token after {best.rounds} rounds"),
        ("run it", command),
        ("trials", ", ".join(f"{count} {status}" for status, count in counts.items() if count)),
        ("ranked by", "held-out loss" if cfg.rank_by == "heldout_loss" else "incentive that they earn side by side"),
        ("search", f"{cfg.search.method}, {cfg.scheduler.kind}, {cfg.rounds} rounds of {cfg.profile.steps} steps"),
        ("time", f"{minutes(wall_s)}; {sum(trial.wall_s for trial in trials):.0f} s of training"),
    ]
    figures = "\n".join(
        f"<figure><figcaption>{html.escape(title)}</figcaption>\n{drawn}\n</figure>"
        for title, drawn in draw(trials, keys).items()
    )
    definitions = "".join(
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>" for label, value in facts
    )
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<title>{name} · RayTensor</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n'
        f"<header><h1>{name}</h1><p>{len(trials)} trials, seed {cfg.seed}.</p></header>\n<dl>{definitions}</dl>\n"
        f'<section class="plots">\n{figures}\n</section>\n<section><h2>Trials</h2><div class="scroll">{_table(table(trials, keys))}</div></section>\n'
        f"<details><summary>Configuration</summary><pre>{html.escape(config.to_yaml(cfg))}</pre></details>\n</main>\n</body>\n</html>\n"
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def draw(trials: Sequence[TrialOutcome], keys: Sequence[str]) -> dict[str, str]:
    """{title: SVG}: learning curves, then the loss against each setting."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    from raytensor.telemetry.plots import STYLE, svg

    out = {}
    with matplotlib.rc_context(STYLE):
        for title, plot, key in [
            ("Held-out loss by round", _curves, ""),
            *((f"Held-out loss against {key}", _against, key) for key in keys),
        ]:
            figure = Figure(figsize=(4.1, 3.3), layout="constrained")
            FigureCanvasSVG(figure)
            if plot(figure, trials, key):
                out[title] = svg(figure, title)
    return out


def _curves(figure: Any, trials: Sequence[TrialOutcome], key: str) -> bool:
    from matplotlib.ticker import MaxNLocator

    from raytensor.telemetry.plots import COLOURS

    seen = [trial for trial in trials if trial.heldout][:MAX_LINES]
    if not seen:
        return False
    axes = figure.add_subplot(xlabel="round", ylabel="loss (nats per token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for place, trial in reversed(list(enumerate(seen))):
        look = (
            {"color": COLOURS[place], "zorder": 3}
            if place < 5
            else {"color": COLOURS[8], "alpha": 0.5, "linewidth": 1.0}
        )
        axes.plot(
            list(trial.heldout),
            list(trial.heldout.values()),
            marker="o",
            markersize=3,
            label=f"trial {trial.number}" if place < 5 else None,
            **look,
        )
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=5, handlelength=1.2, columnspacing=1.0)
    return True


def _against(figure: Any, trials: Sequence[TrialOutcome], key: str) -> bool:
    from raytensor.telemetry.plots import COLOURS

    points = [
        (dict(item.split("=", 1) for item in trial.overrides).get(key), trial)
        for trial in trials
        if trial.loss is not None
    ]
    points = [(text, trial) for text, trial in points if text is not None]
    if not points:
        return False
    axes = figure.add_subplot(xlabel=key, ylabel="loss (nats per token)")
    try:
        values: list[Any] = [float(text) for text, _ in points]
        if min(values) > 0 and max(values) > 8 * min(values):
            axes.set_xscale("log")
    except ValueError:  # names
        values = [text for text, _ in points]
    for status, colour in ((FINISHED, COLOURS[0]), (STOPPED, COLOURS[8])):
        chosen = [
            (value, trial.loss) for value, (_, trial) in zip(values, points, strict=True) if trial.status == status
        ]
        if chosen:
            axes.scatter(*zip(*chosen, strict=True), s=26, color=colour, label=status, clip_on=False)
    figure.legend(loc="outside lower center", ncols=2)
    return True


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return (
        "<table><thead><tr>"
        + "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        + f"</tr></thead>\n<tbody>\n{lines}\n</tbody></table>"
    )
