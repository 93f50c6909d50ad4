"""Are the weights in time? Judged by what the chain says, whatever the writer or we believe.

In: the views of the subnets, and the newest receipts. Out: a `Health` per (subnet, hotkey), an event when one becomes
overdue and when it is in time again, gauges for Prometheus (through Ray), a webhook and a command if configured.
Alarms go out in threads of their own, each with a time-out: nobody waits for them.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shlex
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raytensor.chain.preflight import SubnetView
from raytensor.chain.watchdog import Health, LastTry, judge
from raytensor.config.validate import Watch
from raytensor.errors import ConfigError
from raytensor.telemetry import events
from raytensor.telemetry.validate_events import WeightsOverdue

log = logging.getLogger(__name__)

ALARM_TIMEOUT_S = 15.0


class Watchdog:
    """hotkeys: netuid -> the hotkeys (ss58) that validate there."""

    def __init__(self, cfg: Watch, hotkeys: Mapping[int, Sequence[str]], show: Callable[[events.Event], None]) -> None:
        from ray.util.metrics import Gauge

        self._cfg, self._hotkeys, self._show = cfg, hotkeys, show
        self._webhook = _webhook(cfg)
        self._seen: dict[int, int] = {}  # netuid -> block of the view that was judged
        self.health: dict[tuple[int, str], Health] = {}
        self._age = Gauge("raytensor_weights_age_tempos", "Tempos since weights were set, the oldest of a subnet's hotkeys.", ("netuid",))
        self._overdue = Gauge("raytensor_weights_overdue", "Hotkeys of a subnet whose weights are overdue.", ("netuid",))
        self._blocks = Gauge("raytensor_blocks_since_update", "Blocks since weights were set, the oldest of a subnet's hotkeys.", ("netuid",))

    def look(self, netuid: int, view: SubnetView | None, last_try: Callable[[int, str], LastTry | None]) -> None:
        """Judge a subnet if its view is new."""
        if view is None or self._seen.get(netuid) == view.block:
            return
        self._seen[netuid] = view.block
        found = []
        for hotkey in self._hotkeys[netuid]:
            health = judge(view, hotkey, last_try(netuid, hotkey), overdue_tempos=self._cfg.overdue_tempos)
            before, self.health[netuid, hotkey] = self.health.get((netuid, hotkey)), health
            found.append(health)
            if health.overdue != (before is not None and before.overdue):
                self._tell(health)
        tags = {"netuid": str(netuid)}
        self._age.set(max(health.age_tempos for health in found), tags)
        self._blocks.set(max(health.age_blocks for health in found), tags)
        self._overdue.set(sum(health.overdue for health in found), tags)

    def of(self, netuid: int) -> list[Health]:
        """What was found of a subnet's hotkeys last."""
        return [health for (number, _), health in self.health.items() if number == netuid]

    def _tell(self, health: Health) -> None:
        self._show(
            WeightsOverdue(
                netuid=health.netuid, hotkey=health.hotkey, overdue=health.overdue, age_tempos=health.age_tempos, sentence=health.sentence
            )
        )  # fmt: skip
        (log.error if health.overdue else log.info)("%s: %s", health.hotkey, health.sentence)
        facts = dataclasses.asdict(health) | {"sentence": health.sentence}
        for send in (self._post, self._command):
            threading.Thread(target=_quietly, args=(send, facts), name="alarm", daemon=True).start()

    def _post(self, facts: Mapping[str, Any]) -> None:
        if self._webhook:
            # "text" and "content" are what Slack's and Discord's incoming webhooks show.
            body = json.dumps({"text": facts["sentence"], "content": facts["sentence"], **facts}).encode()
            request = urllib.request.Request(self._webhook, body, {"Content-Type": "application/json", "User-Agent": "raytensor"})
            urllib.request.urlopen(request, timeout=ALARM_TIMEOUT_S).close()

    def _command(self, facts: Mapping[str, Any]) -> None:
        if self._cfg.command:
            command = [*shlex.split(self._cfg.command), str(facts["sentence"])]
            subprocess.run(command, input=json.dumps(dict(facts)), text=True, timeout=ALARM_TIMEOUT_S, check=True, capture_output=True)


def _quietly(send: Callable[[Mapping[str, Any]], None], facts: Mapping[str, Any]) -> None:
    try:
        send(facts)
    except (OSError, ValueError, subprocess.SubprocessError) as error:  # an alarm that can't go out stops nothing
        log.error("the alarm could not be sent: %s", type(error).__name__)  # its address may be a secret


def _webhook(cfg: Watch) -> str:
    """The webhook's address. Raises `ConfigError` when its variable is not set or holds no http address."""
    if cfg.webhook_env is None:
        return ""
    url = os.environ.get(cfg.webhook_env, "")
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"watch.webhook_env={cfg.webhook_env!r}: the environment has no http address under that name")
    return url
