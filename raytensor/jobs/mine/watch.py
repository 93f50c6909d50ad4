"""What becomes of the miners on the chain: their standing, who asks them, and alarms while something is wrong.

In: metagraphs, the subnets' rules of pruning, the server's traffic, how long the chain and the published address have
been silent. Out: `StandingSeen`, `TrafficSeen` and `MinerAlarm` events, alarms, gauges for Prometheus.
An alarm is raised once when it begins and once when it ends. Waits for nothing: `Rules` reads in a thread of its own.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from raytensor.chain.rpc.client import ChainClient
from raytensor.config.mine import MinerWatch
from raytensor.errors import ChainError
from raytensor.jobs.mine.standing import PruningRules, Standing, forecast, read_rules, standing
from raytensor.jobs.troubles import Trouble
from raytensor.miners.serving import Traffic
from raytensor.supervised import UNEXPECTED
from raytensor.telemetry import events, miner_events
from raytensor.telemetry.alarms import Alarms
from raytensor.telemetry.metrics import Meters
from raytensor.telemetry.redact import redact_text
from raytensor.types import Metagraph

RULES_EVERY_S = 120.0
log = logging.getLogger(__name__)


class Rules:
    """The rules of pruning of some subnets, read again every `RULES_EVERY_S` in a thread."""

    def __init__(self, endpoints: Sequence[str], netuids: Sequence[int], timeout_s: float) -> None:
        self._endpoints, self._netuids, self._timeout_s = list(endpoints), list(netuids), timeout_s
        self._pool = ThreadPoolExecutor(1, "pruning-rules")
        self._future: Future[dict[int, PruningRules]] | None = None
        self._asked_at = 0.0
        self.known: dict[int, PruningRules] = {}

    def poll(self) -> None:
        """Take in what was read, and read again when it is time. A chain that does not answer is asked later."""
        if self._future is not None and self._future.done():
            future, self._future = self._future, None
            try:
                self.known = future.result()
            except Exception as error:  # the reader's edge: the miners go on, and the rules are read again later
                ours = isinstance(error, ChainError)
                log.warning("the subnets' rules could not be read: %s", error, exc_info=not ours)
                if not ours:
                    UNEXPECTED.count(id(self), "pruning-rules", f"{type(error).__name__}: {error}")
            else:
                UNEXPECTED.end(id(self))
        if self._future is None and (not self._asked_at or time.monotonic() - self._asked_at >= RULES_EVERY_S):
            self._asked_at = time.monotonic()
            self._future = self._pool.submit(self._read)

    def close(self) -> None:
        """Read no more; does not wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self) -> dict[int, PruningRules]:
        with ChainClient(self._endpoints, self._timeout_s) as client:
            return {netuid: read_rules(client, netuid) for netuid in self._netuids}


