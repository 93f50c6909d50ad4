"""Metrics as Prometheus scrapes them from the Ray node's metrics agent, and the dashboard that draws them."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest
import ray.util.metrics

from raytensor.miners.gauges import Gauges
from raytensor.supervised import UNEXPECTED
from raytensor.telemetry import events
from raytensor.telemetry.metrics import METRICS, Meters
from raytensor.types import Failure, Reason

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 240.0  # an agent hands on what its processes report every few seconds
LINE = re.compile(r"^ray_(raytensor_\w+)\{(.*)\} (\S+)$")
OURS = ("netuid", "fate", "lane", "outcome", "call", "way", "thread", "le")


def scrape(ray) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, our own tags, sorted) -> value, of every series of RayTensor."""
    node = ray.nodes()[0]
    with urllib.request.urlopen(
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=60
    ) as answer:
        text = answer.read().decode()
    found = {}
    for name, tags, value in (match.groups() for match in map(LINE.match, text.splitlines()) if match):
        pairs = [pair for pair in re.findall(r'(\w+)="([^"]*)"', tags) if pair[0] in OURS]
        key = name, tuple(sorted(pairs))
        found[key] = found.get(key, 0.0) + float(value)
    return found


def bare(found) -> set[str]:
    """Names of the metrics, of histograms without their series' endings."""
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name, _ in found}


def test_what_prometheus_scrapes(ray_session):
    """netuid 999 and lane "test" are this test's own: other tests of the session report theirs."""
    meters, miner = Meters(), Gauges("test")
    meters.set("raytensor_weights_age_tempos", 3.25, netuid=999)
    meters.set("raytensor_weights_overdue", 2, netuid=999)
    meters.set("raytensor_blocks_since_update", 1170, netuid=999)
    meters.set("raytensor_chain_silence_s", 0.0)
    meters.set("raytensor_writer_silence_s", 12.5)
    meters.set("raytensor_troubles", 2)
    meters.count("raytensor_alarms_lost_total", 3, way="test")
    for number, name in enumerate(
        ("rank", "incentive", "emission_alpha", "replaced_in", "unregistered", "axons_wrong", "immune_blocks")
    ):
        meters.set(f"raytensor_miner_{name}", number, netuid=999)
    meters.set("raytensor_miner_unreachable_s", 7.5)
    meters.set("raytensor_miner_callers", 3)
    meters.count("raytensor_requests_total", 4, outcome="test")
    meters.count("raytensor_events_lost_total", 1)
    meters.count("raytensor_view_errors_total", 1)
    meters.count("raytensor_writer_remade_total", 1)
    meters.count("raytensor_thread_errors_total", 2, thread="test")
    for fate in ("included", "included", "failed"):
        meters.record(events.ReceiptSeen(call="test", signer="5G", fate=fate, netuid=999, fee_rao=7))
    meters.record(events.RoundDone(netuid=999, round=4, scored=4, wall_s=1.5))
    failures = {"timeout": 1, "error": 2}
    meters.record(events.RoundDone(netuid=999, round=5, scored=5, failures=failures, wall_s=2.5))
    meters.record(events.SubnetFault(999, "x", 10.0))
    meters.record(events.Phase(text="says nothing in numbers"))
    miner.trained([2.0, 4.0], 1000, 0.5)
    miner.answered(Failure("t", "5G", Reason.TIMEOUT), 0.2)
    miner.answered(Failure("t", "5G", Reason.TIMEOUT), 40.0)
    of = (("netuid", "999"),)
    wanted = {
        ("raytensor_weights_age_tempos", of): 3.25,
        ("raytensor_weights_overdue", of): 2.0,
        ("raytensor_blocks_since_update", of): 1170.0,
        ("raytensor_chain_silence_s", ()): 0.0,
        ("raytensor_writer_silence_s", ()): 12.5,
        ("raytensor_troubles", ()): 2.0,
        ("raytensor_alarms_lost_total", (("way", "test"),)): 3.0,
        ("raytensor_thread_errors_total", (("thread", "test"),)): 2.0,
        ("raytensor_miner_rank", of): 0.0,
        ("raytensor_miner_incentive", of): 1.0,
        ("raytensor_miner_emission_alpha", of): 2.0,
        ("raytensor_miner_replaced_in", of): 3.0,
        ("raytensor_miner_unregistered", of): 4.0,
        ("raytensor_miner_axons_wrong", of): 5.0,
        ("raytensor_miner_immune_blocks", of): 6.0,
        ("raytensor_miner_unreachable_s", ()): 7.5,
        ("raytensor_miner_callers", ()): 3.0,
        ("raytensor_requests_total", (("outcome", "test"),)): 4.0,
        ("raytensor_receipts_total", (("call", "test"), ("fate", "included"), *of)): 2.0,
        ("raytensor_receipts_total", (("call", "test"), ("fate", "failed"), *of)): 1.0,
        ("raytensor_fees_rao_total", of): 21.0,
        ("raytensor_rounds_total", of): 2.0,
        ("raytensor_round", of): 5.0,
        ("raytensor_round_s", of): 2.5,
        ("raytensor_round_scored", of): 5.0,
        ("raytensor_round_failures", of): 3.0,
        ("raytensor_subnet_faults_total", of): 1.0,
        ("raytensor_answers_total", (("lane", "test"), ("outcome", "timeout"))): 2.0,
        ("raytensor_answer_latency_s_bucket", (("lane", "test"), ("le", "0.1"))): 0.0,
        ("raytensor_answer_latency_s_bucket", (("lane", "test"), ("le", "0.3"))): 1.0,
        ("raytensor_answer_latency_s_bucket", (("lane", "test"), ("le", "30.0"))): 1.0,
        ("raytensor_answer_latency_s_count", (("lane", "test"),)): 2.0,
    }
    end = time.monotonic() + LIMIT_S
    while (
        not (wanted.items() <= (found := scrape(ray_session)).items() and bare(found) >= set(METRICS))
        and time.monotonic() < end
    ):
        time.sleep(1.0)
    assert {key: found.get(key) for key in wanted} == wanted
    # Gauges without tags stand beside those of other processes of the session; this one's value is among them.
    assert {"raytensor_train_loss", "raytensor_train_tokens_per_s"} <= {name for name, _ in found}
    assert bare(found) == set(METRICS), "every metric of the table is exported under its own name"


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
        meters.set("raytensor_round", 1.0, netuid=1)
        meters.record(events.RoundDone(round=1, rounds=2, wall_s=1.0))
        assert meters._made == {}


