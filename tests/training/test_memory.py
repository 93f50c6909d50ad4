"""The estimate of memory beside what processes take, and what is refused before anything starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from raytensor import cluster, config
from raytensor.config import MinerProfile
from raytensor.config.optimizers import ENGINES
from raytensor.errors import DemandError
from raytensor.jobs.run.plan import needs
from raytensor.jobs.train import train_main
from raytensor.training import footprint, trace
from raytensor.training.footprint import Llama
from raytensor.training.models import ModelSpec
from raytensor.training.recipe import Recipe
from raytensor.types import Memory

HERE = Path(__file__).parent
SPEC = ModelSpec("5M", vocab_size=4096, seq_len=64)
ROWS = 8
# Of the estimate: pages that the allocator keeps, and buffers of gloo and DeepSpeed that come and go.
TOLERANCE = 0.12
MARGIN = 8 * 2**20
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}


def estimate(strategy: str, ranks: int, **recipe: Any) -> Memory:
    of = Recipe(**recipe)
    found = trace.sizes(SPEC, of, ROWS // (ranks * of.accumulate), SPEC.seq_len, casts=ENGINES[strategy].casts)
    more = {"moments": 2, "accumulate": of.accumulate, "bf16": of.precision == "bf16"}
    return footprint.of_rank(strategy, found, ranks, **more)


@pytest.mark.parametrize(
    "ranks, cases",
    [
        (1, [("plain", {}), ("plain", {"activation_checkpointing": True})]),
        pytest.param(
            2,
            [("ddp", {}), ("fsdp2", {}), ("fsdp2", {"accumulate": 2}), ("zero1", {}), ("zero2", {}), ("zero3", {})],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["one rank", "two ranks"],
)
def test_the_estimate_is_what_a_rank_takes(ranks, cases):
    asked = [{"strategy": name, "recipe": recipe, "spec": asdict(SPEC), "rows": ROWS} for name, recipe in cases]
    port = cluster.reserve_port()
    command = [sys.executable, str(HERE / "memory_rank.py")]
    environment = os.environ | ALLOCATOR | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(ranks), str(port), json.dumps(asked)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    ends = [process.communicate(timeout=240) for process in processes]
    lines = [line for line in ends[0][0].splitlines() if line.startswith("[")]
    assert len(lines) == len(cases), ends[0][1]
    for (strategy, recipe), line in zip(cases, lines, strict=True):
        train, serve = json.loads(line)
        parts = dict(estimate(strategy, ranks, **recipe).parts)
        answer = sum(parts.values()) - sum(parts[name] for name in ("process", "checkpoint", "the model as built"))
        step = answer - parts["serving"] + parts["checkpoint"]
        what = (strategy, recipe, {name: size >> 20 for name, size in parts.items()}, train >> 20, serve >> 20)
        least = step * (0.75 if strategy.startswith("zero") else 1 - TOLERANCE) - MARGIN  # DeepSpeed's at most
        assert least <= train <= step * (1 + TOLERANCE) + MARGIN, what
        assert serve <= answer * (1 + TOLERANCE) + MARGIN, what


def test_the_formula_of_small_llamas_is_the_measured_one():
    for hidden, layers, rows, seq_len in ((128, 1, 8, 32), (256, 4, 4, 64)):
        spec = ModelSpec(None, hidden, layers, 4, 512, seq_len)
        found = trace.sizes(spec, Recipe(), rows, seq_len, casts=False)
        formula = Llama(hidden, layers, 512).sizes(rows * seq_len, 128 * seq_len)
        for name in ("parameters", "trained", "layer", "outside", "logits"):
            assert getattr(formula, name) == getattr(found, name), name
        assert formula.kept == pytest.approx(found.kept, rel=0.03)
        assert formula.serving == pytest.approx(found.serving, rel=0.1)


def test_parts_that_are_cut_over_ranks():
    """8B in bf16 on eight ranks: by the sizes of the parts, without tracing."""
    count = 8_030_000_000
    sizes = footprint.Sizes(count, count, count // 40, count // 8, 10 * 2**30, 26 * 2**30, 2**30, 2**30)
    of = {
        name: footprint.of_rank(name, sizes, 8, moments=2, bf16=True, gpu=True).parts
        for name in ("ddp", "zero1", "zero2", "zero3", "fsdp2")
    }
    whole = {"parameters": 4 * count, "gradients": 4 * count, "moments": 8 * count}
    assert {name: of["ddp"][name] for name in whole} == whole
    assert {name: of["fsdp2"][name] for name in whole} == {name: size // 8 for name, size in whole.items()}
    assert of["zero1"]["moments"] == count and of["zero1"]["parameters"] == 2 * count + count // 2
    assert of["zero2"]["gradients"] == count // 2 + 4 * footprint.BUCKET < of["zero1"]["gradients"] == 4 * count
    assert of["zero3"]["parameters"] == 2 * count // 8 + count // 2
    assert footprint.of_rank("fsdp2", sizes, 8, moments=2, bf16=True, gpu=True).of("memory") > 4 * count


def test_training_that_can_not_fit_is_refused_with_the_parts_and_the_way_out(monkeypatch, capsys):
    monkeypatch.setattr(cluster, "_host_memory", lambda: 16 * 2.0**30)
    big = ["training.model=1.2B", "data.tokenizer=bytes", "dry_run=true"]
    with pytest.raises(DemandError) as caught:
        train_main(big)
    text = str(caught.value)
    assert "of memory and the cluster has 16.0 GiB\n  ranks        1 x 0.5 CPU\n" in text
    assert "parameters 4.1 GiB, gradients 4.1 GiB, moments 8.2 GiB, activations" in text
    assert "\n  fix: a smaller training.model" in text and text.endswith("or cluster.overcommit=true to start anyway")
    assert train_main([*big, "cluster.overcommit=true"]) == 0
    assert "moments 8.2 GiB" in capsys.readouterr().out
    gpu = [*big, "training.gpus_per_rank=1", "cluster.num_gpus=1", "cluster.gpu_memory_gib=16"]
    with pytest.raises(DemandError, match="of GPU memory each and have 16.0 GiB\n(?s:.*)fix: a smaller training.model"):
        train_main(gpu)


def test_hosts_of_miners_that_can_not_fit_are_refused(monkeypatch):
    profile = MinerProfile(hidden=256, layers=4)
    cfg = config.RunConfig(miners=config.Miners(num_miners=1000, num_hosts=2, profiles=[profile]))
    there = {"CPU": 4.0, "memory": 24 * 2.0**30}
    hosts = needs(cfg, there)[0]
    model = Llama(256, 4, cfg.data.vocab_size)
    assert hosts.memory is not None and hosts.memory.parts["moments"] == 500 * 8 * model.parameters
    with pytest.raises(DemandError, match=r"ask for .* of memory and the cluster has 24.0 GiB\n  miner hosts"):
        cluster.check([hosts], there)
    cluster.check([hosts], {"CPU": 4.0, "memory": 96 * 2.0**30})


def test_room_is_counted_by_node(monkeypatch):
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}] * 2
    total = {"CPU": 16.0, "GPU": 2.0}
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: total)
    monkeypatch.setattr(cluster.ray, "available_resources", lambda: total)
    cluster.check([cluster.Need("ranks", 4, 3.0)])
    with pytest.raises(DemandError, match=r"5 ranks of 3 CPU each are asked for and the nodes hold 4 \(16 free\)"):
        cluster.check([cluster.Need("ranks", 5, 3.0)])
    with pytest.raises(DemandError, match="4 ranks of 2 CPU [+] 0.6 GPU each .* hold 2|ask for 2.4 GPUs"):
        cluster.check([cluster.Need("ranks", 4, 2.0, 0.6)])
    cluster.check([cluster.Need("ranks", 64, 3.0, 8.0)], cfg=config.Cluster(autoscaled=True))
