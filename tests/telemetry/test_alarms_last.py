"""Alarms that last: one message for many places, repeats, retries without end, one all clear, and a heartbeat."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from raytensor import config
from raytensor.config.validate import Watch
from raytensor.jobs.session import Session
from raytensor.jobs.validate.watch import Watchdog
from raytensor.telemetry import events
from raytensor.telemetry.alarms import Channel, Pace, Refused
from raytensor.telemetry.event_log import EventLog, read_events
from raytensor.telemetry.heartbeat import Heartbeat
from raytensor.telemetry.metrics import Meters

WAIT_S = 60.0
FAST = Pace(repeat_s=0.05, repeat_most_s=0.2, pauses_s=(0.01, 0.01), slow_s=0.02, gather_s=0.1)
NEVER = Pace(repeat_s=3600.0, repeat_most_s=3600.0, pauses_s=(0.01,), slow_s=0.01, gather_s=0.2)


class Heard:
    """What a channel delivered, and what it reported; `down`: deliveries that fail from now on."""

    def __init__(self, down: bool = False) -> None:
        self.messages: list[dict] = []
        self.failed, self.lost = 0, []
        self.down = down
        self._changed = threading.Condition()

    def deliver(self, facts) -> None:
        with self._changed:
            if self.down:
                self.failed += 1
            else:
                self.messages.append(dict(facts))
            self._changed.notify_all()
            if self.down:
                raise Refused("it answered 503")

    def report(self, *what) -> None:
        self.lost.append(what)

    def wait(self, ready) -> None:
        with self._changed:
            assert self._changed.wait_for(ready, WAIT_S), (self.messages, self.failed)


def facts(netuid: int, number: int = 0) -> dict:
    return {"sentence": f"subnet {netuid}: late {number}", "netuid": netuid}


def test_many_places_are_one_message_that_lists_their_subnets():
    heard = Heard()
    channel = Channel("webhook", heard.deliver, heard.report, NEVER)
    for netuid in (9, 3, 1):
        for number in range(40):
            channel.send((netuid, number), facts(netuid, number), standing=True)
    heard.wait(lambda: heard.messages)
    for netuid in (9, 3, 1):
        for number in range(40):
            channel.send((netuid, number), facts(netuid, number), standing=False)
    heard.wait(lambda: len(heard.messages) == 2)
    channel.close(WAIT_S)
    late, clear = heard.messages
    assert late["sentence"] == "120 alarms on subnets 1, 3, 9: subnet 9: late 0 (and 119 more)"
    assert (late["num_alarms"], late["num_ended"], len(late["alarms"])) == (120, 0, 100)
    assert clear["sentence"] == "all clear: 120 alarms ended on subnets 1, 3, 9" and clear["alarms"] == []


def test_an_alarm_is_repeated_while_it_stands_and_its_end_is_told_once():
    heard = Heard()
    channel = Channel("webhook", heard.deliver, heard.report, FAST)
    channel.send("a", facts(7), standing=True)
    heard.wait(lambda: len(heard.messages) >= 4)
    channel.send("a", {"sentence": "in time", "netuid": 7}, standing=False)
    heard.wait(lambda: heard.messages[-1]["sentence"] == "in time")
    told = len(heard.messages)
    channel.send("b", facts(8), standing=True)  # what comes after it is something else
    heard.wait(lambda: len(heard.messages) > told)
    channel.close(WAIT_S)
    sentences = [one["sentence"] for one in heard.messages]
    assert sentences[0] == "subnet 7: late 0" and set(sentences[1 : told - 1]) == {"still: subnet 7: late 0"}
    assert [one.get("repeat", 0) for one in heard.messages[: told - 1]] == list(range(told - 1))
    assert sentences.count("in time") == 1


def test_a_delivery_is_tried_again_without_end_and_reported_once():
    heard = Heard(down=True)
    channel = Channel("webhook", heard.deliver, heard.report, FAST)
    channel.send("a", facts(7), standing=True)
    heard.wait(lambda: heard.failed >= 8)
    channel.send("b", facts(8), standing=True)
    heard.wait(lambda: heard.failed >= 10)
    assert heard.lost == [("webhook", 1, "it answered 503")], "at the change to the slow pace, once"
    heard.down = False
    heard.wait(lambda: heard.messages)
    channel.close(WAIT_S)
    assert heard.messages[0]["num_alarms"] == 2, "what stands now, not what stood then"


def test_what_ended_before_anybody_was_told_is_told_to_nobody():
    heard = Heard()
    channel = Channel("webhook", heard.deliver, heard.report, NEVER)
    channel.send("a", facts(7), standing=True)
    channel.send("a", facts(7), standing=False)
    channel.send("b", facts(8), standing=True)
    heard.wait(lambda: heard.messages)
    channel.close(WAIT_S)
    assert [one["sentence"] for one in heard.messages] == ["subnet 8: late 0"]


class Monitor:
    """The other side of a heartbeat, on the loopback address."""

    def __init__(self, status: int = 200) -> None:
        self.calls: list[str] = []
        self.changed = threading.Condition()
        monitor = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with monitor.changed:
                    monitor.calls.append(self.path)
                    monitor.changed.notify_all()
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/ping/verysecret"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def wait(self, number: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.calls) >= number, WAIT_S)


def test_the_heartbeat_is_called_while_no_alarm_stands(monkeypatch):
    """From the first look at every subnet on; an alarm silences it, and its end lets it go on."""
    with Monitor() as monitor:
        monkeypatch.setenv("BEAT", monitor.url)
        shown: list[events.Event] = []
        watch = Watch(heartbeat_env="BEAT", heartbeat_s=0.001)
        with Watchdog(watch, {}, shown.append, Meters()) as dog:
            dog.beat()
            monitor.wait(1)
            dog.disk("events.jsonl: No space left on device")
            told = len(monitor.calls)
            for _ in range(100):
                dog.beat()
            dog.check_silence(9999.0, "gone")
            dog.disk("")
            for _ in range(100):
                dog.beat()
            assert len(monitor.calls) == told, "an alarm stands"
            dog.check_silence(0.0, "")
            dog.beat()
            monitor.wait(told + 1)
        assert monitor.calls == ["/ping/verysecret"] * len(monitor.calls)
        with Watchdog(watch, {7: ["5Key"]}, shown.append, Meters()) as dog:
            told = len(monitor.calls)
            for _ in range(100):
                dog.beat()
            assert len(monitor.calls) == told, "subnet 7 was not looked at yet"
    assert [event.text for event in shown if "written" in event.text] == [
        "files can't be written: events.jsonl: No space left on device"
    ]


def test_a_writer_that_stops_a_key_or_answers_nothing_is_an_alarm_at_once(tmp_path):
    told = tmp_path / "told"
    script = tmp_path / "alarm.sh"
    script.write_text(f'echo "$1" >> {told}')
    with Watchdog(Watch(command=f"sh {script}"), {}, lambda event: None, Meters()) as dog:
        dog.check_writer({}, 299.0)
        for silent_s in (0.0, 1.0):  # told once
            dog.check_writer({"5Key": "block 7 has extrinsic 0x1 of another program"}, silent_s)
        assert dog.alarms_standing == {"writer/5Key"}
        end = threading.Event()
        while not told.exists():
            assert not end.wait(0.02)
        dog.check_writer({}, 301.0)
        assert dog.alarms_standing == {"writer"}
        dog.check_writer({}, 0.0)
        assert dog.alarms_standing == set()
    lines = told.read_text().splitlines()
    assert lines[0] == "the chain writer sends nothing more for 5Key: block 7 has extrinsic 0x1 of another program"


def test_a_heartbeat_that_is_not_heard_raises_nothing_and_is_called_again(caplog):
    with Monitor(status=500) as monitor:
        beat = Heartbeat(monitor.url, every_s=0.0)
        beat.tick(True)
        monitor.wait(1)
        beat.tick(True)
        monitor.wait(2)
        beat.close()
    assert beat.num_heard == 0 and "verysecret" not in caplog.text


@contextlib.contextmanager
def full_disk(path):
    """The system refuses to write more to any file of this size or larger (RLIMIT_FSIZE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_event_is_written_whole_or_not_at_all(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.append(events.Phase(text="before"))
    with full_disk(log.path), pytest.raises(OSError):
        log.append(events.Phase(text="lost"))
    log.append(events.Phase(text="after"))
    log.close()
    assert [event.text for event in read_events(log.path)] == ["before", "after"]


class Seen:
    def __init__(self) -> None:
        self.shown: list[events.Event] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def show(self, event) -> None:
        self.shown.append(event)


def test_a_full_disk_ends_no_job_and_what_was_lost_is_counted(tmp_path):
    cfg = config.compose("validate", ["netuids=[1]", "hotkeys=[//Alice]", f"paths.runs={tmp_path}"])
    troubles: list[str] = []

    def work(session) -> None:
        session.begin()
        session.phase("one")
        troubles.append(session.trouble)
        with full_disk(session.folder.events):
            session.phase("two")
            session.phase("three")
            troubles.append(session.trouble)
        session.phase("four")
        troubles.append(session.trouble)

    session = Session("validate", cfg, lambda session: Seen(), resume="auto", rounds=None)
    assert session.run(work, lambda session, reason: None) == 0
    assert session.events_lost == 2
    path = session.folder.events
    assert troubles == ["", f"{path}: 2 events could not be written", ""]
    written = [(event.kind, getattr(event, "text", "")) for event in read_events(path)]
    lost = ("warned", "2 events before this one could not be written")
    assert written == [("phase", "one"), lost, ("phase", "four"), ("stopped", "")]
    texts = [event.text for event in session.view.shown if hasattr(event, "text")]
    assert texts == ["one", "two", f"{path} can't be written: File too large", "three", "four"], "all are shown"


@pytest.mark.parametrize("raised", [ValueError("view"), SystemExit(1), OSError(28, "No space left on device")])
def test_a_channel_whose_report_fails_delivers_what_comes_later(raised):
    """What is told of lost alarms may fail as well; the channel must not end by it."""
    heard, down = [], [True]

    def deliver(facts):
        if down[0]:
            raise raised if not isinstance(raised, SystemExit) else ConnectionError()
        heard.append(facts["sentence"])

    def lost(way, number, why):
        down[0] = False
        raise raised

    channel = Channel("test", deliver, lost, FAST)
    channel.send("a", {"sentence": "a is wrong"}, standing=True)
    end = time.monotonic() + 60
    while not heard:
        assert time.monotonic() < end, "the channel has ended"
        time.sleep(0.01)
    channel.close(5)
    assert "a is wrong" in heard[0]
