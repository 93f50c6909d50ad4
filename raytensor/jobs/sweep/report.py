"""report.html of a sweep: one page that needs nothing else, in the look of a run's report.

In: the ranked trials. Out: the page, with learning curves and, for each setting, the loss against it. The same trials
give the same bytes, but for the seconds that they took.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from raytensor import config, disk
from raytensor.config.sweep import SweepConfig
from raytensor.jobs.sweep.outcome import DIVERGED, FAILED, FINISHED, STOPPED, TrialOutcome, table
from raytensor.telemetry import page
from raytensor.telemetry.plots import COLOURS, drawn, whole_numbers
from raytensor.telemetry.views import minutes

STATUSES = {FINISHED: COLOURS[0], STOPPED: COLOURS[8], DIVERGED: COLOURS[5], FAILED: COLOURS[3]}
MAX_LINES = 64
NAMED = 5  # trials with a colour and a name of their own among the learning curves


def write_report(
    folder: Path, cfg: SweepConfig, trials: Sequence[TrialOutcome], keys: Sequence[str], command: str, wall_s: float
) -> Path:
    """Write `report.html`; `trials` best first, `keys` what they varied, `command` runs the best."""
    best, counts = trials[0], Counter(trial.status for trial in trials)
    facts = [
        ("best", f"trial {best.number}: {' '.join(best.overrides)}"),
        ("its held-out loss", f"{best.loss:.4f} nats per token after {best.rounds} rounds"),
        ("run it", command),
        ("trials", ", ".join(f"{counts[name]} {name}" for name in STATUSES if counts[name])),
        ("ranked by", "held-out loss" if cfg.rank_by == "heldout_loss" else "incentive that they earn side by side"),
        ("search", f"{cfg.search.method}, {cfg.scheduler.kind}, {cfg.rounds} rounds of {cfg.profile.steps} steps"),
        ("time", f"{minutes(wall_s)}; {sum(trial.wall_s for trial in trials):.0f} s of training"),
    ]
    head, *rows = table(trials, keys)
    parts = [
        page.facts(facts),
        page.plots(draw(trials, keys)),
        page.bullets("Why nothing was paid", why_unpaid(trials)),
        page.bullets("Failed trials", [f"trial {one.number}: {one.error}" for one in trials if one.status == FAILED]),
        page.table("Trials", head, rows, words=("status",)),
        page.configuration(config.to_yaml(cfg)),
    ]
    disk.write_text(folder / "report.html", page.page(folder.name, f"{len(trials)} trials, seed {cfg.seed}.", parts))
    return folder / "report.html"


def why_unpaid(trials: Sequence[TrialOutcome]) -> list[str]:
    """A line for the trials that took part in the ranking by incentive and earned nothing."""
    nothing = [str(trial.number) for trial in trials if trial.incentive == 0.0]
    if not nothing:
        return []
    why = "the scores are not above the mechanism's baseline, or too little of the validators' stake weights them"
    return [f"trials {', '.join(nothing)}: {why}"]


def draw(trials: Sequence[TrialOutcome], keys: Sequence[str]) -> dict[str, str]:
    """{title: SVG}: learning curves, then the loss against each setting, of all trials after the same round."""
    plots = {"Held-out loss by round": drawn("Held-out loss by round", lambda figure: _curves(figure, trials))}
    number = _common_round(trials)
    for key in keys:
        title = f"Held-out loss after round {number} against {key}"
        plots[title] = drawn(title, lambda figure, key=key: _against(figure, trials, key, number))
    return {title: svg for title, svg in plots.items() if svg}


def _common_round(trials: Sequence[TrialOutcome]) -> int:
    """The newest round after which every trial that has a loss at all was measured; 0 for none."""
    rounds = [set(trial.heldout) for trial in trials if trial.heldout]
    return max(set.intersection(*rounds), default=0) if rounds else 0


def _curves(figure: Figure, trials: Sequence[TrialOutcome]) -> bool:
    seen = [trial for trial in trials if trial.heldout]
    if not seen:
        return False
    axes = figure.add_subplot(xlabel="round", ylabel="held-out loss (nats per token)")
    whole_numbers(axes.xaxis)
    others = {"color": COLOURS[8], "alpha": 0.5, "linewidth": 1.0}
    for place, trial in reversed(list(enumerate(seen[:MAX_LINES]))):
        look: dict[str, Any] = {"color": COLOURS[place], "zorder": 3} if place < NAMED else others
        name = f"trial {trial.number}" if place < NAMED else None
        axes.plot(list(trial.heldout), list(trial.heldout.values()), marker="o", markersize=3, label=name, **look)
    drawn_handles, names = axes.get_legend_handles_labels()
    handles, labels = drawn_handles[::-1], names[::-1]
    if len(seen) > NAMED:
        handles += axes.plot([], [], **others)
        labels.append(f"{min(len(seen), MAX_LINES) - NAMED} others")
    if len(seen) > MAX_LINES:
        handles += axes.plot([], [], linestyle="")
        labels.append(f"{len(seen) - MAX_LINES} not drawn")
    if len(seen) < len(trials):
        handles += axes.plot([], [], linestyle="")
        labels.append("no loss: trial " + ", ".join(str(trial.number) for trial in trials if not trial.heldout))
    figure.legend(handles, labels, loc="outside lower center", ncols=3, handlelength=1.2, columnspacing=1.0)
    return True


def _against(figure: Figure, trials: Sequence[TrialOutcome], key: str, number: int) -> bool:
    """The losses after round `number` against the setting with which that round was trained."""
    points = [(_setting(trial, key, number), trial) for trial in trials if number in trial.heldout]
    found = [(text, trial) for text, trial in points if text is not None]
    if not found:
        return False
    axes = figure.add_subplot(xlabel=key, ylabel="held-out loss (nats per token)")
    values: list[Any] = [text for text, _ in found]
    try:
        values = [float(text) for text in values]
    except ValueError:
        pass  # names
    else:
        if min(values) > 0 and max(values) > 8 * min(values):
            axes.set_xscale("log")
            _plain_labels(axes.xaxis, values)
        elif all(value == int(value) for value in values):
            whole_numbers(axes.xaxis)
    of_trial = list(zip(values, (trial for _, trial in found), strict=True))
    for status, colour in STATUSES.items():
        chosen = [(value, trial.heldout[number]) for value, trial in of_trial if trial.status == status]
        if chosen:
            axes.scatter(*zip(*chosen, strict=True), s=26, color=colour, label=status, clip_on=False)
    figure.legend(loc="outside lower center", ncols=4)
    return True


def _setting(trial: TrialOutcome, key: str, number: int) -> str | None:
    """The setting with which a trial trained a round; it may have changed while it trained (PBT)."""
    newest = [items for after, items in trial.lineage if after < number]
    return dict(item.split("=", 1) for item in newest[-1]).get(key) if newest else None


def _plain_labels(axis: Axis, values: Sequence[float]) -> None:
    """0.001, not a power in math text, of which an SVG without math shows the source."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    if max(values) < 100 * min(values):  # a scale with few powers of ten: mark the values themselves
        axis.set_ticks(sorted(set(values))[:: max(1, len(set(values)) // 5)])
