"""The terminal: exact pieces, a screen at most, plain lines without a terminal, the terminal given back."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace

import pytest
import rich.console

from raytensor.telemetry import events as ev
from raytensor.telemetry import tables
from raytensor.telemetry.console import Console
from raytensor.telemetry.history import History
from raytensor.telemetry.summary import build_summary
from raytensor.telemetry.views import amount, bar, ends, final_table, live_view, minutes, round_line, short, sparkline


def rendered(renderable, width: int, height: int) -> list[str]:
    out = rich.console.Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    out.print(renderable)
    return out.file.getvalue().split("\n")[:-1]


def plain(width: int = 120) -> rich.console.Console:
    return rich.console.Console(file=io.StringIO(), width=width, highlight=False)


def test_pieces():
    assert sparkline([0.0, 0.5, 1.0, 2.0], 0.0, 2.0, 3) == "▃▅█"
    assert sparkline([1.0, 1.0], 1.0, 1.0, 8) == "▁▁"
    assert [bar(share, 4) for share in (0.0, 0.25, 0.28125, 1.0, 7.0)] == ["    ", "█   ", "█▏  ", "████", "████"]
    assert short("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY") == "5Grw…utQY" and short("5Val") == "5Val"
    assert [minutes(s) for s in (None, 0.4, 65.0, 59.6, 7209.0)] == ["-", "0:00", "1:05", "1:00", "2:00:09"]
    assert [amount(rao) for rao in (0, 99_999, 100_000, 41_000_000_001, 10**18 + 999_900_000)] == [
        "0.0000",
        "0.0000",
        "0.0001",
        "41.0000",
        "1000000000.9999",
    ]


def test_ends_keep_both_and_count_the_rest():
    assert ends(range(5), 5) == (range(5), 0, ())
    first, left_out, last = ends(range(100), 10)
    assert (list(first), left_out, list(last)) == ([0, 1, 2, 3, 4, 5], 91, [97, 98, 99])
    assert len(first) + left_out + len(last) == 100


@pytest.mark.parametrize("miners", [1, 8, 64, 1000])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (200, 50)])
def test_the_live_view_fits_the_screen_and_loses_no_miner(make_events, miners, width, height):
    events = make_events(miners, 3)
    history = History(events)
    lines = rendered(live_view(history, "demo", events[-1].t, width, height), width, height)
    assert len(lines) <= height - 1 and max(map(len, lines)) <= width
    shown = sum(line.lstrip()[:1].isdigit() for line in lines)
    hidden = sum(int(line.split()[1]) for line in lines if line.strip().startswith("…"))
    assert shown + hidden == miners


def test_the_live_view_word_by_word(make_events):
    events = make_events(3, 1, rounds=4)
    text = "\n".join(rendered(live_view(History(events), "demo", events[-1].t, 80, 24), 80, 24))
    assert "raytensor · demo" in text and "round    4/4 " in text and "left about 0:00" in text
    assert "block        78 " in text and "tempo 18/20, epochs 2" in text
    assert "extrinsics 18 sent, 18 included, 0 failed" in text
    assert "now: playing rounds" in text and "dividends: validator-0 1.000" in text
    rows = [line.split() for line in text.splitlines() if " miner-" in line]
    assert [row[:3] for row in rows] == [
        ["2", "miner-0", "honest"],
        ["3", "miner-1", "honest"],
        ["4", "miner-2", "honest"],
    ]


@pytest.mark.parametrize(("width", "word"), [(80, "turned d…"), (120, "turned down")])
def test_where_miners_stand_is_shown_where_a_mechanism_says_it(make_events, width, word):
    events = make_events(3, 1, rounds=4)
    newest = next(event for event in reversed(events) if isinstance(event, ev.RoundDone))
    standings = dict.fromkeys(newest.losses, "turned down") | {min(newest.losses): "king"}
    shown = [replace(event, standings=standings) if event is newest else event for event in events]
    history = History(shown)
    lines = rendered(live_view(history, "demo", events[-1].t, width, 24), width, 24)
    rows = [line for line in lines if " miner-" in line]
    assert max(map(len, lines)) <= width and "king" in rows[0] and word in rows[1] and word in rows[2]
    assert " | king miner-0 | " in round_line(newest, history) and "king" not in round_line(newest, History(events))
    summary = build_summary(history)
    assert [n["standing"] for n in summary["neurons"]] == ["", "", "king", "turned down", "turned down"]
    assert "king" in "\n".join(rendered(final_table(summary, 120, 40), 120, 40))
    assert '<th class="word">standing</th>' in tables.miners(summary["neurons"])
    assert ">standing<" not in tables.miners(build_summary(History(events))["neurons"])


def test_before_anything_is_known():
    assert len(rendered(live_view(History(), "demo", 0.0, 80, 24), 80, 24)) == 6
    events = [
        ev.NetworkUp(
            endpoint="ws://x", netuid=1, spec_version=1, tempo=2, neurons=(ev.NeuronInfo(0, "5A", "miner", "honest"),)
        )
    ]
    assert "5A" in "\n".join(rendered(live_view(History(events), "demo", 0.0, 80, 24), 80, 24))


def test_names_are_not_markup():
    events = [
        ev.NetworkUp(
            endpoint="ws://x",
            netuid=1,
            spec_version=1,
            tempo=2,
            neurons=(ev.NeuronInfo(0, "5A", "miner", "[red]", "[bold]x"),),
        )
    ]
    text = "\n".join(rendered(live_view(History(events), "[b]", 0.0, 80, 24), 80, 24))
    assert "[bold]x" in text and "[red]" in text and "[b]" in text


def test_plain_lines_are_one_a_round_and_one_a_phase(run_events):
    out = plain()
    with Console("/runs/demo", 12, out=out) as console:
        assert not console.is_live
        for event in run_events:
            console.show(event)
    lines = out.file.getvalue().splitlines()
    rounds = sum(event.kind in ("round_done", "phase", "network_up", "started", "stopped") for event in run_events)
    assert len(lines) == rounds == 18
    assert lines[0] == "raytensor 0.1.0: run demo, 12 rounds, folder /runs/demo"
    assert lines[1] == "[   0.5 s] starting Ray (about 7 s)"
    assert lines[3] == "network: ws://127.0.0.1:40113, netuid 1, spec 318, tempo 20 blocks, 8 miners, 3 validators"
    start = "round 1/12 | 6.1 s | 13.7 responses/s | loss 6.072 to 7.790 | "
    why = "nothing paid yet: the validators give no miner a weight"
    assert lines[5].startswith(start + why) and " | best paid miner-0 0." in lines[-2]
    assert "extrinsics 17 sent, 17 included, 0 failed | no answer: silent 3" in lines[5]
    assert lines[-1] == "stopped: finished"
    assert "\x1b" not in out.file.getvalue()


def test_a_warning_is_said_once_with_its_fix():
    out = plain()
    with Console("/runs/demo", 1, out=out) as console:
        for _ in range(3):
            console.show(ev.Warned(text="no [room]", fix="buy a disk"))
    assert out.file.getvalue() == "warning: no [room] (buy a disk)\n"
    assert len(console.history.warnings) == 3


def test_final_table_lists_every_neuron(run_events):
    out = plain()
    with Console("/runs/demo", 12, past=run_events, out=out) as console:
        console.finish(build_summary(console.history))
    text = out.file.getvalue()
    assert sum(line.strip()[:2].strip().isdigit() and "5" in line for line in text.splitlines() if "…" in line) == 12
    assert "12 rounds in 94 s, block 174, extrinsics: 50 sent, 50 included, 0 failed\nfolder: /runs/demo\n" in text
    assert "nothing was paid: miner-7: no answer has a score\n" in text
    assert "held-out" in text and "paid alpha" in text
    assert "paid: alpha worth 53.2999 TAO when it was paid; fees: 0.0000 TAO\n" in text


def test_final_table_of_many_fits_a_screen(make_events):
    out = rich.console.Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    console = Console("/runs/demo", 12, live=False, past=make_events(200, 20), out=out)
    console.finish(build_summary(console.history))
    lines = out.file.getvalue().splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= 80
    assert (
        sum(int(line.split()[1]) for line in lines if line.strip().startswith("…"))
        + sum(line.strip()[:1].isdigit() for line in lines[2:-2])
        == 221
    )


PROGRAM = """
import sys, time
from raytensor.telemetry.console import Console
from raytensor.telemetry.events import Phase
with Console("/runs/demo", 3) as console:
    console.show(Phase(text="starting Ray"))
    print("a stray line")
    time.sleep(0.5)
    {end}
