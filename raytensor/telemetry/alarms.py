"""Delivers alarms to a webhook and to a command, in the background, for as long as their cause lasts.

In: the sentence and facts of each place that is in alarm, and when it no longer is. Out: a POST of JSON, a run of a
command; both redacted. One message tells all that has changed within `GATHER_S`: one alarm as its own facts, several
as `alarms` and `ended`. While anything stands, the message is repeated after `watch.repeat_s`, then after twice as
long, up to `watch.repeat_most_s`. When nothing stands any more, one last message says so.
Bounds: each channel has a thread and keeps the newest facts of each place. A delivery that fails is tried again after
each of `PAUSES_S`, then every `SLOW_S` without end, with what stands then; the change to that pace is reported once.
Knows nothing of what an alarm means.
"""

import asyncio
import json
import logging
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from raytensor.config.operators import Alerts
from raytensor.errors import ConfigError
from raytensor.supervised import SupervisedThread
from raytensor.telemetry.redact import redact

log = logging.getLogger(__name__)

Facts = Mapping[str, Any]
Lost = Callable[[str, int, str], None]  # called with (channel, number of alarms that are not delivered yet, why)

LIMIT_S = 15.0  # of one delivery
GATHER_S = 1.0  # in which changes become one message
PAUSES_S = (2.0, 10.0, 60.0, 300.0)
SLOW_S = 600.0
SHOWN = 100  # places that one message lists with their facts; the sentence says how many there are


class Refused(Exception):
    """A delivery that failed. The text never holds the address. again: whether a retry soon may help."""

    def __init__(self, why: str, again: bool = True) -> None:
        super().__init__(why)
        self.again = again


@dataclass(frozen=True)
class Pace:
    """When a channel delivers. repeat_s, repeat_most_s: first and longest pause between repeats; see the module."""

    repeat_s: float = 900.0
    repeat_most_s: float = 14_400.0
    pauses_s: tuple[float, ...] = PAUSES_S
    slow_s: float = SLOW_S
    gather_s: float = GATHER_S


class Channel:
    """The places in alarm and the thread that tells of them. deliver: raises `Refused` when it fails."""

    def __init__(self, name: str, deliver: Callable[[Facts], None], lost: Lost, pace: Pace = Pace()) -> None:
        self.name, self._deliver, self._lost, self._pace = name, deliver, lost, pace
        self._standing: dict[Hashable, Facts] = {}
        self._ended: dict[Hashable, Facts] = {}  # not told yet
        self._tried: set[Hashable] = set()  # places of which somebody may have heard
        self._failures = self._repeats = 0  # in a row; deliveries since the last change
        self._changed = threading.Condition()
        self._is_new = self._delivering = self._closing = False
        SupervisedThread(f"alarms-{name}", self._turn).start()

    def send(self, place: Hashable, facts: Facts, *, standing: bool) -> None:
        """Take in an alarm, or the end of one; returns at once."""
        with self._changed:
            self._standing.pop(place, None)
            self._ended.pop(place, None)
            if standing:
                self._standing[place] = facts
            elif place in self._tried:
                self._ended[place] = facts
            self._is_new = True
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Wait until what is new is delivered, at most `timeout_s`; then end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._failures or not (self._is_new or self._delivering), timeout_s)

    def _turn(self, thread: SupervisedThread) -> bool:
        """Wait until a message is due and deliver it. False: the channel is closed."""
        if not self._wait():
            return False
        with self._changed:
            standing, ended = dict(self._standing), dict(self._ended)
            self._tried |= set(standing)
            self._is_new, self._delivering = False, bool(standing or ended)
            self._changed.notify_all()
        if standing or ended:
            self._after(*self._failure(standing, ended), standing, ended)
        return True

    def _wait(self) -> bool:
        """Until a message is due: something is new, a repeat, another try. False: the channel is closed."""
        with self._changed:
            if self._failures:  # what is new waits, too: the channel is down
                pauses = [*self._pace.pauses_s, self._pace.slow_s]
                pause_s = pauses[min(self._failures, len(pauses)) - 1]
                return not self._changed.wait_for(lambda: self._closing, pause_s)
            repeat_s = self._pace.repeat_s * 2.0 ** min(30, max(0, self._repeats - 1))
            pause_s = min(repeat_s, self._pace.repeat_most_s) if self._standing else None
            self._changed.wait_for(lambda: self._is_new or self._closing, pause_s)
            if self._is_new:
                self._repeats = 0
                self._changed.wait_for(lambda: self._closing, self._pace.gather_s)
            return self._is_new or not self._closing

    def _after(self, why: str, again: bool, standing: dict[Hashable, Facts], ended: dict[Hashable, Facts]) -> None:
        slow = len(self._pace.pauses_s)
        with self._changed:
            before = self._failures
            if why:
                self._failures = before + 1 if again else max(before, slow) + 1
            else:
                self._failures, self._repeats = 0, self._repeats + 1
                self._ended = {place: one for place, one in self._ended.items() if ended.get(place) is not one}
                self._tried -= set(ended) - set(self._standing)
            self._delivering = False
            self._changed.notify_all()
        if before <= slow < self._failures:
            number = len(standing) + len(ended)
            log.error("%d alarms were not delivered by the %s: %s", number, self.name, why)
            self._lost(self.name, number, why)

    def _failure(self, standing: Mapping[Hashable, Facts], ended: Mapping[Hashable, Facts]) -> tuple[str, bool]:
        """Deliver a message. Returns why it failed ("" if it did not), and whether a retry soon may help."""
        try:
            self._deliver(_message(standing, ended, self._repeats))
        except Refused as refused:
            return str(refused), refused.again
        except Exception as error:  # the channel's edge: a failing channel stops nothing else
            return type(error).__name__, True
        return "", False


