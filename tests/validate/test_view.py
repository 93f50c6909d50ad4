"""The validator's table and lines as a person sees them, to the character."""

from __future__ import annotations

import io
import json
import threading

import pytest
import rich.console

from raytensor.jobs.validate.view import Shown, View, line_of
from raytensor.telemetry import events
from raytensor.telemetry.events import ReceiptSeen, RoundDone, SubnetFault, ValidatorUp, WeightsMade, WeightsOverdue

ME = "5GrwvaEF" + "x" * 40
ROWS = [
    Shown(1, 4096, 360, 17, 2, 12, 64, 60, 59, 4033, 0.175, 0, "waiting", ""),
    Shown(9, 4096, 99, 98, 1, -1, 0, 0, 0, 0, None, 0, "starting", ""),
    Shown(
        30,
        4096,
        360,
        3,
        2,
        4,
        8,
        0,
        0,
        2900,
        3.32,
        2,
        "failed",
        "again in 40 s: RuntimeError: the author of these rules made a mistake",
    ),
]


def screen(width: int, height: int) -> rich.console.Console:
    return rich.console.Console(
        file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=height, highlight=False
    )


def text_of(view: View, out: rich.console.Console) -> list[str]:
    with out.capture() as capture:
        out.print(view._table())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_table_on_paper():
    out = rich.console.Console(file=io.StringIO(), width=120, highlight=False)
    view = View("raytensor validate v", lambda: ROWS, as_json=False, out=out)
    view.table_once()
    assert [line.rstrip() for line in out.file.getvalue().splitlines()] == [
        "raytensor validate v",
        "netuid   epoch in  hotkeys  round  asked  answered  scored  weights set  tempos ago  state",
        "     1  17 of 360        2     12     64        60      59         4033         0.2  waiting",
        "     9   98 of 99        1      -      0         0       0        never           -  starting",
        (
            "    30   3 of 360        2      4      8         0       0         2900         3.3  "
            "overdue, failed: again in 40 s:"
        ),
        " " * 85 + "RuntimeError: the author of these",
        " " * 85 + "rules made a mistake",
    ]


def test_the_live_table_has_a_line_for_each_subnet_and_what_happened_last():
    out = screen(100, 20)
    view = View("raytensor validate v", lambda: ROWS, as_json=False, out=out)
    for number in range(9):
        view.show(events.Phase(text=f"phase {number}", t=0.0))
    found = text_of(view, out)
    assert found[1:5] == [
        "netuid   epoch in  hotkeys  round  asked  answered  scored  weights set  tempos ago  state",
        "     1  17 of 360        2     12     64        60      59         4033         0.2  waiting",
        "     9   98 of 99        1      -      0         0       0        never           -  starting",
        "    30   3 of 360        2      4      8         0       0         2900         3.3  overdue, faile…",
    ]
    assert [line[9:] for line in found[5:]] == [f"phase {number}" for number in range(3, 9)]


def test_on_a_small_screen_the_subnets_in_trouble_come_first():
    many = [Shown(n, 10, 360, 5, 1, 0, 1, 1, 1, 8, 0.0, 0, "waiting", "") for n in range(1, 41)]
    many[30] = Shown(31, 10, 360, 5, 1, 0, 1, 0, 0, 8, 0.0, 0, "stuck", "x")
    many[35] = Shown(36, 10, 360, 5, 1, 0, 1, 0, 0, 8, 4.0, 1, "waiting", "")
    out = screen(100, 10)
    view = View("v", lambda: many, as_json=False, out=out)
    view.show(events.Phase(text="asking", t=0.0))
    found = text_of(view, out)
    assert len(found) == 10
    assert [line.split()[0] for line in found[2:8]] == ["31", "36", "1", "2", "3", "4"]
    assert found[8] == "and 34 more subnets" and found[9].endswith(" asking")


def test_the_live_view_draws_while_others_tell_and_leaves_the_last_table():
    out = screen(110, 30)
    view = View("raytensor validate v", lambda: ROWS, as_json=False, out=out)
    with view:

        def tell():
            for n in range(300):
                view.show(events.Phase(text=f"phase {n}"))

        tellers = [threading.Thread(target=tell) for _ in range(3)]
        for one in tellers:
            one.start()
        while any(one.is_alive() for one in tellers):
            view._live.refresh()
        for one in tellers:
            one.join()
        view.show(events.Stopped(reason="interrupted"))
    last = out.file.getvalue().split("raytensor validate v")[-1]
    assert "     1  17 of 360        2     12     64        60      59         4033         0.2  waiting" in last
    assert "stopped: interrupted" in last


def test_json_is_one_object_a_line(capsys):
    view = View("v", lambda: ROWS, as_json=True)
    with view:
        view.show(SubnetFault(netuid=3, cause="x", rest_s=10.0, t=5.0))
        view.table_once()
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"kind": "subnet_fault", "t": 5.0, "netuid": 3, "cause": "x", "rest_s": 10.0}
    ]


@pytest.mark.parametrize(
    "event, line",
    [
        (
            ValidatorUp(name="v", network="wss://me:pw@node", netuids=(1, 3), hotkeys={ME: "w/h"}),
            "v: 1 hotkeys on subnets 1, 3 of wss://[redacted]@node",
        ),
        (
            RoundDone(
                netuid=1,
                round=4,
                block=77,
                miners=3,
                asked=6,
                answered=5,
                scored=4,
                wall_s=1.26,
                failures={"timeout": 1, "error": 1},
            ),
            "subnet 1: round 4 at block 77, 6 asked, 5 answered, 4 scored in 1.3 s (1 error, 1 timeout)",
        ),
        (
            RoundDone(netuid=1, round=4, block=77, miners=3, asked=6, answered=6, scored=6, wall_s=0.04),
            "subnet 1: round 4 at block 77, 6 asked, 6 answered, 6 scored in 0.0 s",
        ),
        (
            WeightsMade(netuid=1, hotkey=ME, values={"a": 1.0, "b": 2.0}, block=77),
            "subnet 1: weights of 5GrwvaEF for 2 miners handed to the chain writer",
        ),
        (
            ReceiptSeen(call="SubtensorModule.set_weights", signer=ME, fate="included", netuid=1, block=80),
            "subnet 1: weights of 5GrwvaEF included in block 80",
        ),
        (
            ReceiptSeen(
                call="SubtensorModule.set_weights", signer=ME, fate="failed", netuid=1, error="Banned", action="wait: x"
            ),
            "subnet 1: weights of 5GrwvaEF failed, Banned: wait: x",
        ),
        (SubnetFault(3, "RuntimeError: x", 20.0), "subnet 3 failed and rests for 20 s: RuntimeError: x"),
        (WeightsOverdue(3, ME, True, 3.1, "subnet 3: weights overdue"), "subnet 3: weights overdue"),
        (events.Warned(text="a", fix="b"), "warning: a (b)"),
        (events.Stopped(reason="finished"), "stopped: finished"),
        (events.BlockSeen(1, 2, 3), None),
    ],
)
def test_a_line_for_each_event(event, line):
    assert line_of(event) == line