"""


def in_a_terminal(end: str) -> tuple[str, int, float]:
    """Output, exit status and seconds to the first output of a program on a terminal of 80 x 24."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color"}
    env.pop("COLUMNS", None), env.pop("LINES", None)
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(end=end)], stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=env
    )
    os.close(slave)
    data, first = b"", None
    try:
        while time.monotonic() < start + 120:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    chunk = os.read(master, 65536)
                except OSError:  # the other end is closed
                    break
                first = first or time.monotonic() - start
                data += chunk
            elif process.poll() is not None:
                break
        process.stderr.read()
        return data.decode(), process.wait(timeout=60), first
    finally:
        process.kill()
        os.close(master)


HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


@pytest.mark.parametrize(
    ("end", "status"), [("pass", 0), ("raise RuntimeError('boom')", 1), ("raise KeyboardInterrupt", -2)]
)
def test_the_terminal_is_given_back(end, status):
    text, rc, first = in_a_terminal(end)
    assert rc == status
    assert "starting Ray" in text and "a stray line" in text
    assert text.count(HIDE) == 1 and text.rindex(SHOW) > text.rindex(HIDE)
    assert first < 30.0


def test_only_rich_is_imported():
    heavy = {"numpy", "torch", "ray", "matplotlib", "wandb", "omegaconf", "hydra"}
    loaded = "{m.split('.')[0] for m in sys.modules}"
    program = f"import sys, raytensor.telemetry.console; print(sorted({loaded} & {heavy}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert done.stdout == "[]\n"
