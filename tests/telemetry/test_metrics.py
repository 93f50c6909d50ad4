"""Metrics as Prometheus scrapes them from the Ray node's metrics agent, and the dashboard that draws them."""

from __future__ import annotations

import re
import time
import urllib.request

import pytest

from raytensor.miners.gauges import Gauges
from raytensor.telemetry import events
from raytensor.telemetry.metrics import METRICS, Meters
from raytensor.telemetry.validate_events import SubnetFault, SubnetRound, WeightsReceipt
from raytensor.types import Failure, Reason

LIMIT_S = 90.0  # an agent hands on what its processes report every few seconds
LINE = re.compile(r'^ray_(raytensor_\w+)\{(.*)\} (\S+)$')
OURS = ("netuid", "fate", "lane", "outcome", "call", "way", "le")


def scrape(ray) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, our own tags, sorted) -> value, of every series of RayTensor."""
    node = ray.nodes()[0]
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    found = {}
    for name, tags, value in (match.groups() for match in map(LINE.match, text.splitlines()) if match):
        pairs = [pair for pair in re.findall(r'(\w+)="([^"]*)"', tags) if pair[0] in OURS]
        key = name, tuple(sorted(pairs))
        found[key] = found.get(key, 0.0) + float(value)
    return found


def test_what_prometheus_scrapes(ray_session):
    """netuid 999 and lane "test" are this test's own: other tests of the session report theirs."""
    meters, miner = Meters(), Gauges("test")
    meters.set("raytensor_weights_age_tempos", 3.25, netuid=999)
    meters.set("raytensor_weights_overdue", 2, netuid=999)
    meters.set("raytensor_blocks_since_update", 1170, netuid=999)
    meters.set("raytensor_chain_silence_s", 0.0)
    meters.count("raytensor_alarms_lost_total", 3, way="test")
    for fate in ("included", "included", "failed"):
        meters.take(WeightsReceipt(999, "5G", fate))
        meters.take(events.ReceiptSeen(call="test", signer="5G", fate=fate))
    meters.take(SubnetRound(999, 4, 77, 3, 6, 5, 4, 1.5))
    meters.take(SubnetRound(999, 5, 90, 3, 6, 5, 5, 2.5))
    meters.take(SubnetFault(999, "x", 10.0))
    meters.take(events.RoundDone(round=7, rounds=9, wall_s=12.5, responses=30, failures={"timeout": 1, "error": 2}))
    meters.take(events.Phase(text="says nothing in numbers"))
    miner.trained([2.0, 4.0], 1000, 0.5)
    miner.answered(Failure("t", "5G", Reason.TIMEOUT), 0.2)
    miner.answered(Failure("t", "5G", Reason.TIMEOUT), 40.0)
    of = (("netuid", "999"),)
    wanted = {
        ("raytensor_weights_age_tempos", of): 3.25,
        ("raytensor_weights_overdue", of): 2.0,
        ("raytensor_blocks_since_update", of): 1170.0,
        ("raytensor_chain_silence_s", ()): 0.0,
        ("raytensor_alarms_lost_total", (("way", "test"),)): 3.0,
        ("raytensor_weights_receipts_total", (("fate", "included"), *of)): 2.0,
        ("raytensor_weights_receipts_total", (("fate", "failed"), *of)): 1.0,
        ("raytensor_receipts_total", (("call", "test"), ("fate", "included"))): 2.0,
        ("raytensor_receipts_total", (("call", "test"), ("fate", "failed"))): 1.0,
        ("raytensor_subnet_rounds_total", of): 2.0,
        ("raytensor_subnet_round_s", of): 2.5,
        ("raytensor_subnet_scored", of): 5.0,
        ("raytensor_subnet_faults_total", of): 1.0,
        ("raytensor_round", ()): 7.0,
        ("raytensor_round_s", ()): 12.5,
        ("raytensor_round_responses", ()): 30.0,
        ("raytensor_round_failures", ()): 3.0,
        ("raytensor_answers_total", (("lane", "test"), ("outcome", "timeout"))): 2.0,
        ("raytensor_answer_latency_s_bucket", (("lane", "test"), ("le", "0.1"))): 0.0,
        ("raytensor_answer_latency_s_bucket", (("lane", "test"), ("le", "0.3"))): 1.0,
        ("raytensor_answer_latency_s_bucket", (("lane", "test"), ("le", "30.0"))): 1.0,
        ("raytensor_answer_latency_s_count", (("lane", "test"),)): 2.0,
    }
    end = time.monotonic() + LIMIT_S
    while not wanted.items() <= (found := scrape(ray_session)).items() and time.monotonic() < end:
        time.sleep(1.0)
    assert {key: found.get(key) for key in wanted} == wanted
    # Gauges without tags stand beside those of other processes of the session; this one's value is among them.
    assert {"raytensor_train_loss", "raytensor_train_tokens_per_s"} <= {name for name, _ in found}
    exported = {re.sub(r"_(bucket|count|sum)$", "", name) for name, _ in found}
    assert exported == set(METRICS), "every metric of the table is exported under its own name"


def test_a_metric_is_used_as_it_is_declared():
    meters = Meters()
    for wrong in (
        lambda: meters.set("raytensor_weights_overdue", 1.0),
        lambda: meters.set("raytensor_weights_overdue", 1.0, netuid=1, hotkey="5G"),
        lambda: meters.count("raytensor_weights_overdue", netuid=1),
    ):
        with pytest.raises(AssertionError, match=r"raytensor_weights_overdue is a gauge with the tags \('netuid',\)"):
            wrong()
    with pytest.raises(KeyError):
        meters.set("raytensor_unheard_of", 1.0)


def test_without_ray_nothing_happens():
    import ray

    if not ray.is_initialized():
        meters = Meters()
        meters.set("raytensor_round", 1.0)
        meters.take(events.RoundDone(round=1, rounds=2, wall_s=1.0))
        assert meters._made == {}


def test_names_and_tags_stay_bounded():
    for name, metric in METRICS.items():
        assert re.fullmatch(r"raytensor_[a-z_]+", name) and metric.text.endswith(".")
        assert name.endswith("_total") == (metric.kind == "counter")
        assert not set(metric.tags) & {"hotkey", "coldkey", "uid", "task_id", "block"}
