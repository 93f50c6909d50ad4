"""Alarms: what a webhook receives when weights stop counting; a bad webhook delays nothing beyond its bound."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
from hookkit import Hook

from raytensor.chain.reads.preflight import SubnetView
from raytensor.chain.reads.watchdog import LastTry
from raytensor.config.validate import Watch
from raytensor.errors import ConfigError
from raytensor.jobs.troubles import Trouble, clock_trouble
from raytensor.jobs.validate.watch import Watchdog
from raytensor.telemetry import events
from raytensor.telemetry.alarms import Alarms, Pace, Refused, post
from raytensor.telemetry.events import WeightsOverdue
from raytensor.telemetry.metrics import Meters
from raytensor.types import Fate

ME, OTHER = "5Grw" + "v" * 44, "5Fhn" + "w" * 44
LIMIT_S = 1.0
PAUSES_S = (0.05, 0.05)


@pytest.fixture
def hook_env(monkeypatch):
    def use(url: str) -> Watch:
        monkeypatch.setenv("MY_HOOK", url)
        return Watch(webhook_env="MY_HOOK")

    return use


class Lost:
    """What was given up, as (way, number, why)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, str]] = []
        self._came = threading.Event()

    def __call__(self, *what) -> None:
        self.told.append(what)
        self._came.set()

    def wait(self) -> list[tuple[str, int, str]]:
        assert self._came.wait(120)
        return self.told


def view(block: int, updated: int, **more) -> SubnetView:
    facts = {
        "netuid": 7,
        "mecid": 0,
        "block": block,
        "uid_of": {ME: 0},
        "permit": np.array([True]),
        "last_update": np.array([updated]),
        "tempo": 100,
        "rate_limit": 100,
    }
    return SubnetView(**{**facts, **more})


def test_the_webhook_hears_when_weights_stop_counting_and_when_they_count_again(hook_env):
    shown: list[events.Event] = []
    # What the chain's client said may hold an endpoint with a login: neither the event nor the alarm repeats it.
    failed = LastTry(
        60.0, Fate.FAILED, None, "no answer of wss://me:hunter2@node.example/?api_key=abcd", "fix: look at the endpoint"
    )
    with Hook() as hook, Watchdog(hook_env(hook.url), {7: [ME]}, shown.append, Meters()) as dog:
        dog.look(7, view(1000, 900), lambda *_: None)
        assert not shown and dog.health[7, ME].age_blocks == 100
        dog.look(7, view(1301, 1000), lambda *_: failed)
        dog.look(7, view(1301, 1000), lambda *_: failed)  # the same block again, and a later one: told once
        dog.look(7, view(1306, 1000), lambda *_: failed)
        overdue = hook.wait(1)[0]
        dog.look(7, view(1310, 1308), lambda *_: failed)
        again = hook.wait(2)[1]
        # A commit renews the chain's LastUpdate, but one that was never revealed is no weights.
        dropped = LastTry(
            60.0, Fate.FAILED, 1308, "TimelockedCommitDropped", "replan: x", unrevealed=2, unrevealed_s=600.0
        )
        dog.look(7, view(1315, 1312, commit_reveal=True), lambda *_: dropped)
        unrevealed = hook.wait(3)[2]
    cause = "no answer of wss://[redacted]@node.example/?api_key=[redacted] (1 min ago)"
    age = "none for 3.0 tempos (301 blocks)"
    sentence = f"subnet 7, hotkey {ME}: weights overdue, {age}, because {cause}; fix: look at the endpoint"
    assert overdue == {
        "text": sentence,
        "content": sentence,
        "sentence": sentence,
        "hotkey": ME,
        "netuid": 7,
        "mecid": 0,
        "block": 1301,
        "uid": 0,
        "permit": True,
        "commit_reveal": False,
        "tempo": 100,
        "last_update": 1000,
        "age_blocks": 301,
        "age_tempos": 3.01,
        "next_block": 1302,
        "due_block": None,
        "overdue": True,
        "cause": cause,
        "action": "fix: look at the endpoint",
    }
    assert (again["text"], again["overdue"], again["last_update"]) == (
        f"subnet 7, hotkey {ME}: weights in time",
        False,
        1308,
    )
    assert (
        unrevealed["overdue"]
        and unrevealed["cause"] == "2 commits of the last 10 min expired unrevealed (TimelockedCommitDropped)"
    )
    assert [(e.overdue, e.sentence) for e in shown if isinstance(e, WeightsOverdue)] == [
        (True, sentence),
        (False, f"subnet 7, hotkey {ME}: weights in time"),
        (True, unrevealed["sentence"]),
    ]
    assert "hunter2" not in json.dumps([overdue, again]) and hook.headers[0]["Content-Type"] == "application/json"


