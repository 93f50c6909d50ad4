"""The watchdog: are weights on the chain in time? Decided by the state of the chain only.

In: the views of the subnets, the newest receipts, how long the chain has not answered. Out: a `Health` per (subnet,
hotkey); an event and an alarm when one becomes overdue and when it is in time again; gauges for Prometheus.
A validator that has just started is given `GRACE_TEMPOS` for its first weights. A restart does not renew them while no
weights were set. A chain that does not answer raises an alarm, too: nobody knows then whether weights are in time.
Waits for nothing.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Hashable, Mapping

from raytensor.chain.reads.preflight import SubnetView
from raytensor.chain.reads.watchdog import Health, LastTry, judge
from raytensor.config.validate import Watch
from raytensor.jobs.troubles import Trouble
from raytensor.telemetry import events
from raytensor.telemetry.alarms import Alarms, address_in
from raytensor.telemetry.heartbeat import Heartbeat
from raytensor.telemetry.metrics import Meters
from raytensor.telemetry.redact import redact_text

log = logging.getLogger(__name__)


class Watchdog:
    """hotkeys: netuid -> the hotkeys (ss58) that validate there. A context manager: alarms end with it.

    since   "netuid/hotkey" -> block of the start from which its first weights are awaited; of earlier processes, too.
    health  the newest of each (netuid, hotkey).

    Raises `ConfigError` for a webhook that can't be used.
    """

    def __init__(
        self,
        cfg: Watch,
        hotkeys: Mapping[int, Collection[str]],
        show: Callable[[events.Event], None],
        meters: Meters,
        since: Mapping[str, int] | None = None,
    ) -> None:
        self._cfg, self._hotkeys, self._show, self._meters = cfg, hotkeys, show, meters
        self._alarms, self.since = Alarms(cfg, self._lost), dict(since or {})
        self._seen: dict[int, int] = {}  # netuid -> block of the view that was judged
        self._silent, self._disk = False, ""
        self._writer: dict[str, str] = {}  # what is wrong with the chain writer, by the alarm's place
        self._heartbeat = Heartbeat(address_in(cfg.heartbeat_env, "heartbeat_env"), cfg.heartbeat_s)
        self.troubles: dict[str, str] = {}  # what is wrong beside the weights, and why
        self.health: dict[tuple[int, str], Health] = {}

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        self._heartbeat.close()
        self._alarms.close()

    @property
    def alarms_standing(self) -> frozenset[Hashable]:
        """The places that are in alarm."""
        return self._alarms.standing

    def beat(self) -> None:
        """Call the heartbeat's address if it is due and all is well: every subnet was judged, and no alarm stands.

        Called by the job's main loop, so that a loop that hangs is noticed, too.
        """
        well = not self._alarms.standing and set(self._seen) == set(self._hotkeys)
        self._heartbeat.tick(well)

    def disk(self, trouble: str) -> None:
        """Raise or end the alarm of files that can't be written. trouble: "" where they can."""
        if trouble == self._disk:
            return
        before, self._disk = self._disk, trouble
        if bool(before) != bool(trouble):
            sentence = f"files can't be written: {trouble}" if trouble else "files can be written again"
            if trouble:
                fix = "free space under paths.runs: rounds rest meanwhile, and what is shown here is not recorded"
                self._show(events.Warned(text=sentence, fix=fix))
            self._alarms.send("disk", sentence, {"disk": trouble}, standing=bool(trouble))

    def look(self, netuid: int, view: SubnetView | None, last_try: Callable[[int, str], LastTry | None]) -> None:
        """Judge a subnet if its view is new."""
        if view is None or self._seen.get(netuid) == view.block:
            return
        first = netuid not in self._seen
        self._seen[netuid] = view.block
        found = []
        for hotkey in self._hotkeys[netuid]:
            since = self._since(view, hotkey, first)
            last, overdue_tempos = last_try(netuid, hotkey), self._cfg.overdue_tempos
            health = judge(view, hotkey, last, overdue_tempos=overdue_tempos, since=since)
            before, self.health[netuid, hotkey] = self.health.get((netuid, hotkey)), health
            found.append(health)
            if health.overdue != (before is not None and before.overdue):
                self._report(health)
        self._meters.set("raytensor_weights_age_tempos", max(health.age_tempos for health in found), netuid=netuid)
        self._meters.set("raytensor_blocks_since_update", max(health.age_blocks for health in found), netuid=netuid)
        self._meters.set("raytensor_weights_overdue", sum(health.overdue for health in found), netuid=netuid)

    def check_silence(self, silent_s: float, why: str) -> None:
        """Raise or end the alarm of a chain that has not answered for `silent_s` seconds; 0.0: it answers."""
        self._meters.set("raytensor_chain_silence_s", silent_s)
        silent = silent_s > self._cfg.silent_s
        if silent == self._silent:
            return
        self._silent = silent
        sentence = f"the chain has not answered for {silent_s:.0f} s: {why}" if silent else "the chain answers again"
        if silent:
            self._show(events.Warned(text=sentence, fix="it is asked again until it does"))
        self._alarms.send("chain", sentence, {"silent": silent, "silent_s": round(silent_s, 1)}, standing=silent)

    def check_writer(self, stopped: Mapping[str, str], silent_s: float) -> None:
        """Raise or end the alarms of keys that the chain writer has stopped, and of a writer that answers nothing."""
        wrong = {
            f"writer/{one}": f"the chain writer sends nothing more for {one}: {why}" for one, why in stopped.items()
        }
        if silent_s > self._cfg.silent_s:
            wrong["writer"] = f"the chain writer has not answered for {silent_s:.0f} s: no weights are set meanwhile"
        for place in sorted(wrong.keys() - self._writer.keys()):
            self._alarms.send(place, wrong[place], {"writer": place.removeprefix("writer/")})
        for place in sorted(self._writer.keys() - wrong.keys()):
            ended = f"no longer: {self._writer[place]}"
            self._alarms.send(place, ended, {"writer": place.removeprefix("writer/")}, standing=False)
        self._writer = wrong

    def check(self, troubles: Mapping[str, Trouble]) -> None:
        """Raise and end the alarms of what is wrong beside the weights."""
        self._meters.set("raytensor_writer_silence_s", troubles["writer"].age_s)
        self._meters.set("raytensor_troubles", sum(bool(one.why) for one in troubles.values()))
        for what, trouble in troubles.items():
            before, why = self.troubles.get(what, ""), redact_text(trouble.why)
            if why:
                self.troubles[what] = why
            else:
                self.troubles.pop(what, None)
            if bool(why) == bool(before):
                continue
            sentence = f"{what}: {why}" if why else f"{what}: in order again"
            self._show(events.Warned(text=sentence, fix=trouble.fix if why else ""))
            (log.error if why else log.info)("%s", sentence)
            facts = {"what": what, "trouble": why, "fix": trouble.fix}
            self._alarms.send(f"trouble/{what}", sentence, facts, standing=bool(why))

    def _since(self, view: SubnetView, hotkey: str, first: bool) -> int:
        """Block of the start that weights are awaited from: an earlier process's, where none were set since."""
        place, uid = f"{view.netuid}/{hotkey}", view.uid_of.get(hotkey)
        if first and (uid is None or max(view.last_update[uid : uid + 1], default=0) > self.since.get(place, -1)):
            self.since[place] = view.block
        return self.since.setdefault(place, view.block)

    def _report(self, health: Health) -> None:
        sentence, overdue = redact_text(health.sentence), health.overdue
        self._show(events.WeightsOverdue(health.netuid, health.hotkey, overdue, health.age_tempos, sentence))
        (log.error if health.overdue else log.info)("%s", sentence)
        self._alarms.send((health.netuid, health.hotkey), sentence, dataclasses.asdict(health), standing=overdue)

    def _lost(self, way: str, number: int, why: str) -> None:
        self._meters.count("raytensor_alarms_lost_total", number, way=way)
        text = f"{number} alarms were not delivered by the {way}: {why}"
        self._show(events.Warned(text=text, fix=f"look at watch.{way}"))
