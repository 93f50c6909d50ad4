"""What a miner is told of its fate: alarms begin once and end once, standings and traffic are shown on a change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raytensor.config.mine import MinerWatch
from raytensor.jobs.mine.standing import PruningRules
from raytensor.jobs.mine.view import line_of, traffic_line
from raytensor.jobs.mine.watch import Fate
from raytensor.jobs.troubles import Trouble
from raytensor.miners.serving import Traffic
from raytensor.telemetry import miner_events
from raytensor.telemetry.metrics import Meters
from raytensor.types import Metagraph

OWNER, VALIDATOR, MINE, OTHER = (f"5{name}{'x' * 40}" for name in ("Own", "Val", "Mine", "Oth"))
RULES = PruningRules(immunity_blocks=100, max_uids=4, min_non_immune=0, owner_limit=1, owner_hotkey=OWNER)


def graph(block: int, *, hotkeys=(OWNER, VALIDATOR, MINE, OTHER), incentive=(0, 0, 40000, 25535), axon="1.2.3.4:5"):
    n = len(hotkeys)
    zeros, paid = np.zeros(n, np.uint64), np.array(incentive[:n], np.uint64) * 10**5
    return Metagraph(
        netuid=7,
        block=block,
        block_hash="",
        tempo=10,
        last_epoch_block=block // 10 * 10,
        next_epoch_block=block // 10 * 10 + 10,
        hotkeys=tuple(hotkeys),
        coldkeys=tuple(hotkeys),
        axons=tuple(axon if hotkey == MINE else "" for hotkey in hotkeys),
        stake_alpha_rao=zeros,
        validator_permit=np.array([hotkey in (OWNER, VALIDATOR) for hotkey in hotkeys]),
        active=np.ones(n, bool),
        last_update=zeros,
        block_at_registration=np.full(n, 950, np.uint64),
        incentive=np.array(incentive[:n], np.uint16),
        dividends=zeros.astype(np.uint16),
        consensus=zeros.astype(np.uint16),
        validator_trust=zeros.astype(np.uint16),
        emission_alpha_rao=paid,
    )


class Recorder:
    """In the place of the alarms' channels: what would be sent."""

    def __init__(self) -> None:
        self.sent: list[tuple] = []

    def send(self, place, sentence, facts, *, standing) -> None:
        assert standing is facts["on"]
        self.sent.append((place, facts["on"], sentence))

    def close(self, timeout_s: float = 2.0) -> None:
        pass


@pytest.fixture
def told():
    """(fate, events shown, alarms sent)"""
    shown, alarms = [], Recorder()
    fate = Fate(MinerWatch(unreachable_s=1e-9, silent_s=5.0, near_pruning=2), [MINE], shown.append, Meters(), alarms)
    return fate, shown, alarms.sent


def test_a_standing_is_shown_after_an_epoch_and_when_it_changes(told):
    fate, shown, sent = told
    fate.look(graph(1000), RULES, [])
    (first,) = shown
    assert (first.uid, first.rank, first.num_miners, first.immune_blocks, first.replaced_in) == (2, 1, 2, 50, None)
    fate.look(graph(1003), RULES, [])
    assert len(shown) == 1, "only the block has changed"
    fate.look(graph(1010), RULES, [])
    fate.look(graph(1012, incentive=(0, 0, 20000, 45535)), RULES, [])
    assert [event.rank for event in shown] == [1, 1, 2] and not sent
    assert "rank 2 of 2" in line_of(shown[-1]) and "2.0000 alpha in the last tempo" in line_of(shown[-1])


def test_alarms_begin_once_and_end_once(told):
    fate, _, sent = told
    full = replace(RULES, immunity_blocks=0)
    fate.look(graph(1000), full, [MINE])  # the validator first, then OTHER, then MINE
    fate.look(graph(1001, incentive=(0, 5, 3, 4)), full, [MINE])  # MINE is the next
    fate.look(graph(1002, incentive=(0, 5, 3, 4)), full, [MINE])
    begun = {place[0]: text for place, on, text in sent if on}
    assert set(begun) == {"pruning", "axon"} and len(sent) == 2
    assert "about 1 registrations" in begun["pruning"] and "is not the address that is served" in begun["axon"]
    assert set(fate.wrong) == {("pruning", 7, MINE), ("axon", 7, MINE)}
    fate.look(graph(1003), full, [])
    assert [(place[0], on) for place, on, _ in sent[2:]] == [("pruning", False), ("axon", False)]
    fate.look(graph(1004, hotkeys=(OWNER, VALIDATOR, OTHER)), full, [])
    fate.look(graph(1005, hotkeys=(OWNER, VALIDATOR, OTHER)), full, [])
    assert [(place[0], on) for place, on, _ in sent[4:]] == [("registration", True)]
    assert fate.standings[7, MINE].uid is None


