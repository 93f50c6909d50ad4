"""Alarms on their way to a webhook and to a command. Nobody waits for them.

In: an alarm's sentence and facts, and the place that it is about. Out: a POST of JSON, a run of a command. Each way has a
thread of its own and holds at most one alarm of each place, the newest: an older one that could not be delivered yet is
of no use. Whatever goes out is redacted first. A way that fails is tried again after each of `PAUSES_S`; if it still
fails, what waits is given up, and that is told.
"""

from __future__ import annotations

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
from typing import Any

from raytensor.config.validate import Watch
from raytensor.errors import ConfigError
from raytensor.telemetry.redact import redact

log = logging.getLogger(__name__)

Facts = Mapping[str, Any]

LIMIT_S = 15.0  # of one try, in all
PAUSES_S = (2.0, 10.0, 60.0, 300.0)


class Refused(Exception):
    """A try that failed, in words that hold no address. again: whether another try may help."""

    def __init__(self, why: str, again: bool = True) -> None:
        super().__init__(why)
        self.again = again


class Courier:
    """One way. deliver: called in a thread of its own; raises `Refused`. lost: told (way, how many were given up, why)."""

    def __init__(
        self,
        name: str,
        deliver: Callable[[Facts], None],
        lost: Callable[[str, int, str], None],
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self.name, self._deliver, self._lost, self._pauses_s = name, deliver, lost, tuple(pauses_s)
        self._waiting: dict[Hashable, Facts] = {}
        self._changed = threading.Condition()
        self._closing = False
        threading.Thread(target=self._run, name=f"alarms-{name}", daemon=True).start()

    def send(self, place: Hashable, facts: Facts) -> None:
        """Hand in an alarm; returns at once."""
        with self._changed:
            self._waiting.pop(place, None)  # the newest goes to the end
            self._waiting[place] = facts
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Wait until all are delivered, at most so long; the rest is dropped."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout_s)
            self._closing = True
            self._changed.notify_all()

    def _run(self) -> None:
        failures = 0  # in a row
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                place, facts = next(iter(self._waiting.items()))
            try:
                self._deliver(facts)
                why, again = "", False
            except Refused as refused:
                why, again = str(refused), refused.again
            except Exception as error:  # the way's edge: an alarm that can't go out stops nothing
                why, again = type(error).__name__, True
            given_up = 0
            with self._changed:
                if again and failures < len(self._pauses_s):
                    self._changed.wait_for(lambda: self._closing, self._pauses_s[failures])
                    failures += 1
                    continue
                failures = 0
                if again:  # the way is down: what waits would fare no better
                    given_up = len(self._waiting)
                    self._waiting.clear()
                else:
                    given_up = int(bool(why))
                    if self._waiting.get(place) is facts:  # else a newer one came meanwhile
                        del self._waiting[place]
                self._changed.notify_all()
            if given_up:
                log.error("%d alarms were not delivered by the %s: %s", given_up, self.name, why)
                self._lost(self.name, given_up, why)


class Alarms:
    """The ways that are configured. lost: called with (way, how many alarms were given up, why).

    Raises `ConfigError` when the webhook's variable is not set or holds no http address.
    """

    def __init__(
        self,
        cfg: Watch,
        lost: Callable[[str, int, str], None],
        *,
        pauses_s: Sequence[float] = PAUSES_S,
        limit_s: float = LIMIT_S,
    ) -> None:
        url, command = webhook(cfg), shlex.split(cfg.command or "")
        self._couriers = []
        if url:
            self._couriers.append(Courier("webhook", lambda facts: post(url, facts, limit_s), lost, pauses_s))
        if command:
            self._couriers.append(
                Courier("command", lambda facts: _run_command(command, facts, limit_s), lost, pauses_s)
            )

    def send(self, place: Hashable, sentence: str, facts: Facts) -> None:
        """An alarm about a place; returns at once. facts: what JSON can hold."""
        told = redact({"sentence": sentence, **facts})
        for courier in self._couriers:
            courier.send(place, told)

    def close(self, timeout_s: float = 2.0) -> None:
        """Wait a moment for what is on its way."""
        end = time.monotonic() + timeout_s
        for courier in self._couriers:
            courier.close(max(0.0, end - time.monotonic()))


def post(url: str, facts: Facts, limit_s: float) -> None:
    """POST facts as JSON, in at most `limit_s` seconds, whatever the other side does. Follows no redirect.

    Raises `Refused` for any answer but 2xx and for none; its words never hold the address, which may be a secret.
    """
    import aiohttp  # its time-out bounds the whole exchange, urllib's only each read

    # "text" and "content" are what Slack's and Discord's incoming webhooks show.
    body = {"text": facts["sentence"], "content": facts["sentence"], **facts}

    async def once() -> int:
        timeout = aiohttp.ClientTimeout(total=limit_s)
        async with aiohttp.ClientSession(
            timeout=timeout, trust_env=True, headers={"User-Agent": "raytensor"}
        ) as session:
            async with session.post(url, json=body, allow_redirects=False) as answer:
                return answer.status

    try:
        status = asyncio.run(once())
    except TimeoutError:
        raise Refused(f"no answer within {limit_s:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Refused(f"{type(error).__name__}") from None
    if not 200 <= status < 300:
        raise Refused(f"it answered {status}", again=status >= 500 or status in (408, 429))


def _run_command(command: Sequence[str], facts: Facts, limit_s: float) -> None:
    try:
        # No pipe for what it prints: whatever it leaves running could hold that open for ever.
        child = subprocess.Popen(
            [*command, str(facts["sentence"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
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


def webhook(cfg: Watch) -> str:
    """Its address, "" for none. Raises `ConfigError` when the variable is not set or holds no http address."""
    if cfg.webhook_env is None:
        return ""
    url = os.environ.get(cfg.webhook_env, "")
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"watch.webhook_env={cfg.webhook_env!r}: the environment has no http address under that name")
    return url
