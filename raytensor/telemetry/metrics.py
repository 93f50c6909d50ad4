"""Every metric that RayTensor exports through Ray, and the only place that makes them.

In: events, and numbers as they are measured. Out: Prometheus series of each Ray node's metrics agent, prefixed "ray_".
Bounds: tags have few values (netuid, call, fate, lane, outcome) and are never a hotkey. Does nothing without Ray, and
raises nothing because of it. `jobs/grafana/raytensor.json` draws exactly these metrics.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raytensor.supervised import tell
from raytensor.telemetry.events import Event, ReceiptSeen, RoundDone, SubnetFault, TrainStep

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
BOUNDS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """kind: gauge | counter | histogram. text: description with the unit. tags: each value must have all."""

    kind: str
    text: str
    tags: tuple[str, ...] = ()


METRICS: dict[str, Metric] = {
    # Rounds and receipts of any subnet (`raytensor run`, `raytensor validate`)
    "raytensor_rounds_total": Metric(COUNTER, "Rounds that are logged and reduced.", ("netuid",)),
    "raytensor_round": Metric(GAUGE, "Number of the last round.", ("netuid",)),
    "raytensor_round_s": Metric(GAUGE, "Duration of the last round, seconds.", ("netuid",)),
    "raytensor_round_scored": Metric(GAUGE, "Answers scored in the last round.", ("netuid",)),
    "raytensor_round_failures": Metric(GAUGE, "Questions of the last round without a score.", ("netuid",)),
    "raytensor_subnet_faults_total": Metric(COUNTER, "Rounds that failed, after which the subnet paused.", ("netuid",)),
    "raytensor_receipts_total": Metric(COUNTER, "Receipts of calls, by outcome.", ("netuid", "call", "fate")),
    "raytensor_fees_rao_total": Metric(COUNTER, "Fees paid for calls, rao of TAO.", ("netuid",)),
    # A validator's weights (`raytensor validate`)
    "raytensor_weights_age_tempos": Metric(GAUGE, "Tempos since our oldest weights on a subnet.", ("netuid",)),
    "raytensor_weights_overdue": Metric(GAUGE, "Hotkeys of a subnet whose weights are overdue.", ("netuid",)),
    "raytensor_blocks_since_update": Metric(GAUGE, "Blocks since our oldest weights on a subnet.", ("netuid",)),
    "raytensor_chain_silence_s": Metric(GAUGE, "Seconds since the newest block, 0 while blocks come."),
    "raytensor_writer_silence_s": Metric(GAUGE, "Seconds since the chain writer was known to work without trouble."),
    "raytensor_writer_remade_total": Metric(COUNTER, "Times that the chain writer had died and was started again."),
    "raytensor_troubles": Metric(GAUGE, "Troubles of the writer, the reader, threads, the clock, the endpoints."),
    "raytensor_thread_errors_total": Metric(COUNTER, "Unexpected errors of a job's threads, by thread.", ("thread",)),
    "raytensor_view_errors_total": Metric(COUNTER, "Events that the view could not show."),
    "raytensor_events_lost_total": Metric(COUNTER, "Events that could not be written to events.jsonl."),
    "raytensor_alarms_lost_total": Metric(COUNTER, "Alarms that could not be delivered soon, by channel.", ("way",)),
    # A miner's place on the chain (`raytensor mine`)
    "raytensor_miner_rank": Metric(GAUGE, "Best rank among the miners of a subnet; 0 without incentive.", ("netuid",)),
    "raytensor_miner_incentive": Metric(GAUGE, "Incentive of our hotkeys on a subnet, 0 to 1.", ("netuid",)),
    "raytensor_miner_emission_alpha": Metric(GAUGE, "Alpha that the last epoch paid to our hotkeys.", ("netuid",)),
    "raytensor_miner_replaced_in": Metric(GAUGE, "Registrations until one of ours is replaced; -1: none.", ("netuid",)),
    "raytensor_miner_immune_blocks": Metric(GAUGE, "Fewest blocks of immunity left of our hotkeys.", ("netuid",)),
    "raytensor_miner_unregistered": Metric(GAUGE, "Our hotkeys that are not registered on a subnet.", ("netuid",)),
    "raytensor_miner_axons_wrong": Metric(GAUGE, "Hotkeys whose axon is not the address served.", ("netuid",)),
    "raytensor_miner_unreachable_s": Metric(GAUGE, "Seconds in which the published address was not reached."),
    "raytensor_miner_callers": Metric(GAUGE, "Validators that have asked the miners since the start."),
    "raytensor_requests_total": Metric(COUNTER, "Requests to the miners' server, by outcome.", ("outcome",)),
    # Miners (of a run, on the wire, or of `raytensor train`)
    "raytensor_train_loss": Metric(GAUGE, "Mean training loss of the process's miners, nats per token."),
    "raytensor_train_tokens_per_s": Metric(GAUGE, "Tokens trained per second by the process's miners."),
    "raytensor_answers_total": Metric(COUNTER, "Questions, by outcome.", ("lane", "outcome")),
    "raytensor_answer_latency_s": Metric(HISTOGRAM, "Seconds from question to answer.", ("lane",)),
}  # fmt: skip


class Meters:
    """The metrics of one process, each made at its first use."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def set(self, name: str, value: float, **tags: object) -> None:
        """Set a gauge."""
        self._tell(name, GAUGE, lambda metric: metric.set(float(value), tags=_text(tags)), tags)

    def count(self, name: str, by: float = 1.0, **tags: object) -> None:
        """Increase a counter; 0 or less changes nothing."""
        if by > 0:
            self._tell(name, COUNTER, lambda metric: metric.inc(float(by), tags=_text(tags)), tags)

    def observe(self, name: str, value: float, **tags: object) -> None:
        """Add a value to a histogram."""
        self._tell(name, HISTOGRAM, lambda metric: metric.observe(float(value), tags=_text(tags)), tags)

    def record(self, event: Event) -> None:
        """Update the metrics that an event changes; most events change none."""
        update = _UPDATES.get(type(event))
        if update is not None:
            update(self, event)

    def _tell(self, name: str, kind: str, change: Callable[[Any], None], tags: Mapping[str, object]) -> None:
        """Change a metric. What Ray raises (its agent has ended, a value it refuses) is logged and counted."""
        metric = METRICS[name]
        right = metric.kind == kind and set(metric.tags) == set(tags)
        assert right, f"{name} is a {metric.kind} with the tags {metric.tags}"

        def tell_ray() -> None:
            if (made := self._metric(name, kind, metric)) is not None:
                change(made)

        tell("metrics", tell_ray)

    def _metric(self, name: str, kind: str, metric: Metric) -> Any:
        import ray.util.metrics  # this module is loaded before a job's first line is on the screen

        if not ray.is_initialized():
            return None
        metrics = ray.util.metrics
        if name not in self._made:
            if kind == HISTOGRAM:
                self._made[name] = metrics.Histogram(name, metric.text, boundaries=list(BOUNDS_S), tag_keys=metric.tags)
            else:
                make = metrics.Gauge if kind == GAUGE else metrics.Counter
                self._made[name] = make(name, metric.text, tag_keys=metric.tags)
        return self._made[name]


