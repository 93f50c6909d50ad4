"""The validator's table and lines as a person sees them, to the character."""

from __future__ import annotations

import io
import json
import threading

import pytest
import rich.console

from raytensor.chain.reads.watchdog import Health
from raytensor.jobs.validate.view import Shown, ShownHotkey, View, line_of
from raytensor.telemetry import events
from raytensor.telemetry.events import ReceiptSeen, RoundDone, SubnetFault, ValidatorUp, WeightsMade, WeightsOverdue
from raytensor.validators.operator import Clock, SubnetRow
from raytensor.validators.round import RoundResult

ME = "5GrwvaEF" + "x" * 40


def hotkey(netuid: int, name: str, uid: int | None = 3, last: int = 4033, overdue: bool = False, cause: str = ""):
    age = (4096 - last) / 360
    facts = (ME, netuid, 0, 4096, uid, not cause, False, 360, last, 4096 - last, age, 4100, overdue, cause, "fix: x")
    return ShownHotkey(netuid, name, Health(*facts), 1_234_567_890_123)


def shown(netuid: int, state: str, *hotkeys: ShownHotkey, cause: str = "", counts=None, epoch=(17, 360)) -> Shown:
    last = RoundResult(netuid, counts[0], 4096, 1, *counts[1:], 0.1) if counts else None
    row = SubnetRow(netuid, state, cause=cause, last=last)
    return Shown(row, Clock(4096, epoch[1], 4096 + epoch[0], None, {}, ""), hotkeys)


ROWS = [
    shown(1, "waiting", hotkey(1, "w/a"), hotkey(1, "w/b", uid=None, cause="x"), counts=(12, 64, 60, 59)),
    shown(9, "starting", ShownHotkey(9, "w/a"), epoch=(98, 99)),
    shown(
        30,
        "failed",
        hotkey(30, "w/a", 7, 2900, True, "it has no validator permit"),
        hotkey(30, "w/b", 8, 0, cause="it has no validator permit"),
        counts=(4, 8, 0, 0),
        epoch=(3, 360),
        cause="RuntimeError: the author of these rules made a mistake, "
        "and what the mechanism says about it is rather more than a screen is wide",
    ),
]
SUBNETS = [
    "netuid   epoch in  round  asked  answered  scored  state",
    "     1  17 of 360     12     64        60      59  waiting",
    "     9   98 of 99      -      0         0       0  starting",
]
CAUSE = "failed: RuntimeError: the author of these rules made a mistake, and"
HOTKEYS = [
    "netuid  hotkey  uid  permit  stake (alpha)  weights set  tempos ago  weights",
    "     1  w/a       3     yes      1234.5678         4033         0.2  in time",
    "     1  w/b       -       -              -            -           -  not registered",
    "     9  w/a       ?       ?              ?            ?           ?",
]


def screen(width: int, height: int) -> rich.console.Console:
    return rich.console.Console(
        file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=height, highlight=False
    )


def text_of(view: View, out: rich.console.Console) -> list[str]:
    with out.capture() as capture:
        out.print(view.table())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_table_on_paper():
    out = rich.console.Console(file=io.StringIO(), width=120, highlight=False)
    view = View("raytensor validate v", lambda: ROWS, as_json=False, out=out)
    view.table_once()
    assert [line.rstrip() for line in out.file.getvalue().splitlines()] == [
        "raytensor validate v",
        *SUBNETS,
        "    30   3 of 360      4      8         0       0  " + CAUSE,
        " " * 51 + "what the mechanism says about it is rather more than a screen is wide",
        *HOTKEYS,
        "    30  w/a       7      no      1234.5678         2900         3.3  overdue: it has no validator permit",
        "    30  w/b       8      no      1234.5678        never        11.4  it has no validator permit",
    ]


def test_the_live_table_has_a_line_for_each_subnet_and_hotkey_and_what_happened_last():
    out = screen(80, 24)
    view = View("raytensor validate v", lambda: ROWS, as_json=False, out=out)
    for number in range(9):
        view.show(events.Phase(text=f"phase {number}", t=0.0))
    found = text_of(view, out)
    assert found[1:14] == [
        *SUBNETS,
        "    30   3 of 360      4      8         0       0  failed: RuntimeError: the au…",
        *HOTKEYS[:2],
        HOTKEYS[2].replace("registered", "regist…"),
        HOTKEYS[3],
        "    30  w/a       7      no      1234.5678         2900         3.3  overdue: i…",
        "    30  w/b       8      no      1234.5678        never        11.4  it has no …",
        *found[11:14],
    ]
    assert [line[9:] for line in found[11:]] == [f"phase {number}" for number in range(3, 9)]


def test_on_a_small_screen_what_is_in_trouble_comes_first():
    many = [shown(n, "waiting", hotkey(n, "w/a"), counts=(0, 1, 1, 1)) for n in range(1, 41)]
    many[30] = shown(31, "stuck", hotkey(31, "w/a"), cause="x")
    many[35] = shown(36, "waiting", hotkey(36, "w/a", overdue=True, cause="late"))
    out = screen(100, 16)
    view = View("v", lambda: many, as_json=False, out=out)
    view.show(events.Phase(text="asking", t=0.0))
    found = text_of(view, out)
    assert len(found) == 16
    assert [line.split()[0] for line in found[2:7]] == ["31", "36", "1", "2", "3"]
    assert found[7] == "and 35 more subnets"
    assert [line.split()[0] for line in found[9:14]] == ["36", "1", "2", "3", "4"]
    assert found[14] == "and 35 more hotkeys" and found[15].endswith(" asking")


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
    assert SUBNETS[1] in last and HOTKEYS[1] in last
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