def test_silence_of_the_chain_and_of_the_address(told):
    fate, shown, sent = told
    for silent_s in (0.0, 4.0, 6.0, 60.0, 0.0, 0.0):
        fate.check_silence(silent_s, "no route")
    for unreachable_s in (0.0, 1.0, 2.0, 0.0):
        fate.check_reach(unreachable_s, "timed out")
    assert [(place[0], on) for place, on, _ in sent] == [
        ("chain", True),
        ("chain", False),
        ("reach", True),
        ("reach", False),
    ]
    assert all(isinstance(event, miner_events.MinerAlarm) for event in shown) and len(shown) == 4


def test_traffic_is_shown_when_there_was_some(told):
    fate, shown, _ = told
    one = Traffic({"ok": 3, "Refused": 2}, {VALIDATOR: 3})
    for traffic in (None, Traffic({}, {}), one, one):
        fate.look_at_traffic(traffic)
    assert shown == [miner_events.TrafficSeen(one.outcomes, one.callers, t=shown[0].t)]
    assert traffic_line(one.outcomes, one.callers) == f"3 answered (2 Refused); asked by {VALIDATOR[:8]} 3"


def test_what_prometheus_gets_of_a_miners_fate():
    """Of each subnet the worst of our hotkeys; validators by number, for a hotkey is never a tag."""
    known: dict[str, float] = {}

    class Kept(Meters):
        def set(self, name, value, **tags):
            known[name.removeprefix("raytensor_miner_")] = value

        def count(self, name, value=1.0, **tags):
            known[f"{name}{tags}"] = value

    fate = Fate(MinerWatch(near_pruning=2), [MINE, OTHER], lambda event: None, Kept(), Recorder())
    fate.look(graph(1000), RULES, [OTHER])
    fate.look_at_traffic(Traffic({"ok": 3, "Refused": 2}, {VALIDATOR: 2, OWNER: 1}))
    assert known.pop("incentive") == pytest.approx(1.0, abs=1e-4)
    assert known.pop("emission_alpha") == pytest.approx(6.5535)
    assert known == {
        "rank": 1,
        "replaced_in": -1,  # the validator is next, and then the newcomer in its place
        "immune_blocks": 50,  # registered at 950, immune for 100 blocks
        "unregistered": 0,
        "axons_wrong": 1,
        "callers": 2,
        "raytensor_requests_total{'outcome': 'ok'}": 3,
        "raytensor_requests_total{'outcome': 'Refused'}": 2,
    }


def test_the_chain_writer_and_the_parts_of_a_miner_are_alarms_that_end(told):
    """As for `validate`: a writer that makes no progress, answers nothing or has stopped a key; a thread that fails."""
    fate, shown, sent = told
    quiet = {what: Trouble("") for what in ("writer", "reader", "threads", "clock")}
    fate.check(quiet)
    fate.check_writer({}, 1.0)
    assert sent == [] and not fate.wrong
    fate.check(quiet | {"writer": Trouble("no progress for 9 s: disk I/O error", "look at the disk", 9.0)})
    fate.check(quiet | {"writer": Trouble("no progress for 10 s: disk I/O error", "look at the disk", 10.0)})
    fate.check_writer({MINE: "fix: another program"}, 6.0)
    assert [(place[0], on) for place, on, _ in sent] == [("trouble/writer", True), ("writer", True), ("writer", True)]
    texts = [sentence for _, _, sentence in sent]
    assert texts[0] == "writer: no progress for 9 s: disk I/O error; fix: look at the disk"
    assert "has not answered for 6 s" in texts[1] and "sends nothing more" in texts[2]
    assert "disk I/O error" in " ".join(fate.wrong.values()), "the view shows it"
    fate.check(quiet)
    fate.check_writer({}, 0.0)
    assert [on for _, on, _ in sent[3:]] == [False] * 3 and not fate.wrong
    assert [event.kind for event in shown] == ["miner_alarm"] * 6