def test_a_start_is_given_its_first_rounds_once():
    """Weights of block 100 are old at the start in block 1000: an alarm comes after two tempos without any."""
    shown: list[events.Event] = []
    none = lambda *_: None  # noqa: E731

    def started(since, *blocks):
        shown.clear()
        dog = Watchdog(Watch(), {7: [ME, OTHER]}, shown.append, Meters(), since)
        for block in blocks:
            more = {"uid_of": {ME: 0, OTHER: 1}, "permit": np.array([True, True])}
            dog.look(7, view(block, 0, **more, last_update=np.array([100, 0])), none)
        return dog.since

    since = started(None, 1000, 1199, 1200)
    assert not shown and since == {f"7/{ME}": 1000, f"7/{OTHER}": 1000}
    assert started(since, 1150) == since and not shown  # a crash and a restart do not begin anew ...
    assert started(since, 1201) == since
    assert [(one.hotkey, one.overdue) for one in shown] == [(ME, True), (OTHER, True)]
    assert all(f"subnet 7, hotkey {one.hotkey}: " in one.sentence for one in shown)
    assert started({f"7/{ME}": 99}, 1000) == {f"7/{ME}": 1000, f"7/{OTHER}": 1000}  # ... unless weights came since
    assert not shown


def test_a_silent_chain_is_an_alarm_too(hook_env):
    shown: list[events.Event] = []
    with Hook() as hook, Watchdog(hook_env(hook.url), {7: [ME]}, shown.append, Meters()) as dog:
        for silent_s in (0.0, 299.0, 301.0, 302.0):
            dog.check_silence(silent_s, "" if not silent_s else "no answer within 20 s")
        told = hook.wait(1)
        dog.check_silence(0.0, "")
        told = hook.wait(2)
    assert [(one["text"], one["silent"], one["silent_s"]) for one in told] == [
        ("the chain has not answered for 301 s: no answer within 20 s", True, 301.0),
        ("the chain answers again", False, 0.0),
    ]
    assert [event.text for event in shown] == ["the chain has not answered for 301 s: no answer within 20 s"]


@pytest.mark.parametrize(
    "behaviour, why",
    [
        ("hang", "no answer within 1 s"),
        ("drip", "no answer within 1 s"),
        (500, "it answered 500"),
        (429, "it answered 429"),
        ("nonsense", "ClientResponseError"),
    ],
)
def test_a_webhook_that_fails_delays_nobody_and_is_tried_again_up_to_a_bound(hook_env, behaviour, why):
    lost, sent = Lost(), threading.Event()

    def behave(number):
        assert sent.wait(60)  # no try has failed before all alarms are handed in: that waits for no answer
        return behaviour

    with Hook(behave) as hook:
        limit_s = LIMIT_S if behaviour in ("hang", "drip") else 60.0
        alarms = Alarms(hook_env(hook.url), lost, pace=Pace(pauses_s=PAUSES_S), limit_s=limit_s)
        for number in range(1000):
            alarms.send((7, number % 3), "overdue", {"number": number})
        sent.set()
        (told,) = lost.wait()
        assert told == ("webhook", 3, why), "the newest alarm of each of three places"
        assert len(hook.bodies) == 1 + len(PAUSES_S)
        alarms.close(0.0)


def test_nobody_listens(hook_env):
    with Hook() as hook:
        url = hook.url
    lost = Lost()
    alarms = Alarms(hook_env(url), lost, pace=Pace(pauses_s=PAUSES_S), limit_s=60.0)
    alarms.send("here", "overdue", {})
    (told,) = lost.wait()
    assert told == ("webhook", 1, "ClientConnectorError"), "its address may be a secret"
    alarms.close(0.0)


def test_what_another_try_can_not_mend_is_tried_again_slowly(hook_env):
    """A redirect is not followed: where to, the other side decides."""
    lost, answers = Lost(), {0: 404, 1: 307, 2: 200}
    with Hook(answers.__getitem__) as hook:
        alarms = Alarms(hook_env(hook.url), lost, pace=Pace(pauses_s=(600.0,), slow_s=0.05), limit_s=10.0)
        alarms.send("a", "late", {})
        assert [body["text"] for body in hook.wait(3)] == ["late"] * 3
        alarms.close(10.0)
    assert lost.told == [("webhook", 1, "it answered 404")], "told once"


def test_the_newest_is_delivered_once_the_webhook_is_back(hook_env):
    lost, renewed = Lost(), threading.Event()
    with Hook(lambda number: 503 if number == 0 and renewed.wait(60) else 200) as hook:
        alarms = Alarms(hook_env(hook.url), lost, pace=Pace(pauses_s=(0.3,)), limit_s=60.0)
        alarms.send((7, ME), "overdue", {"overdue": True})
        hook.wait(1)
        alarms.send((7, ME), "in time", {"overdue": False}, standing=False)
        renewed.set()
        assert hook.wait(2)[1] == {"text": "in time", "content": "in time", "sentence": "in time", "overdue": False}
        alarms.close(60.0)
        assert len(hook.bodies) == 2 and not lost.told, "what is out of date is not told"