def test_names_and_tags_stay_bounded():
    for name, metric in METRICS.items():
        assert re.fullmatch(r"raytensor_[a-z_]+", name) and metric.text.endswith(".")
        assert name.endswith("_total") == (metric.kind == "counter")
        assert not set(metric.tags) & {"hotkey", "coldkey", "uid", "task_id", "block"}


# ------------------------------------------------------------------------------------------------------- the dashboard


def queries() -> list[tuple[str, str, str]]:
    """(panel, expression, legend) of all panels."""
    board = json.loads((ROOT / "jobs/grafana/raytensor.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    return [(panel["title"], target["expr"], target["legendFormat"]) for panel in panels for target in panel["targets"]]


def test_the_dashboard_draws_every_metric_and_no_other():
    drawn = set()
    for panel, expression, legend in queries():
        names = set(re.findall(r"\bray_(raytensor_\w+)", expression))
        assert len(names) == 1, f"{panel}: {expression}"
        name = re.sub(r"_bucket$", "", names.pop())
        metric = METRICS[name]
        assert ("_bucket" in expression) == (metric.kind == "histogram"), panel
        if metric.kind != "gauge":
            assert re.search(r"\b(rate|increase)\(", expression), f"{panel}: a counter only ever grows"
        by = {tag for group in re.findall(r"by \(([^)]*)\)", expression) for tag in group.split(", ")}
        known = set(metric.tags) | ({"le"} if metric.kind == "histogram" else set())
        assert by <= known and set(re.findall(r"{{(\w+)}}", legend)) <= by, panel
        assert ("netuid=~" in expression) == ("netuid" in metric.tags), panel
        drawn.add(name)
    assert drawn == set(METRICS)


def test_the_dashboard_can_be_imported_beside_ray_s_own():
    board = json.loads((ROOT / "jobs/grafana/raytensor.json").read_text())
    assert board["uid"] == "raytensor" and "id" not in board, "an id would overwrite somebody's board"
    variables = {one["name"] for one in board["templating"]["list"]}
    assert variables == {"datasource", "SessionName", "netuid"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(board))) <= variables | {"__all"}
    places = set()
    for panel in board["panels"]:
        box = panel["gridPos"]
        assert box["x"] + box["w"] <= 24
        cells = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
        assert not cells & places, f"{panel['title']} lies over another"
        places |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_metrics_are_made_in_one_place_and_each_is_used():
    table = ROOT / "raytensor/telemetry/metrics.py"
    gateway = ROOT / "raytensor/jobs/gateway"  # serves its own at /metrics
    setting = ROOT / "raytensor/subnets/pytest_plugin.py"  # `raytensor_subnet` is a setting of pytest
    found = [path for path in (ROOT / "raytensor").rglob("*.py") if path not in (table, setting)]
    found = [path for path in found if gateway not in path.parents]
    others = "".join(path.read_text() for path in found)
    assert "ray.util.metrics" not in others and "ray.util import metrics" not in others
    rest = table.read_text().split("class Meters")[1] + others
    assert [name for name in METRICS if f'"{name}"' not in rest] == []
    assert set(re.findall(r"\"(raytensor_\w+)\"", rest)) - set(METRICS) == set()


def test_a_metric_that_ray_can_not_take_raises_into_nobody(ray_session, monkeypatch):
    """A value that is refused, and metrics whose exporter is gone; a mistake of ours is still one."""
    meters, before = Meters(), UNEXPECTED.errors.get("metrics", (0, ""))[0]
    meters.set("raytensor_round", 1.0, netuid=1)

    def gone(*args, **more):
        raise RuntimeError("the agent has ended")

    monkeypatch.setattr(ray.util.metrics.Gauge, "set", gone)
    meters.set("raytensor_round", 2.0, netuid=1)
    assert UNEXPECTED.errors["metrics"] == (before + 1, "RuntimeError: the agent has ended")
    with pytest.raises(AssertionError):
        meters.set("raytensor_round", 2.0)
