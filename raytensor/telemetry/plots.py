"""The plots of the reports: a `History` in, SVG text out, ready to be part of an HTML page.

Colours of text and lines are CSS variables of the page (--ink, --muted, --grid), so that one drawing is right in light
and in dark. The same history gives the same bytes. Each plot is as narrow as a phone, and grows with the page.
Knows nothing of files or of the rest of the page.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from raytensor.config.behaviours import BEHAVIOURS
from raytensor.telemetry.history import PARTS, History, Row, ranked
from raytensor.telemetry.views import short

INK, MUTED, GRID = "#010101", "#020202", "#030303"  # placeholders, replaced by the page's variables
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}
# Readable on white and on black; most colour-blind readers can distinguish them (after Okabe and Ito).
COLOURS = ("#2b8cc4", "#e69f00", "#1aa179", "#d0689f", "#8f7be0", "#d55e00", "#4bb5d6", "#9a9a2e", "#8d8d8d", "#b07a55")
MAX_LINES = 64
MAX_POINTS = 300
MAX_LABELS = 25  # of miners under the weight matrix
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be selected and takes the page's colours
    "text.parse_math": False,  # a "$" in a name is a "$"
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
}
STYLE |= {"axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6}
STYLE |= {"font.family": "sans-serif", "font.size": 10, "legend.fontsize": 9}
STYLE |= {"lines.linewidth": 1.6, "lines.solid_capstyle": "round"}
HONEST = ("", "honest")  # behaviours


def draw(history: History) -> dict[str, str]:
    """All plots that the history has data for: {title: SVG}, in the order of the report."""
    plots: dict[str, Callable[[Figure, History], bool]] = {
        "Loss per miner": _losses,
        "Incentive per miner": _incentives,
        "Pay against loss": _pay,
        "Weight matrix": _weights,
        "Blocks and extrinsics": _chain,
        "Where the time went": _time,
    }
    found = {title: drawn(title, lambda figure, plot=plot: plot(figure, history)) for title, plot in plots.items()}
    return {title: svg for title, svg in found.items() if svg}


def drawn(title: str, plot: Callable[[Figure], bool]) -> str:
    """One plot as SVG text in the style of the reports; "" where `plot` returns False: it has nothing to draw."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.1, 3.3), layout="constrained")
        FigureCanvasSVG(figure)
        return _svg(figure, title) if plot(figure) else ""


