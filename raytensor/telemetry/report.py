"""report.html: the outcome of a run on one page that needs nothing else: no network, no script.

In: a run folder with events.jsonl and, as far as they are there, summary.json and config.yaml; the run may be over,
killed or still running. Out: `report.html` in the folder. The same folder gives the same bytes.
Knows nothing of Ray, torch or the chain.
"""

from __future__ import annotations

import argparse
import html
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raytensor.errors import DataError
from raytensor.telemetry.event_log import read_events
from raytensor.telemetry.history import PARTS, History
from raytensor.telemetry.page import CSS
from raytensor.telemetry.runfolder import write_text
from raytensor.telemetry.summary import build_summary
from raytensor.telemetry.views import minutes, number, tao


def write_report(folder: Path | str) -> Path:
    """Write `report.html` in a run folder and return its path.

    Raises `DataError` when the folder holds no events, or files that can't be read.
    """
    from raytensor.telemetry.plots import draw  # matplotlib takes a second, which `--help` should not

    folder = Path(folder)
    history = History(read_events(folder / "events.jsonl"))
    summary = _summary(folder, history)
    config = folder / "config.yaml"
    page = _page(history, summary, draw(history), config.read_text() if config.is_file() else "")
    target = folder / "report.html"
    write_text(target, page)
    return target


def report_main(argv: Sequence[str]) -> int:
    """`raytensor report FOLDER...`: write the reports again. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="raytensor report",
        description="Write report.html of a run folder again, from its events; also of a run that is running or was killed.",
        epilog="example: raytensor report runs/demo",
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help="a run folder, <paths.runs>/<name>")
    for folder in parser.parse_args(list(argv)).folders:
        print(write_report(folder))
    return 0


def _summary(folder: Path, history: History) -> Mapping[str, Any]:
    """The folder's summary, or one made of the events when there is none or the run went on after it."""
    try:
        summary = json.loads((folder / "summary.json").read_text())
        if summary["rounds"] == len(history.rounds) and history.stopped is not None:
            return summary
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / 'summary.json'}: not a summary ({error}); remove it to report from the events"
        ) from error
    return build_summary(history, name=folder.resolve().name, machine={}, versions={})


# ------------------------------------------------------------------------------------------------------------ page