def _message(standing: Mapping[Hashable, Facts], ended: Mapping[Hashable, Facts], repeats: int) -> dict[str, Any]:
    """One alarm, or the end of one, as its own facts; several with a sentence that names their subnets."""
    again = {"repeat": repeats} if repeats else {}
    if len(standing) + len(ended) == 1:
        (facts,) = [*standing.values(), *ended.values()]
        return {**facts, "sentence": f"still: {facts['sentence']}" if repeats else facts["sentence"], **again}
    parts = []
    if standing:
        first, more = next(iter(standing.values()))["sentence"], len(standing) - 1
        rest = f" (and {more} more)" if more else ""
        parts.append(f"{'still ' if repeats else ''}{len(standing)} alarms{_subnets(standing)}: {first}{rest}")
    if ended:
        clear = "" if standing else "all clear: "
        parts.append(f"{clear}{len(ended)} alarms ended{_subnets(ended)}")
    lists = {"alarms": list(standing.values())[:SHOWN], "ended": list(ended.values())[:SHOWN]}
    return {"sentence": "; ".join(parts), "num_alarms": len(standing), "num_ended": len(ended), **lists, **again}


def _subnets(places: Mapping[Hashable, Facts]) -> str:
    netuids = sorted({facts["netuid"] for facts in places.values() if isinstance(facts.get("netuid"), int)})
    return f" on subnet{'s' * (len(netuids) > 1)} {', '.join(map(str, netuids))}" if netuids else ""


class Alarms:
    """The channels that are configured.

    Raises `ConfigError` when the webhook's variable is not set or holds no http address.
    """

    def __init__(self, cfg: Alerts, lost: Lost, *, pace: Pace | None = None, limit_s: float = LIMIT_S) -> None:
        url, command = webhook(cfg), shlex.split(cfg.command or "")
        pace = pace or Pace(cfg.repeat_s, cfg.repeat_most_s)
        self._standing: set[Hashable] = set()
        self._channels = []
        if url:
            self._channels.append(Channel("webhook", partial(post, url, limit_s=limit_s), lost, pace))
        if command:
            run = partial(_run_command, command, limit_s=limit_s)
            self._channels.append(Channel("command", run, lost, pace))

    @property
    def standing(self) -> frozenset[Hashable]:
        """The places in alarm."""
        return frozenset(self._standing)

    def send(self, place: Hashable, sentence: str, facts: Facts, *, standing: bool = True) -> None:
        """A place is in alarm, or no longer; returns at once. facts: JSON values; "netuid" names a subnet."""
        (self._standing.add if standing else self._standing.discard)(place)
        redacted = redact({"sentence": sentence, **facts})
        for channel in self._channels:
            channel.send(place, redacted, standing=standing)

    def close(self, timeout_s: float = 2.0) -> None:
        """Wait for what is new, at most `timeout_s` in all."""
        end = time.monotonic() + timeout_s
        for channel in self._channels:
            channel.close(max(0.0, end - time.monotonic()))


def post(url: str, facts: Facts, limit_s: float) -> None:
    """POST facts as JSON within `limit_s` seconds. Raises `Refused` for any answer but 2xx."""
    # "text" and "content" are the keys that Slack's and Discord's incoming webhooks show.
    request("POST", url, limit_s, {"text": facts["sentence"], "content": facts["sentence"], **facts})


def request(method: str, url: str, limit_s: float, body: Facts | None = None) -> None:
    """Send a request within `limit_s` seconds, however slowly the other side answers. Follows no redirect.

    Raises `Refused` for any answer but 2xx and for none; its text never holds the address, which may be a secret.
    """
    import aiohttp  # only where an address is set; its time-out bounds the whole exchange, urllib's each read

    async def status() -> int:
        timeout, headers = aiohttp.ClientTimeout(total=limit_s), {"User-Agent": "raytensor"}
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True, headers=headers) as session:
            async with session.request(method, url, json=body, allow_redirects=False) as answer:
                return answer.status

    try:
        answered = asyncio.run(status())
    except TimeoutError:
        raise Refused(f"no answer within {limit_s:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Refused(f"{type(error).__name__}") from None
    if not 200 <= answered < 300:
        raise Refused(f"it answered {answered}", again=answered >= 500 or answered in (408, 429))


def _run_command(command: Sequence[str], facts: Facts, limit_s: float) -> None:
    words, pipe = [*command, str(facts["sentence"])], subprocess.PIPE
    null = subprocess.DEVNULL  # not a pipe: a process that the command leaves running could keep it open
    try:
        child = subprocess.Popen(words, stdin=pipe, stdout=null, stderr=null, text=True, start_new_session=True)
    except OSError as error:
        raise Refused(f"it can't be started: {error.strerror}", again=False) from None
    try:
        child.communicate(json.dumps(dict(facts)), timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise Refused(f"it did not end within {limit_s:g} s") from None
    if child.returncode:
        raise Refused(f"its exit status was {child.returncode}")


def webhook(cfg: Alerts) -> str:
    """The webhook's address, "" for none. Raises `ConfigError` when the variable holds no http address."""
    return address_in(cfg.webhook_env, "webhook_env")


def address_in(variable: str | None, setting: str) -> str:
    """The address in an environment variable, "" for no variable. Raises `ConfigError` if it holds no http address."""
    if variable is None:
        return ""
    url = os.environ.get(variable, "")
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"watch.{setting}={variable!r}: the environment has no http address under that name")
    return url
