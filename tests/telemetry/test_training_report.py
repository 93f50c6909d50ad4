"""The report and the lines of `raytensor train`, from its events."""

from __future__ import annotations

import io
import threading

import rich.console

from raytensor.jobs.train import ProgressTail
from raytensor.telemetry import events as ev
from raytensor.telemetry.event_log import EventLog
from raytensor.telemetry.tracker import Tracker
from raytensor.telemetry.training_report import write_training_report
from raytensor.telemetry.training_view import TrainingView

SUMMARY = {
    "name": "<b>job</b>", "model": "tiny", "engine": "ddp", "ranks": 2, "steps": 20, "steps_planned": 20,
    "stopped": "finished", "tokens": 4096, "heldout_loss": 4.5, "loss": 4.25, "tokens_per_s": 1234.5,
}  # fmt: skip


def step(number: int, heldout: float | None = None) -> ev.TrainStep:
    return ev.TrainStep(
        step=number, steps=20, loss=5.0, rate=1e-3, tokens_per_s=1000.0, eta_s=61.0, ranks=2, heldout=heldout, mfu=0.25
    )


def test_the_page_loads_nothing_and_shows_what_was_trained(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        log.append(step(10))
        log.append(step(20, heldout=4.5))
    text = write_training_report(tmp_path, SUMMARY).read_text()
    assert "default-src 'none'" in text and "<script" not in text and "&lt;b&gt;job&lt;/b&gt;" in text
    assert text.count("<svg") == 2 and "4.500 nats per token" in text and "4,096" in text and "1,234 tokens/s" in text


def test_plain_lines(tmp_path):
    out = rich.console.Console(file=io.StringIO(), width=120, highlight=False)
    with TrainingView(tmp_path, out) as view:
        for event in (
            ev.Started(name="job", rounds=20), ev.Phase(text="starting"), step(10), step(20, heldout=4.5),
            ev.Warned(text="slow [x]", fix="buy"), ev.BlockSeen(1, 2, 3), ev.Stopped(reason="finished"),
            ev.Stopped(reason="no disk"),
        ):  # fmt: skip
            view.show(event)
    assert out.file.getvalue().splitlines() == [
        f"training job in {tmp_path}",
        "starting",
        "step 10/20  loss 5.000  1,000 tokens/s  2 rank(s)  MFU 25.0%  1:01 to go",
        "step 20/20  loss 5.000  held-out 4.500  1,000 tokens/s  2 rank(s)  MFU 25.0%  1:01 to go",
        "warning: slow [x]",
        "  fix: buy",
        "stopped: no disk",
    ]


def test_a_damaged_line_of_progress_costs_no_other(tmp_path):
    """Before, the thread that follows the file ended at the first line that it could not read."""
    file, shown, lines = tmp_path / "training.jsonl", [], threading.Event()

    def show(event):
        shown.append(event.text)
        if len(shown) == 3:
            lines.set()

    with ProgressTail(file, show, Tracker(), every_s=0.01):
        file.write_text('{"warning": "one"}\nnot JSON\n[1]\n{"warning": "two"}\n{"warn')
        with file.open("a") as more:
            more.write('ing": "three"}\n')
        assert lines.wait(60), shown
        with file.open("a") as more:
            more.write('{"warning": "the last, as it ends"}\n')
    assert shown == ["one", "two", "three", "the last, as it ends"]