def test_the_command_gets_the_sentence_and_the_facts(tmp_path):
    lost = Lost()
    script = tmp_path / "alarm.sh"
    script.write_text(
        f'echo "$1" > {tmp_path}/sentence; cat > {tmp_path}/facts; sleep 60 & echo done > {tmp_path}/done'
    )
    alarms = Alarms(Watch(command=f"sh {script}"), lost, pace=Pace(pauses_s=PAUSES_S), limit_s=60.0)
    started = time.monotonic()
    alarms.send("here", "subnet 7: it's late", {"netuid": 7})
    alarms.close(60.0)
    assert time.monotonic() - started < 50.0, "what a command leaves running is not waited for"
    assert (tmp_path / "sentence").read_text() == "subnet 7: it's late\n"
    assert (
        json.loads((tmp_path / "facts").read_text()) == {"sentence": "subnet 7: it's late", "netuid": 7}
        and not lost.told
    )


@pytest.mark.parametrize(
    "command, why",
    [
        ("sh -c 'exit 3'", "its exit status was 3"),
        ("sh -c 'sleep 60'", "it did not end within 1 s"),
        ("/no/such", "it can't be started: No such file or directory"),
    ],
)
def test_a_command_that_fails(command, why):
    lost = Lost()
    limit_s = LIMIT_S if "sleep" in command else 60.0
    alarms = Alarms(Watch(command=command), lost, pace=Pace(pauses_s=(0.05,)), limit_s=limit_s)
    alarms.send("here", "late", {})
    assert lost.wait() == [("command", 1, why)]
    alarms.close(0.0)


def test_a_lost_alarm_is_in_the_events(hook_env):
    shown: list[events.Event] = []
    came = threading.Event()

    def show(event):
        shown.append(event)
        came.set()

    dog = Watchdog(Watch(command="/no/such"), {7: [ME]}, show, Meters())
    dog.check_silence(999.0, "gone")
    end = time.monotonic() + 120
    while len(shown) < 2 and time.monotonic() < end:
        came.wait(0.1)
    assert (shown[1].text, shown[1].fix) == (
        "1 alarms were not delivered by the command: it can't be started: No such file or directory",
        "look at watch.command",
    )


def test_an_address_that_is_none_is_refused_without_telling_it(hook_env, monkeypatch):
    with pytest.raises(ConfigError, match="watch.webhook_env='MY_HOOK': the environment has no http address") as told:
        Alarms(hook_env("file:///etc/hunter2"), Lost())
    assert "hunter2" not in str(told.value)
    monkeypatch.delenv("MY_HOOK")
    with pytest.raises(ConfigError):
        Alarms(Watch(webhook_env="MY_HOOK"), Lost())
    with pytest.raises(Refused) as refused:
        post("http://hunter2@:0/", {"sentence": ""}, 1.0)
    assert "hunter2" not in str(refused.value)


def test_what_is_wrong_beside_the_weights_is_told_when_it_begins_and_ends(hook_env):
    shown: list[events.Event] = []
    well = {what: Trouble("") for what in ("writer", "reader", "clock", "endpoints")}
    with Hook() as hook, Watchdog(hook_env(hook.url), {7: [ME]}, shown.append, Meters()) as dog:
        dog.check(well)
        assert not shown and not dog.troubles
        for age_s in (301.0, 302.0):
            stuck = Trouble(f"no progress for {age_s:.0f} s: database is locked", "look at the disk", age_s)
            dog.check(well | {"writer": stuck})
        assert dog.troubles == {"writer": "no progress for 302 s: database is locked"}
        told = hook.wait(1)[0]
        dog.check(well)
        again = hook.wait(2)[1]
    assert told["text"] == "writer: no progress for 301 s: database is locked" and told["fix"] == "look at the disk"
    assert again["text"] == "writer: in order again" and not dog.troubles
    assert [event.text for event in shown if isinstance(event, events.Warned)] == [told["text"], again["text"]]


@pytest.mark.parametrize(
    "skew_s, words",
    [
        (None, ""),
        (0.0, ""),
        (19.0, ""),
        (-19.0, ""),
        (90.0, "90 s ahead of the chain's"),
        (-90.0, "90 s behind"),
        (4e7, ""),
    ],
)
def test_the_clock_of_this_machine_is_judged(skew_s, words):
    assert words in clock_trouble(skew_s) and bool(words) == bool(clock_trouble(skew_s))