def _page(history: History, summary: Mapping[str, Any], plots: Mapping[str, str], config: str) -> str:
    name = html.escape(str(summary["name"]))
    figures = "\n".join(
        f"<figure><figcaption>{html.escape(title)}</figcaption>\n{svg}\n</figure>" for title, svg in plots.items()
    )
    parts = [
        f"<header><h1>{name}</h1><p>{html.escape(_sentence(history, summary))}</p></header>",
        f"<dl>{''.join(_fact(label, value) for label, value in _facts(history, summary))}</dl>",
        f'<section class="plots">\n{figures}\n</section>'
        if figures
        else "<p>No round is over yet: there is nothing to draw.</p>",
        _troubles(history, summary),
        f'<section><h2>Neurons</h2><div class="scroll">{_neurons(summary["neurons"])}</div></section>',
        f"<details><summary>Configuration</summary><pre>{html.escape(config)}</pre></details>" if config else "",
        f"<footer>{html.escape(_made_with(summary))}</footer>",
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # The page is made of other people's names and texts: nothing in it may load or run.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        f"<title>{name} · RayTensor</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _sentence(history: History, summary: Mapping[str, Any]) -> str:
    miners = sum(n["role"] == "miner" for n in summary["neurons"])
    validators = sum(n["role"] == "validator" for n in summary["neurons"])
    how = {"finished": "finished", None: "not ended yet, or killed"}.get(history.stopped, f"ended: {history.stopped}")
    began = (
        ""
        if history.started_at is None
        else time.strftime(", started %Y-%m-%d %H:%M:%S UTC", time.gmtime(history.started_at))
    )
    return f"{miners} miners and {validators} validators, {summary['rounds']} of {summary['rounds_planned']} rounds, seed {summary['seed']}, {how}{began}."


def _facts(history: History, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    from raytensor.telemetry.plots import spearman

    chain, counts = summary["chain"], summary["extrinsics"]
    honest = [
        (n["heldout_loss"], n["incentive"])
        for n in summary["neurons"]
        if n["role"] == "miner"
        and n["behaviour"] in ("", "honest")
        and n["heldout_loss"] is not None
        and n["incentive"] is not None
    ]
    order = spearman([-loss for loss, _ in honest], [incentive for _, incentive in honest])
    asked = summary["responses"] + sum(summary["failures"].values())
    minted = sum(n["emission_rao"] for n in summary["neurons"])
    found = [
        (
            "wall time",
            minutes(summary["wall_s"]) + (f" in {history.sessions} sessions" if history.sessions > 1 else ""),
        ),
        ("responses scored", f"{summary['responses']} of {asked}"),
        ("extrinsics", f"{counts['submitted']} sent, {counts['included']} included, {counts['failed']} failed"),
        ("chain", f"block {_or_dash(chain['last_block'])}, {chain['epochs']} epochs, tempo {chain['tempo']}"),
        (
            "endpoint",
            f"{chain['endpoint'] or '-'}, netuid {_or_dash(summary['netuid'])}, spec {_or_dash(chain['spec_version'])}",
        ),
        ("paid to neurons", f"{tao(minted)} TAO"),
        (
            "better models earn more",
            f"Spearman {order:.2f} over {len(honest)} honest miners" if order is not None else "-",
        ),
        ("time of the rounds", ", ".join(f"{part} {_percent(summary['time_share'][part])}" for part in PARTS)),
    ]
    return found


def _fact(label: str, value: str) -> str:
    return f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>"


def _troubles(history: History, summary: Mapping[str, Any]) -> str:
    """Failures and warnings, each with how often, or nothing."""
    items = [f"no answer ({reason}): {count}" for reason, count in sorted(summary["failures"].items())]
    items += [
        f"{call}: {fate}, {count}" for (call, fate), count in sorted(history.receipts.items()) if fate != "included"
    ]
    items += [f"chain error {name}: {count}" for name, count in history.errors.most_common()]
    seen: dict[str, int] = {}
    for event in history.warnings:
        line = event.text + (f" ({event.fix})" if event.fix else "")
        seen[line] = seen.get(line, 0) + 1
    items += [line if count == 1 else f"{line}: {count} times" for line, count in seen.items()]
    if not items:
        return ""
    return (
        "<section><h2>Failures and warnings</h2><ul>"
        + "".join(f"<li>{html.escape(item)}</li>" for item in items)
        + "</ul></section>"
    )


def _neurons(neurons: Sequence[Mapping[str, Any]]) -> str:
    heads = (
        "uid",
        "name",
        "hotkey",
        "role",
        "behaviour",
        "held-out loss",
        "score",
        "weight",
        "incentive",
        "dividends",
        "emission (TAO)",
    )
    ranks = any(n.get("standing") for n in neurons)  # a mechanism that says where each miner stands
    heads = (*heads[:5], *(["standing"] if ranks else []), *heads[5:])
    lines = []
    for n in sorted(neurons, key=lambda n: (n["role"] == "miner", -(n["incentive"] or 0.0), n["uid"])):
        miner, validator = n["role"] == "miner", n["role"] == "validator"
        behaviour = n["behaviour"]
        cells = (
            str(n["uid"]),
            html.escape(n["name"]),
            f"<code>{html.escape(n['hotkey'])}</code>",
            n["role"],
            f'<span class="{"good" if behaviour == "honest" else "bad"}">{html.escape(behaviour)}</span>'
            if behaviour
            else "",
            *([html.escape(n["standing"])] if ranks else []),
            number(n["heldout_loss"]) if miner else "",
            number(n["score"]) if miner else "",
            number(n["weight"], 4) if miner else "",
            number(n["incentive"], 4) if miner else "",
            number(n["dividends"], 4) if validator else "",
            tao(n["emission_rao"]),
        )
        lines.append(
            "<tr>"
            + "".join(
                f"<td>{cell}</td>" if title != "standing" else f'<td class="word">{cell}</td>'
                for title, cell in zip(heads, cells, strict=True)
            )
            + "</tr>"
        )
    head = "".join(f"<th>{title}</th>" if title != "standing" else f'<th class="word">{title}</th>' for title in heads)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table>"


def _made_with(summary: Mapping[str, Any]) -> str:
    machine, versions = summary["machine"], summary["versions"]
    parts = []
    if machine:
        parts.append(
            f"{machine['cpus']} cores of {machine['processor']}, {machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}"
        )
        parts += machine["gpus"]
    parts.append(", ".join(f"{name} {version}" for name, version in versions.items()))
    return "; ".join(part for part in parts if part)


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