class Fate:
    """Judges the miners `hotkeys` (ss58) on each subnet. A context manager: alarms end with it.

    standings  the newest of each (netuid, hotkey). wrong: what is wrong now, by (about, netuid, hotkey).

    Raises `ConfigError` for a webhook that can't be used.
    """

    def __init__(
        self,
        cfg: MinerWatch,
        hotkeys: Sequence[str],
        show: Callable[[events.Event], None],
        meters: Meters,
        alarms: Alarms | None = None,
    ) -> None:
        self._cfg, self._hotkeys, self._show, self._meters = cfg, tuple(hotkeys), show, meters
        self._alarms = alarms or Alarms(cfg, self._lost)
        self._seen: dict[int, Metagraph] = {}
        self._shown: dict[tuple[int, str], Standing] = {}
        self._differs_since: dict[tuple[int, str], float] = {}
        self._traffic = Traffic({}, {})
        self.standings: dict[tuple[int, str], Standing] = {}
        self.wrong: dict[tuple[str, int, str], str] = {}

    def __enter__(self) -> "Fate":
        return self

    def __exit__(self, *_: object) -> None:
        self._alarms.close()

    def look(self, metagraph: Metagraph, rules: PruningRules, differing: Sequence[str]) -> None:
        """Judge a subnet if its metagraph is new. differing: hotkeys whose axon is not the address that is served."""
        netuid = metagraph.netuid
        before = self._seen.get(netuid)
        if metagraph is before:
            return
        self._seen[netuid] = metagraph
        epoch = before is None or metagraph.last_epoch_block > before.last_epoch_block
        left = forecast(metagraph, rules)
        found = [standing(metagraph, left, rules, hotkey) for hotkey in self._hotkeys]
        for one in found:
            self.standings[netuid, one.hotkey] = one
            self._judge(one, one.hotkey in differing)
            self._tell(one, epoch)
        self._measure(netuid, found, len(differing))

    def look_at_traffic(self, traffic: Traffic | None) -> None:
        """Report requests, if there were new ones; None: the server does not answer."""
        if traffic is None or traffic == self._traffic:
            return
        for outcome, number in traffic.outcomes.items():
            new = number - self._traffic.outcomes.get(outcome, 0)
            self._meters.count("raytensor_requests_total", new, outcome=outcome)
        self._meters.set("raytensor_miner_callers", len(traffic.callers))
        self._traffic = traffic
        self._show(miner_events.TrafficSeen(traffic.outcomes, traffic.callers))

    @property
    def traffic(self) -> Traffic:
        """The newest that was reported."""
        return self._traffic

    def check_silence(self, silent_s: float, why: str) -> None:
        """Raise or end the alarm of a chain that has not answered for `silent_s` seconds; 0.0: it answers."""
        self._meters.set("raytensor_chain_silence_s", silent_s)
        sentence = f"the chain has not answered for {silent_s:.0f} s: {why}" if silent_s > self._cfg.silent_s else ""
        self._alarm("chain", sentence, "the chain answers again")

    def check_writer(self, stopped: Mapping[str, str], silent_s: float) -> None:
        """Raise or end the alarms of keys that the chain writer has stopped, and of a writer that answers nothing."""
        late = silent_s > self._cfg.silent_s
        sentence = f"the chain writer has not answered for {silent_s:.0f} s: nothing is published" if late else ""
        self._alarm("writer", sentence, "the chain writer answers again")
        for hotkey in self._hotkeys:
            why = stopped.get(hotkey, "")
            sentence = f"{hotkey[:8]}: the chain writer sends nothing more for this key: {why}" if why else ""
            self._alarm("writer", sentence, f"{hotkey[:8]}: the chain writer sends again", hotkey=hotkey)

    def check_disk(self, trouble: str) -> None:
        """Raise or end the alarm of files that can't be written. trouble: "" where they can."""
        fix = "free space under paths.runs; the miners go on, and what is shown is not recorded"
        sentence = f"files can't be written: {trouble}; fix: {fix}" if trouble else ""
        self._alarm("disk", sentence, "files can be written again")

    def check(self, troubles: Mapping[str, Trouble]) -> None:
        """Raise and end the alarms of what is wrong with the job's own parts."""
        self._meters.set("raytensor_writer_silence_s", troubles["writer"].age_s)
        self._meters.set("raytensor_troubles", sum(bool(one.why) for one in troubles.values()))
        for what, one in troubles.items():
            sentence = f"{what}: {one.why}; fix: {one.fix}" if one.why else ""
            self._alarm(f"trouble/{what}", sentence, f"{what}: in order again")

    def check_reach(self, unreachable_s: float, why: str) -> None:
        """Raise or end the alarm of a published address that no request reaches."""
        self._meters.set("raytensor_miner_unreachable_s", unreachable_s)
        late = unreachable_s > self._cfg.unreachable_s
        sentence = f"the published address was not reached for {unreachable_s:.0f} s: {why}" if late else ""
        self._alarm("reach", sentence, "the published address is reached again")

    def _judge(self, one: Standing, differs: bool) -> None:
        netuid, hotkey, where = one.netuid, one.hotkey, f"subnet {one.netuid}, {one.hotkey[:8]}"
        gone = f"{where}: not registered any more" if one.uid is None else ""
        self._alarm("registration", gone, f"{where}: registered, uid {one.uid}", netuid, hotkey)
        left = one.replaced_in
        near = f"{where}: next to be replaced in about {left} registrations"
        is_near = left is not None and left <= self._cfg.near_pruning
        self._alarm("pruning", near if is_near else "", f"{where}: no longer next to be replaced", netuid, hotkey)
        since = self._differs_since.setdefault((netuid, hotkey), time.monotonic())
        if not differs:
            self._differs_since.pop((netuid, hotkey))
        long = differs and time.monotonic() - since > self._cfg.unreachable_s
        wrong = f"{where}: the axon on the chain ({one.axon or 'none'}) is not the address that is served"
        self._alarm("axon", wrong if long else "", f"{where}: the axon is the address that is served", netuid, hotkey)

    def _alarm(self, about: str, sentence: str, ended: str, netuid: int = 0, hotkey: str = "") -> None:
        """sentence: what is wrong, "" if nothing is."""
        place = (about, netuid, hotkey)
        was = place in self.wrong
        if sentence:
            self.wrong[place] = sentence
        if bool(sentence) == was:
            return
        if was:
            del self.wrong[place]
        text = redact_text(sentence or ended)
        self._show(miner_events.MinerAlarm(about, bool(sentence), text, netuid, hotkey))
        (log.error if sentence else log.info)("%s", text)
        facts = {"about": about, "on": bool(sentence), "netuid": netuid, "hotkey": hotkey}
        self._alarms.send(place, text, facts, standing=bool(sentence))

    def _tell(self, one: Standing, epoch: bool) -> None:
        """Show a standing after an epoch, and when more than the block has changed."""
        before = self._shown.get((one.netuid, one.hotkey))
        same = before is not None and dataclasses.replace(before, block=0, immune_blocks=0) == dataclasses.replace(
            one, block=0, immune_blocks=0
        )
        if epoch or not same:
            self._shown[one.netuid, one.hotkey] = one
            self._show(miner_events.StandingSeen(**vars(one)))

    def _measure(self, netuid: int, found: Sequence[Standing], differing: int) -> None:
        ranks, left = [one.rank for one in found if one.rank], [one.replaced_in for one in found]
        incentive, paid = sum(one.incentive for one in found), sum(one.emission_alpha_rao for one in found) / 1e9
        soonest = min((number for number in left if number is not None), default=-1)
        self._meters.set("raytensor_miner_rank", min(ranks, default=0), netuid=netuid)
        self._meters.set("raytensor_miner_incentive", incentive, netuid=netuid)
        self._meters.set("raytensor_miner_emission_alpha", paid, netuid=netuid)
        self._meters.set("raytensor_miner_replaced_in", soonest, netuid=netuid)
        immune = min((one.immune_blocks for one in found if one.uid is not None), default=0)
        self._meters.set("raytensor_miner_immune_blocks", immune, netuid=netuid)
        self._meters.set("raytensor_miner_unregistered", sum(one.uid is None for one in found), netuid=netuid)
        self._meters.set("raytensor_miner_axons_wrong", differing, netuid=netuid)

    def _lost(self, way: str, number: int, why: str) -> None:
        self._meters.count("raytensor_alarms_lost_total", number, way=way)
        text = f"{number} alarms were not delivered by the {way}: {why}"
        self._show(events.Warned(text=text, fix=f"look at watch.{way}"))
