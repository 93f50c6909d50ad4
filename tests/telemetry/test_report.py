"""The report: one file that needs nothing else, for finished, killed and hostile runs, the same bytes each time."""

from __future__ import annotations

import csv
import html.parser
import json
import re
import xml.etree.ElementTree as ET
from functools import partial

import pytest

from raytensor import cli
from raytensor.errors import DataError
from raytensor.telemetry import events as ev
from raytensor.telemetry.event_log import EventLog
from raytensor.telemetry.history import History
from raytensor.telemetry.plots import MAX_LINES, draw, spearman, thinned
from raytensor.telemetry.report import write_report
from raytensor.telemetry.runfolder import RunFolder
from raytensor.telemetry.summary import build_summary

TITLES = [
    "Loss per miner",
    "Incentive per miner",
    "Pay against loss",
    "Weight matrix",
    "Blocks and extrinsics",
    "Where the time went",
]


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page; checks that tags close in order."""

    VOID = {"meta", "path", "use", "image", "rect", "br"}

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def folder_of(path, events, summary=True):
    with RunFolder(path) as folder, EventLog(folder.events) as log:
        for event in events:
            log.append(event)
        if summary:
            folder.write_summary(build_summary(History(events)))
        folder.write_config({"name": "demo", "seed": 0})
    return path


def test_one_file_that_loads_nothing(tmp_path, run_events):
    path = write_report(folder_of(tmp_path / "demo", run_events))
    text = path.read_text()
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert (
        path == tmp_path / "demo" / "report.html"
        and "script" not in names
        and "link" not in names
        and "iframe" not in names
    )
    for _, attrs in page.tags:
        for key in ("src", "href", "xlink:href"):
            assert attrs.get(key, "#").startswith(("#", "data:image/png;base64,"))
    # What looks like an address is the name of an XML namespace, or text.
    assert set(re.findall(r"https?://[\w./]+", text)) == {"http://www.w3.org/1999/xlink"}
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text and "default-src 'none'" in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_the_facts_and_every_neuron_are_there(tmp_path, run_events):
    page = Page(write_report(folder_of(tmp_path / "demo", run_events)).read_text())
    text = " ".join(page.texts)
    assert "8 miners and 3 validators, 12 of 12 rounds, seed 0, finished, started 2023-11-14 22:13:20 UTC." in text
    for fact in (
        "1:34",
        "252 of 288",
        "50 sent, 50 included, 0 failed",
        "block 174, 7 epochs, tempo 20",
        "Spearman 1.00 of loss and incentive over 6 honest miners",
        "no answer (silent): 36",
    ):
        assert fact in text
    assert "training 60%, asking 10%, scoring 15%, chain 10%, idle 5%" in text
    rows = sum(tag == "tr" for tag, _ in page.tags)
    assert rows == (1 + 8) + (1 + 4)
    assert [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"] == TITLES
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_plots_are_well_formed_and_take_the_colours_of_the_page(run_events):
    plots = draw(History(run_events))
    assert list(plots) == TITLES
    for svg in plots.values():
        assert ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)).tag.endswith("svg")
        assert "var(--ink)" in svg and "#010101" not in svg and not re.search(r'<svg[^>]* (width|height)="', svg)
    assert plots["Loss per miner"].count("miner-") == 7  # the silent one never had a loss
    assert "miner-7 (silent)" in plots["Incentive per miner"]


def test_the_same_folder_gives_the_same_bytes(tmp_path, run_events):
    folder = folder_of(tmp_path / "demo", run_events)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_a_killed_run_without_summary(tmp_path, run_events):
    folder = folder_of(tmp_path / "demo", run_events[:100], summary=False)
    text = " ".join(Page(write_report(folder).read_text()).texts)
    assert "of 12 rounds, seed 0, not ended yet, or killed" in text


def test_a_summary_older_than_the_events_is_not_used(tmp_path, run_events):
    folder = folder_of(tmp_path / "demo", run_events)
    summary = json.loads((folder / "summary.json").read_text())
    summary["neurons"][4]["heldout_loss"] = 1.375
    (folder / "summary.json").write_text(json.dumps(summary))
    assert ">1.375<" in write_report(folder).read_text()
    (folder / "summary.json").write_text(json.dumps(summary | {"rounds": 11}))
    assert ">1.375<" not in write_report(folder).read_text()


def test_a_run_that_never_got_going(tmp_path):
    folder = folder_of(
        tmp_path / "demo", [ev.Started(name="demo", rounds=3, t=1.0), ev.Stopped(reason="no chain", t=2.0)]
    )
    text = " ".join(Page(write_report(folder).read_text()).texts)
    assert "there is nothing to draw" in text and "ended: no chain" in text


def test_names_and_texts_of_others_stay_text(tmp_path):
    bad = '<img src=x onerror=alert(1)>"$\\frac$'
    neurons = (ev.NeuronInfo(0, bad, "miner", bad, bad), ev.NeuronInfo(1, "5V", "validator", "", bad))
    events = [
        ev.Started(name=bad, rounds=1, t=1.0),
        ev.NetworkUp(endpoint=bad, netuid=1, spec_version=1, tempo=2, neurons=neurons, t=2.0),
        ev.EpochSeen(block=2, incentive={bad: 1.0}, dividends={}, emission_rao={}, t=2.5),
        ev.WeightsMade(round=1, hotkey="5V", values={bad: 1.0}, t=2.6),
        ev.ReceiptSeen(call=bad, signer=bad, fate="failed", error=bad, t=2.7),
        ev.RoundDone(round=1, rounds=1, wall_s=1.0, losses={bad: 2.0}, values={bad: 1.0}, failures={bad: 2}, t=3.0),
        ev.Warned(text=bad, fix=bad, t=3.5),
        ev.Stopped(reason=bad, t=4.0),
    ]
    page = Page(write_report(folder_of(tmp_path / "demo", events)).read_text())
    assert "img" not in {tag for tag, _ in page.tags} and not any("onerror" in attrs for _, attrs in page.tags)
    assert sum(bad in text for text in page.texts) >= 8


@pytest.mark.parametrize(("miners", "validators", "rounds"), [(1, 1, 1), (100, 2, 3), (30, 17, 2)])
def test_odd_sizes(tmp_path, make_events, miners, validators, rounds):
    path = write_report(folder_of(tmp_path / "demo", make_events(miners, validators, rounds)))
    assert path.stat().st_size < 1_500_000
    Page(path.read_text())


def test_long_runs_are_thinned():
    assert (
        thinned(list(range(1000)))[0] == 0
        and thinned(list(range(1000)))[-1] == 999
        and len(thinned(list(range(1000)))) == 300
    )
    assert thinned([1, 2]) == [1, 2] and MAX_LINES == 64


def test_spearman_by_hand():
    assert spearman([1, 2, 3, 4], [10, 20, 30, 35]) == pytest.approx(1.0, abs=1e-12)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0, abs=1e-12)
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.8, abs=1e-12)  # 1 - 6*4 / (5*24)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486832980505138, abs=1e-12)  # 4.5 / sqrt(4.5 * 5)
    assert spearman([1, 2], [1, 2]) is None and spearman([1, 1, 1], [1, 2, 3]) is None


def test_the_command(tmp_path, run_events, capsys):
    folder = folder_of(tmp_path / "demo", run_events)
    assert cli.main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert cli.main(["report", str(tmp_path / "nowhere")]) == 1
    assert "no events to read" in capsys.readouterr().err
    (folder / "summary.json").write_text("{")
    with pytest.raises(DataError, match="summary.json: not a summary"):
        write_report(folder)


def test_csv_files_beside_the_report_hold_exact_numbers(tmp_path, run_events):
    folder = folder_of(tmp_path / "demo", run_events)
    place = folder / "boards" / "round-000012"
    place.mkdir(parents=True)
    validators, miners = (sorted(set(keys)) for keys in _hotkeys(run_events))
    for number, validator in enumerate(validators):
        entry = {"loss": 4.25 + number, "status": "open", "fingerprint": [1.0, 2.0]}
        (place / f"{validator}.json").write_text(json.dumps({"miners": {miners[0]: entry}}))
    page = Page(write_report(folder).read_text())
    neurons, rounds, own = (
        list(csv.DictReader((folder / name).open())) for name in ("neurons.csv", "rounds.csv", "mechanism.csv")
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert [(row["uid"], row["emission_rao"], row["loss"]) for row in neurons] == [
        (str(n["uid"]), str(n["emission_rao"]), "" if n["loss"] is None else str(n["loss"])) for n in summary["neurons"]
    ]
    last = next(event for event in reversed(run_events) if isinstance(event, ev.RoundDone))
    assert len(rounds) == 12 * 7 and [float(row["loss"]) for row in rounds[-7:]] == [
        last.losses[key] for key in miners[:7]
    ]
    assert [(row["validator"], row["miner"], row["loss"], row["status"]) for row in own] == [
        ("validator-0", "miner-0", "4.25", "open"),
        ("validator-1", "miner-0", "5.25", "open"),
        ("validator-2", "miner-0", "6.25", "open"),
    ]
    assert "fingerprint" not in own[0] and "The mechanism's numbers, of validator validator-0" in " ".join(page.texts)


def _hotkeys(events):
    neurons = next(event for event in events if isinstance(event, ev.NetworkUp)).neurons
    return ([n.hotkey for n in neurons if n.role == role] for role in ("validator", "miner"))


def test_fees_alpha_stake_and_the_texts_of_failures_are_shown(tmp_path):
    neurons = (ev.NeuronInfo(0, "5M", "miner", "honest", "m"), ev.NeuronInfo(1, "5V", "validator", "", "v"))
    call = "SubtensorModule.set_weights"
    up = partial(ev.NetworkUp, "ws://x", 1, 1, 2, neurons, 0, t=2.0)
    events = [
        ev.Started(name="demo", rounds=1, t=1.0),
        up({"fees": 1_500_000, "subnet": 1_000_000_000, "registrations": 998_500_001}),
        up({"fees": 100_000, "subnet": 0, "registrations": 0}),  # of a second process, which resumed
        ev.RoundDone(round=1, rounds=1, wall_s=1.0, losses={"5M": 2.0}, values={"5M": 1.0}, t=3.0),
        ev.WeightsMade(round=1, hotkey="5V", values={"5M": 1.0}, t=3.1),
        ev.ReceiptSeen(call=call, signer="5V", fate="included", block=5, fee_rao=150_000_000, t=3.2),
        ev.ReceiptSeen(call=call, signer="5V", fate="failed", error="TooFast", action="wait: x", fee_rao=50_000_000),
        ev.EpochSeen(
            block=9, incentive={"5M": 1.0}, dividends={"5V": 1.0}, emission_rao={"5M": 2_000_000_000},
            emission_alpha_rao={"5M": 4_000_000_000}, stake_alpha_rao={"5V": 70_500_000_000},
            validator_trust={"5V": 0.75}, alpha_price_rao=500_000_000, t=3.4,
        ),
        ev.Stopped(reason="finished", t=4.0),
    ]  # fmt: skip
    page = Page(write_report(folder_of(tmp_path / "demo", events)).read_text())
    text = " ".join(page.texts)
    for shown in (
        f"0.2000 TAO ({call} 0.2000)",
        "2.0001 TAO (fees 0.0016, subnet 1.0000, registrations 0.9985)",
        "4.0000 alpha, worth 2.0000 TAO when it was paid",
        "chain error TooFast: 1 (wait: x)",
        "70.5000",
        "0.7500",
    ):
        assert shown in text, shown
    assert {"5M", "5V"} <= {attrs.get("title") for tag, attrs in page.tags if tag == "code"}