def whole_numbers(axis: Axis, bins: int = 6) -> None:
    """Ticks at whole numbers only."""
    axis.set_major_locator(MaxNLocator(integer=True, nbins=bins))


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties by mean rank; None for fewer than three pairs or no spread."""
    if len(first) < 3:
        return None
    a, b = _ranks(np.asarray(first, float)), _ranks(np.asarray(second, float))
    if a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _losses(figure: Figure, history: History) -> bool:
    looks = [(row, look) for row, look in _looks(_drawn(history)) if history.losses(row.hotkey)]
    if not looks:
        return False
    axes = figure.add_subplot(xlabel="round", ylabel="loss (nats per token)")
    whole_numbers(axes.xaxis)
    for row, look in looks:
        points = thinned(history.losses(row.hotkey))
        axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 25 else "", markersize=3, **look)
    _legend(figure, looks)
    return True


def _incentives(figure: Figure, history: History) -> bool:
    looks = _looks(_drawn(history))
    if not history.epochs or not looks:
        return False
    axes = figure.add_subplot(xlabel="block of the epoch", ylabel="incentive (share)")
    whole_numbers(axes.xaxis)
    epochs = thinned(history.epochs)
    blocks, marker = [epoch.block for epoch in epochs], "o" if len(epochs) < 25 else ""
    for row, look in looks:
        shares = [epoch.incentive.get(row.hotkey, 0.0) for epoch in epochs]
        axes.plot(blocks, shares, marker=marker, markersize=3, clip_on=False, **look)
    axes.set_ylim(bottom=0)
    _legend(figure, looks)
    return True


def _pay(figure: Figure, history: History) -> bool:
    rows = [row for row in ranked(history.rows()) if row.loss is not None and row.incentive is not None]
    if not rows:
        return False
    axes = figure.add_subplot(xlabel="loss (nats per token)", ylabel="incentive (share)")
    behaviours = _behaviours(row.behaviour for row in rows)
    for name in behaviours:
        losses, paid = zip(*((row.loss, row.incentive) for row in rows if row.behaviour == name), strict=True)
        axes.scatter(losses, paid, s=26, color=_colour(name), label=name or "miner", clip_on=False)
    axes.set_ylim(bottom=0)
    columns = max(1, min(6, 56 // (max(map(len, behaviours)) + 4)))
    figure.legend(loc="outside lower center", ncols=columns, handletextpad=0.2, columnspacing=1.2)
    return True


def _weights(figure: Figure, history: History) -> bool:
    miners = [row for row in history.rows() if row.role == "miner"]
    if not history.weights or not miners:
        return False
    names = {key: neuron.name or short(key) for key, neuron in history.neurons.items()}
    order = {key: neuron.uid for key, neuron in history.neurons.items()}
    validators = sorted(history.weights, key=lambda key: (order.get(key, 1 << 16), key))
    matrix = np.array([[history.weights[v].get(row.hotkey, 0.0) for row in miners] for v in validators])
    axes = figure.add_subplot(xlabel="miner", ylabel="validator")
    axes.grid(False)
    top = max(matrix.max(), 1e-9)
    image = axes.imshow(matrix, cmap="viridis", vmin=0.0, vmax=top, aspect="auto", interpolation="none")
    bar = figure.colorbar(image, ax=axes, location="top", shrink=0.6, aspect=30)
    bar.set_label("share of the validator's weights")
    bar.ax.set_frame_on(False)
    step = -(-len(miners) // MAX_LABELS)  # labels must not overlap
    shown = range(0, len(miners), step)
    labels = [names[miners[place].hotkey] for place in shown]
    axes.set_xticks(shown, labels, rotation=90 if len(labels) > 4 else 0, fontsize=9 if len(labels) <= 12 else 7.5)
    if len(validators) <= 16:
        axes.set_yticks(range(len(validators)), [names.get(key, short(key)) for key in validators])
    if len(miners) <= 10 and len(validators) <= 12:
        for (y, x), share in np.ndenumerate(matrix):
            colour = "#ffffff" if share < 0.6 * matrix.max() else "#000000"
            axes.text(x, y, f"{share:.2f}", ha="center", va="center", fontsize=7.5, color=colour)
    return True


def _chain(figure: Figure, history: History) -> bool:
    if not history.blocks and not history.extrinsics:
        return False
    above, below = figure.subplots(2, 1, sharex=True)
    if history.blocks:
        above.plot(*zip(*thinned(history.blocks), strict=True), color=COLOURS[0], drawstyle="steps-post")
    above.set_ylabel("block")
    points = thinned(history.extrinsics)
    lines = (("submitted", COLOURS[8], "--"), ("included", COLOURS[2], "-"), ("failed", COLOURS[5], "-"))
    for column, (label, colour, dashes) in enumerate(lines if points else (), start=1):
        times, counts = [point[0] for point in points], [point[column] for point in points]
        below.plot(times, counts, color=colour, label=label, drawstyle="steps-post", linestyle=dashes)
    below.set(xlabel="seconds of the run", ylabel="extrinsics")
    below.set_ylim(bottom=0)
    for axes in (above, below):
        whole_numbers(axes.yaxis, 5)
    if history.extrinsics:
        figure.legend(loc="outside lower center", ncols=3)
    return True


def _time(figure: Figure, history: History) -> bool:
    rounds = history.rounds
    if not rounds:
        return False
    axes = figure.add_subplot(xlabel="round", ylabel="seconds per round")
    whole_numbers(axes.xaxis)
    table = np.array([event.parts_s for event in rounds], float)
    numbers = np.array([event.round for event in rounds], float)
    per_bar = -(-len(rounds) // 60)  # a long run shows means of neighbouring rounds
    cuts = range(0, len(rounds), per_bar)
    heights = np.array([table[cut : cut + per_bar].mean(axis=0) for cut in cuts])
    places = np.array([numbers[cut : cut + per_bar].mean() for cut in cuts])
    floor = np.zeros(len(places))
    total = sum(event.wall_s for event in rounds)
    colours = (COLOURS[0], COLOURS[6], COLOURS[2], COLOURS[1], COLOURS[8])
    for column, (part, colour) in enumerate(zip(PARTS, colours, strict=True)):
        share = f" {table[:, column].sum() / total:.0%}" if total > 0 else ""
        axes.bar(places, heights[:, column], bottom=floor, width=0.8 * per_bar, color=colour, label=part + share)
        floor += heights[:, column]
    figure.legend(loc="outside lower center", ncols=3)
    return True


def _drawn(history: History) -> list[Row]:
    """Miners to draw lines for, by uid: all, or `MAX_LINES` of them, spread evenly over the ranks."""
    rows = ranked(history.rows())
    if len(rows) > MAX_LINES:
        rows = [rows[int(place)] for place in np.linspace(0, len(rows) - 1, MAX_LINES)]
    return sorted(rows, key=lambda row: row.uid)


def _looks(rows: Sequence[Row]) -> list[tuple[Row, dict[str, Any]]]:
    if len(rows) > len(COLOURS):
        return [(row, {"color": _colour(row.behaviour), "alpha": 0.6, "linewidth": 1.0}) for row in rows]
    dashes = ({} if row.behaviour in HONEST else {"linestyle": "--"} for row in rows)
    return [(row, {"color": colour} | dash) for row, colour, dash in zip(rows, COLOURS, dashes)]


def _legend(figure: Figure, looks: Sequence[tuple[Row, dict[str, Any]]]) -> None:
    if len({look["color"] for _, look in looks}) == len(looks):  # each miner has its own colour
        lines = [Line2D([], [], **look) for _, look in looks]
        suffixes = ["" if row.behaviour in HONEST else f" ({row.behaviour})" for row, _ in looks]
        labels = [(row.name or short(row.hotkey)) + end for (row, _), end in zip(looks, suffixes, strict=True)]
    else:
        behaviours = _behaviours(row.behaviour for row, _ in looks)
        lines = [Line2D([], [], color=_colour(name)) for name in behaviours]
        labels = [name or "miner" for name in behaviours]
    columns = max(1, min(6, 56 // (max(map(len, labels)) + 6)))
    figure.legend(lines, labels, loc="outside lower center", ncols=columns, columnspacing=1.0, handlelength=1.2)


def _behaviours(names: Iterable[str]) -> list[str]:
    return sorted(set(names), key=lambda name: (name != "honest", name))


def _colour(behaviour: str) -> str:
    return BEHAVIOURS[behaviour].colour if behaviour in BEHAVIOURS else COLOURS[9]


def thinned(points: Sequence[Any]) -> list[Any]:
    """At most MAX_POINTS of them, the first and the last among them."""
    if len(points) <= MAX_POINTS:
        return list(points)
    return [points[int(place)] for place in np.linspace(0, len(points) - 1, MAX_POINTS)]


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last - 1) / 2.0)[inverse]


def _svg(figure: Figure, title: str) -> str:
    """A drawn figure as SVG text in the colours of the page; the same figure gives the same bytes."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": f"raytensor {title}"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'<g id="[^"]*">', "<g>", drawn)  # names of groups repeat from plot to plot; nothing refers to them
    box = re.search(r'viewBox="[^"]*"', drawn)
    assert box is not None
    head = f'<svg {box[0]} role="img" aria-label="{title}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    drawn = head + drawn[drawn.index(">") + 1 :]
    for colour, variable in VARIABLES.items():
        drawn = drawn.replace(colour, variable)
    return drawn.strip()
