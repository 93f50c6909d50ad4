"""Delivers alarms to a webhook and to a command, in the background.

In: an alarm's sentence and facts, and the place that it is about. Out: a POST of JSON, a run of a command; both
redacted.
Bounds: each channel has a thread and queues at most one alarm of each place, the newest, which replaces an older one. A
delivery that fails is retried after each of `PAUSES_S`; after the last retry the queue is dropped and counted as lost.
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
from functools import partial
from typing import Any, Protocol

from raytensor.errors import ConfigError
from raytensor.telemetry.redact import redact

log = logging.getLogger(__name__)

Facts = Mapping[str, Any]
Lost = Callable[[str, int, str], None]  # called with (channel, number of alarms that were dropped, why)

LIMIT_S = 15.0  # of one delivery
PAUSES_S = (2.0, 10.0, 60.0, 300.0)


class AlarmSettings(Protocol):
    """webhook_env: name of the variable with the webhook's address; command: to run on an alarm."""

    webhook_env: str | None
    command: str | None


class Refused(Exception):
    """A delivery that failed. The text never holds the address. again: whether a retry may help."""

    def __init__(self, why: str, again: bool = True) -> None:
        super().__init__(why)
        self.again = again


class Channel:
    """A queue of alarms and the thread that delivers them. deliver: raises `Refused` when it fails."""

    def __init__(
        self, name: str, deliver: Callable[[Facts], None], lost: Lost, pauses_s: Sequence[float] = PAUSES_S
    ) -> None:
        self.name, self._deliver, self._lost, self._pauses_s = name, deliver, lost, tuple(pauses_s)
        self._queue: dict[Hashable, Facts] = {}
        self._changed = threading.Condition()
        self._closing = False
        threading.Thread(target=self._run, name=f"alarms-{name}", daemon=True).start()

    def send(self, place: Hashable, facts: Facts) -> None:
        """Queue an alarm; returns at once."""
        with self._changed:
            self._queue.pop(place, None)  # the newest goes to the end
            self._queue[place] = facts
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Wait until all are delivered, at most `timeout_s`; the rest is dropped."""
        with self._changed:
            self._changed.wait_for(lambda: not self._queue, timeout_s)
            self._closing = True
            self._changed.notify_all()

    def _run(self) -> None:
        failures = 0  # in a row
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if self._closing:
                    return
                place, facts = next(iter(self._queue.items()))
            why, again = self._failure(facts)
            with self._changed:
                if again and failures < len(self._pauses_s):
                    self._changed.wait_for(lambda: self._closing, self._pauses_s[failures])
                    failures += 1
                    continue
                failures = 0
                if again:  # the channel is down: what else is queued would fail, too
                    dropped = len(self._queue)
                    self._queue.clear()
                else:
                    dropped = int(bool(why))
                    if self._queue.get(place) is facts:  # else a newer one came meanwhile
                        del self._queue[place]
                self._changed.notify_all()
            if dropped:
                log.error("%d alarms were not delivered by the %s: %s", dropped, self.name, why)
                self._lost(self.name, dropped, why)

    def _failure(self, facts: Facts) -> tuple[str, bool]:
        """Deliver one alarm. Returns why it failed ("" if it did not), and whether a retry may help."""
        try:
            self._deliver(facts)
        except Refused as refused:
            return str(refused), refused.again
        except Exception as error:  # the channel's edge: a failing channel stops nothing else
            return type(error).__name__, True
        return "", False


class Alarms:
    """The channels that are configured.

    Raises `ConfigError` when the webhook's variable is not set or holds no http address.
    """

    def __init__(
        self, cfg: AlarmSettings, lost: Lost, *, pauses_s: Sequence[float] = PAUSES_S, limit_s: float = LIMIT_S
    ) -> None:
        url, command = webhook(cfg), shlex.split(cfg.command or "")
        self._channels = []
        if url:
            self._channels.append(Channel("webhook", partial(post, url, limit_s=limit_s), lost, pauses_s))
        if command:
            run = partial(_run_command, command, limit_s=limit_s)
            self._channels.append(Channel("command", run, lost, pauses_s))

    def send(self, place: Hashable, sentence: str, facts: Facts) -> None:
        """Send an alarm about a place; returns at once. facts: JSON values."""
        redacted = redact({"sentence": sentence, **facts})
        for channel in self._channels:
            channel.send(place, redacted)

    def close(self, timeout_s: float = 2.0) -> None:
        """Wait for queued alarms, at most `timeout_s` in all."""
        end = time.monotonic() + timeout_s
        for channel in self._channels:
            channel.close(max(0.0, end - time.monotonic()))


def post(url: str, facts: Facts, limit_s: float) -> None:
    """POST facts as JSON within `limit_s` seconds, however slowly the other side answers. Follows no redirect.

    Raises `Refused` for any answer but 2xx and for none; its text never holds the address, which may be a secret.
    """
    import aiohttp  # only where a webhook is set; its time-out bounds the whole exchange, urllib's each read

    # "text" and "content" are the keys that Slack's and Discord's incoming webhooks show.
    body = {"text": facts["sentence"], "content": facts["sentence"], **facts}

    async def status() -> int:
        timeout, headers = aiohttp.ClientTimeout(total=limit_s), {"User-Agent": "raytensor"}
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True, headers=headers) as session:
            async with session.post(url, json=body, allow_redirects=False) as answer:
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


def webhook(cfg: AlarmSettings) -> str:
    """The webhook's address, "" for none. Raises `ConfigError` when the variable holds no http address."""
    if cfg.webhook_env is None:
        return ""
    url = os.environ.get(cfg.webhook_env, "")
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"watch.webhook_env={cfg.webhook_env!r}: the environment has no http address under that name")
    return url
