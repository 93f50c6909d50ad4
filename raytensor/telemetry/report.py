"""report.html of a run: its outcome on one page that needs nothing else, with the same numbers as CSV files beside it.

In: a run folder with events.jsonl and, as far as they are there, summary.json, config.yaml and the newest score boards;
the run may be over, killed or still running. Out: report.html, neurons.csv, rounds.csv and mechanism.csv in the folder.
The same folder gives the same bytes. Knows nothing of Ray, torch or the chain.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raytensor import disk
from raytensor.errors import DataError
from raytensor.telemetry import page, tables
from raytensor.telemetry.event_log import read_events
from raytensor.telemetry.history import History
from raytensor.telemetry.plots import HONEST, draw, spearman
from raytensor.telemetry.summary import build_summary, disk_sentence, disk_use
from raytensor.telemetry.unpaid import unpaid_lines
from raytensor.telemetry.views import amount, minutes, paid, setup


def write_report(folder: Path | str) -> Path:
    """Write report.html and the CSV files in a run folder; returns the path of the page.

    Raises `DataError` when the folder holds no events, or files that can't be read.
    """
    folder = Path(folder)
    history = History(read_events(folder / "events.jsonl"))
    summary = _summary(folder, history)
    config = folder / "config.yaml"
    mechanism = tables.mechanism_rows(folder, summary["neurons"])
    disk.write_text(folder / "neurons.csv", tables.as_csv(tables.neuron_rows(summary["neurons"])))
    disk.write_text(folder / "rounds.csv", tables.as_csv(tables.round_rows(history)))
    if mechanism:
        disk.write_text(folder / "mechanism.csv", tables.as_csv(mechanism))
    parts = [
        page.facts(_facts(history, summary)),
        page.plots(draw(history)) or "<p>No round is over yet: there is nothing to draw.</p>",
        page.bullets("Why nothing was paid", unpaid_lines(summary)),
        page.bullets("Failures and warnings", _troubles(history, summary)),
        tables.miners(summary["neurons"]),
        tables.others(summary["neurons"]),
        tables.mechanism(mechanism),
        page.configuration(config.read_text() if config.is_file() else ""),
    ]
    target = folder / "report.html"
    disk.write_text(target, page.page(str(summary["name"]), _sentence(history, summary), parts, _made_with(summary)))
    return target


def _summary(folder: Path, history: History) -> Mapping[str, Any]:
    """A summary made of the events, with what only the folder's own summary has, unless the run went on after it."""
    known: dict[str, Any] = {"machine": {}, "versions": {}, "disk_bytes": disk_use(folder)}
    try:
        stored = json.loads((folder / "summary.json").read_text())
        if stored["rounds"] == len(history.rounds) and history.stopped is not None:
            known |= {name: stored[name] for name in known if name in stored}
            known["heldout"] = {neuron["hotkey"]: neuron["heldout_loss"] for neuron in stored["neurons"]}
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError) as error:
        fix = "remove it to report from the events"
        raise DataError(f"{folder / 'summary.json'}: not a summary ({error}); {fix}") from error
    return build_summary(history, name=folder.resolve().name, **known)


def _sentence(history: History, summary: Mapping[str, Any]) -> str:
    roles = Counter(neuron["role"] for neuron in summary["neurons"])
    how = {"finished": "finished", None: "not ended yet, or killed"}.get(history.stopped, f"ended: {history.stopped}")
    began = time.strftime(", started %Y-%m-%d %H:%M:%S UTC", time.gmtime(history.started_at or 0))
    rounds = f"{summary['rounds']} of {summary['rounds_planned']} rounds, seed {summary['seed']}"
    who = f"{roles['miner']} miners and {roles['validator']} validators"
    return f"{who}, {rounds}, {how}{began if history.started_at is not None else ''}."


def _facts(history: History, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    chain, counts, neurons = summary["chain"], summary["extrinsics"], summary["neurons"]
    asked = summary["responses"] + sum(summary["failures"].values())
    sessions = f" in {history.sessions} sessions" if history.sessions > 1 else ""
    fees = sum(summary["fees_rao"].values())
    by_call = ", ".join(f"{call} {amount(rao)}" for call, rao in sorted(summary["fees_rao"].items()) if rao)
    shares = [(part, "-" if share is None else f"{share:.0%}") for part, share in summary["time_share"].items()]
    endpoint = f"{chain['endpoint'] or '-'}, netuid {_or_dash(summary['netuid'])}"
    return [
        ("wall time", minutes(summary["wall_s"]) + sessions),
        ("responses scored", f"{summary['responses']} of {asked}"),
        ("extrinsics", f"{counts['submitted']} sent, {counts['included']} included, {counts['failed']} failed"),
        ("fees", f"{amount(fees)} TAO" + (f" ({by_call})" if by_call else "")),
        ("paid at set-up", setup(summary)),
        ("chain", f"block {_or_dash(chain['last_block'])}, {chain['epochs']} epochs, tempo {chain['tempo']}"),
        ("endpoint", f"{endpoint}, spec {_or_dash(chain['spec_version'])}"),
        ("paid to neurons", paid(neurons)),
        ("better models earn more", _order(neurons)),
        ("time of the rounds", ", ".join(f"{part} {share}" for part, share in shares)),
        ("disk", disk_sentence(summary["disk_bytes"]) or "-"),
    ]


def _order(neurons: Sequence[Mapping[str, Any]]) -> str:
    """Rank correlation of what models are worth and earn, by their held-out losses where all have one."""
    miners = [n for n in neurons if n["role"] == "miner" and n["incentive"] is not None]
    honest = [n for n in miners if n["behaviour"] in HONEST]
    name, key = "held-out loss", "heldout_loss"
    if any(n[key] is None for n in honest):
        name = key = "loss"
    pairs = [(n[key], n["incentive"]) for n in honest if n[key] is not None]
    order = spearman([-loss for loss, _ in pairs], [incentive for _, incentive in pairs])
    return "-" if order is None else f"Spearman {order:.2f} of {name} and incentive over {len(pairs)} honest miners"


def _troubles(history: History, summary: Mapping[str, Any]) -> list[str]:
    """Failures and warnings, each with how often."""
    items = [f"no answer ({reason}): {count}" for reason, count in sorted(summary["failures"].items())]
    receipts = sorted(history.receipts.items())
    items += [f"{call}: {fate}, {count}" for (call, fate), count in receipts if fate != "included"]
    for name, count in history.errors.most_common():
        items.append(f"chain error {name}: {count}" + (f" ({history.advice[name]})" if history.advice[name] else ""))
    seen = Counter(event.text + (f" ({event.fix})" if event.fix else "") for event in history.warnings)
    return items + [line if count == 1 else f"{line}: {count} times" for line, count in seen.items()]


def _made_with(summary: Mapping[str, Any]) -> str:
    machine, parts = summary["machine"], []
    if machine:
        cores = f"{machine['cpus']} cores of {machine['processor']}, {machine['memory_bytes'] / 2**30:.0f} GiB"
        parts = [f"{cores}, {machine['system']}", *machine["gpus"]]
    parts.append(", ".join(f"{name} {version}" for name, version in summary["versions"].items()))
    return "; ".join(part for part in parts if part)


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)
