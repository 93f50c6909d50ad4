"""The tables of a run's report: neurons, rounds and the mechanism's own numbers, as HTML and as CSV.

In: the neurons of a summary, a `History`, the score boards of a run folder. Out: HTML sections; rows of text for CSV.
Knows nothing of how any of them came about.
"""

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raytensor.errors import DataError
from raytensor.telemetry import page
from raytensor.telemetry.history import PARTS, History
from raytensor.telemetry.page import Html
from raytensor.telemetry.views import amount, number

Rows = list[list[str]]
Neuron = Mapping[str, Any]


def as_csv(rows: Sequence[Sequence[str]]) -> str:
    """CSV text; the first row is the head."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def miners(neurons: Sequence[Neuron]) -> str:
    """The miners, the best paid first."""
    chosen = [neuron for neuron in neurons if neuron["role"] == "miner"]
    ranks = any(neuron["standing"] for neuron in chosen)
    columns = ["uid", "name", "hotkey", "behaviour", *(["standing"] if ranks else []), "loss", "held-out loss", "score"]
    columns += ["weight", "incentive", "paid (alpha)", "worth (TAO)"]
    rows = []
    for n in sorted(chosen, key=lambda n: (-(n["incentive"] or 0.0), n["uid"])):
        look = "good" if n["behaviour"] == "honest" else "bad"
        behaviour = Html(f'<span class="{look}">{html.escape(n["behaviour"])}</span>') if n["behaviour"] else ""
        row = [str(n["uid"]), n["name"], _hotkey(n["hotkey"]), behaviour, *([n["standing"]] if ranks else [])]
        row += [number(n["loss"]), number(n["heldout_loss"]), number(n["score"]), number(n["weight"], 4)]
        rows.append([*row, number(n["incentive"], 4), _amount(n["emission_alpha_rao"]), amount(n["emission_rao"])])
    note = "Losses in nats per token. loss: as the validators score the answers; held-out loss: measured at the end."
    words = ("name", "hotkey", "behaviour", "standing")
    return page.table("Miners", columns, rows, words=words, note=note) if rows else ""


def others(neurons: Sequence[Neuron]) -> str:
    """Validators and the subnet's owner, by uid."""
    columns = ["uid", "name", "hotkey", "role", "stake (alpha)", "validator trust", "dividends", "weights in block"]
    columns += ["paid (alpha)", "worth (TAO)"]
    rows = []
    for n in sorted((n for n in neurons if n["role"] != "miner"), key=lambda n: n["uid"]):
        validator = n["role"] == "validator"
        row = [str(n["uid"]), n["name"], _hotkey(n["hotkey"]), n["role"], _amount(n["stake_alpha_rao"])]
        row += [number(n["validator_trust"], 4), number(n["dividends"], 4)] if validator else ["", ""]
        row.append(str(n["weights_block"] or "never") if validator else "")
        rows.append([*row, _amount(n["emission_alpha_rao"]), amount(n["emission_rao"])])
    return page.table("Validators and owner", columns, rows, words=("name", "hotkey", "role")) if rows else ""


def mechanism(rows: Rows) -> str:
    """The mechanism's own numbers of each miner, as the first validator has them."""
    if not rows:
        return ""
    head, first = rows[0], rows[1][0]
    shown = [[miner, _hotkey(hotkey), *cells] for of, miner, hotkey, *cells in rows[1:] if of == first]
    title = f"The mechanism's numbers, of validator {first}"
    return page.table(title, head[1:], shown, words=("miner", "hotkey"))


def _hotkey(hotkey: str) -> str:
    """The address in full, to copy; the column shows its beginning."""
    safe = html.escape(hotkey)
    return Html(f'<code title="{safe}">{safe}</code>')


def _amount(rao: int | None) -> str:
    return "-" if rao is None else amount(rao)


def neuron_rows(neurons: Sequence[Neuron]) -> Rows:
    """All fields of all neurons, by uid; exact numbers, "" where one is unknown."""
    head = list(neurons[0]) if neurons else ["uid", "hotkey"]
    return [head, *([_text(neuron[name]) for name in head] for neuron in neurons)]


def round_rows(history: History) -> Rows:
    """One row for each round and miner: its loss and score, beside the round's own numbers."""
    head = ["round", "wall_s", *(f"{part}_s" for part in PARTS), "scored", "failed", "miner", "name", "loss", "score"]
    rows = [head]
    for event in history.rounds:
        start = [str(event.round), _text(event.wall_s), *map(_text, event.parts_s), str(event.scored)]
        start.append(str(sum(event.failures.values())))
        for hotkey in sorted({*event.losses, *event.values}):
            name = history.neurons[hotkey].name if hotkey in history.neurons else ""
            rows.append([*start, hotkey, name, _text(event.losses.get(hotkey)), _text(event.values.get(hotkey))])
    return rows


def mechanism_rows(folder: Path, neurons: Sequence[Neuron]) -> Rows:
    """validator, miner, hotkey and the mechanism's numbers and words of each miner, from the newest score boards.

    Raises `DataError` when a board can't be read.
    """
    newest = sorted((folder / "boards").glob("round-*"))[-1:]
    names = {neuron["hotkey"]: neuron["name"] or neuron["hotkey"] for neuron in neurons}
    uids = {neuron["hotkey"]: neuron["uid"] for neuron in neurons}
    boards = []
    for path in (path for place in newest for path in place.glob("*.json")):
        try:
            board = json.loads(path.read_text())
            boards.append((uids.get(path.stem, 1 << 16), names.get(path.stem, path.stem), board["miners"]))
        except (ValueError, KeyError) as error:
            raise DataError(f"{path}: not a score board ({error}); remove it to report without it") from error
    found: Rows = []
    # Lists (fingerprints, weights of a router) are left out: they say nothing in a column.
    entries = [values for _, _, miners in boards for values in miners.values()]
    fields = sorted({name for values in entries for name in values if not isinstance(values[name], list)})
    for _, validator, miners in sorted(boards, key=lambda board: board[:2]):
        for hotkey, values in sorted(miners.items(), key=lambda item: uids.get(item[0], 1 << 16)):
            found.append([validator, names.get(hotkey, hotkey), hotkey, *(_text(values.get(name)) for name in fields)])
    return [["validator", "miner", "hotkey", *fields], *found] if found else []


def _text(value: Any) -> str:
    return "" if value is None else str(value)
