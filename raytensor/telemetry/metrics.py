"""Every metric that RayTensor gives to Ray, and the one place that makes them.

In: events, and numbers as they come up. Out: Prometheus series of each Ray node's metrics agent, with the prefix "ray_".
Tags are few and bounded (netuid, fate, lane, outcome), never a hotkey. Without Ray nothing happens, and nothing here
raises because of it. `jobs/grafana/raytensor.json` draws these names and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raytensor.telemetry import events
from raytensor.telemetry.validate_events import SubnetFault, SubnetRound, WeightsReceipt

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
BOUNDS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """kind: gauge | counter | histogram. text: what it says, with its unit. tags: all of them are given each time."""

    kind: str
    text: str
    tags: tuple[str, ...] = ()


METRICS: dict[str, Metric] = {
    # A validator (`raytensor validate`)
    "raytensor_weights_age_tempos": Metric(
        GAUGE, "Tempos since weights were set, the oldest of a subnet's hotkeys.", ("netuid",)
    ),
    "raytensor_weights_overdue": Metric(GAUGE, "Hotkeys of a subnet whose weights are overdue.", ("netuid",)),
    "raytensor_blocks_since_update": Metric(
        GAUGE, "Blocks since weights were set, the oldest of a subnet's hotkeys.", ("netuid",)
    ),
    "raytensor_chain_silence_s": Metric(
        GAUGE, "Seconds since the chain last answered; while it is silent the ages above stand still."
    ),
    "raytensor_weights_receipts_total": Metric(
        COUNTER, "Receipts of weights, by what became of them.", ("netuid", "fate")
    ),
    "raytensor_subnet_rounds_total": Metric(COUNTER, "Rounds that are on the disk and reduced.", ("netuid",)),
    "raytensor_subnet_round_s": Metric(GAUGE, "Seconds that the last round of a subnet took.", ("netuid",)),
    "raytensor_subnet_scored": Metric(GAUGE, "Answers that were scored in the last round of a subnet.", ("netuid",)),
    "raytensor_subnet_faults_total": Metric(COUNTER, "Failures after which a subnet rested.", ("netuid",)),
    "raytensor_alarms_lost_total": Metric(
        COUNTER, "Alarms that could not be delivered, by way (webhook, command).", ("way",)
    ),
    # Miners (of a run, served over the wire, or of `raytensor train`)
    "raytensor_train_loss": Metric(GAUGE, "Mean training loss of the process's miners, nats per token."),
    "raytensor_train_tokens_per_s": Metric(GAUGE, "Tokens trained per second, over the process's miners."),
    "raytensor_answers_total": Metric(COUNTER, "Questions, by what became of them.", ("lane", "outcome")),
    "raytensor_answer_latency_s": Metric(HISTOGRAM, "Seconds from question to answer.", ("lane",)),
    # A whole network (`raytensor run`)
    "raytensor_round": Metric(GAUGE, "The last round that is over."),
    "raytensor_round_s": Metric(GAUGE, "Seconds that the last round took."),
    "raytensor_round_responses": Metric(GAUGE, "Answers that were scored in the last round."),
    "raytensor_round_failures": Metric(GAUGE, "Questions of the last round that ended without a score."),
    "raytensor_receipts_total": Metric(COUNTER, "Receipts of calls, by what became of them.", ("call", "fate")),
}


class Meters:
    """The metrics of one process, each made when it is first used."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def set(self, name: str, value: float, **tags: object) -> None:
        """A gauge now stands at `value`."""
        if (one := self._of(name, GAUGE, tags)) is not None:
            one.set(float(value), tags=_text(tags))

    def count(self, name: str, by: float = 1.0, **tags: object) -> None:
        """A counter grows; by 0 or less nothing happens."""
        if by > 0 and (one := self._of(name, COUNTER, tags)) is not None:
            one.inc(float(by), tags=_text(tags))

    def observe(self, name: str, value: float, **tags: object) -> None:
        """One more value in a histogram."""
        if (one := self._of(name, HISTOGRAM, tags)) is not None:
            one.observe(float(value), tags=_text(tags))

    def take(self, event: events.Event) -> None:
        """What an event says in numbers; most say nothing."""
        match event:
            case SubnetRound():
                self.count("raytensor_subnet_rounds_total", netuid=event.netuid)
                self.set("raytensor_subnet_round_s", event.wall_s, netuid=event.netuid)
                self.set("raytensor_subnet_scored", event.scored, netuid=event.netuid)
            case SubnetFault():
                self.count("raytensor_subnet_faults_total", netuid=event.netuid)
            case WeightsReceipt():
                self.count("raytensor_weights_receipts_total", netuid=event.netuid, fate=event.fate)
            case events.RoundDone():
                self.set("raytensor_round", event.round)
                self.set("raytensor_round_s", event.wall_s)
                self.set("raytensor_round_responses", event.responses)
                self.set("raytensor_round_failures", sum(event.failures.values()))
            case events.ReceiptSeen():
                self.count("raytensor_receipts_total", call=event.call, fate=event.fate)
            case events.TrainStep():
                self.set("raytensor_train_loss", event.loss)
                self.set("raytensor_train_tokens_per_s", event.tokens_per_s)

    def _of(self, name: str, kind: str, tags: Mapping[str, object]) -> Any:
        metric = METRICS[name]
        assert metric.kind == kind and set(metric.tags) == set(tags), (
            f"{name} is a {metric.kind} with the tags {metric.tags}"
        )
        import ray

        if not ray.is_initialized():
            return None
        if name not in self._made:
            from ray.util import metrics

            if kind == HISTOGRAM:
                self._made[name] = metrics.Histogram(name, metric.text, boundaries=list(BOUNDS_S), tag_keys=metric.tags)
            else:
                make = metrics.Gauge if kind == GAUGE else metrics.Counter
                self._made[name] = make(name, metric.text, tag_keys=metric.tags)
        return self._made[name]


def _text(tags: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in tags.items()}