def _round(meters: Meters, event: RoundDone) -> None:
    meters.count("raytensor_rounds_total", netuid=event.netuid)
    meters.set("raytensor_round", event.round, netuid=event.netuid)
    meters.set("raytensor_round_s", event.wall_s, netuid=event.netuid)
    meters.set("raytensor_round_scored", event.scored, netuid=event.netuid)
    meters.set("raytensor_round_failures", sum(event.failures.values()), netuid=event.netuid)


def _receipt(meters: Meters, event: ReceiptSeen) -> None:
    netuid = "" if event.netuid is None else event.netuid
    meters.count("raytensor_receipts_total", netuid=netuid, call=event.call, fate=event.fate)
    meters.count("raytensor_fees_rao_total", event.fee_rao, netuid=netuid)


def _train_step(meters: Meters, event: TrainStep) -> None:
    meters.set("raytensor_train_loss", event.loss)
    meters.set("raytensor_train_tokens_per_s", event.tokens_per_s)


_UPDATES: dict[type[Event], Callable[[Meters, Any], None]] = {
    RoundDone: _round,
    ReceiptSeen: _receipt,
    SubnetFault: lambda meters, event: meters.count("raytensor_subnet_faults_total", netuid=event.netuid),
    TrainStep: _train_step,
}


def _text(tags: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in tags.items()}
