"""All strategies are one training: the same curve, the same answers, the same checkpoints, on one rank and on two.

Tolerance: 1e-5 nats on losses near 4 and on log-probabilities after 6 steps; float32 sums are taken in another order
(measured: 1e-6).
"""

from __future__ import annotations

import datetime
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from rank_pair import LENGTHS, RECIPE, SPEC, TOKENS, Pair, RankActor, V

from raytensor import cluster

SHARDED = ("ddp", "fsdp2", "tp", "zero1", "zero2", "zero3")
CLOSE = 1e-5


@pytest.fixture(scope="module")
def pair(ray_session):
    found = Pair(ray_session)
    yield found
    found.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """One rank by itself: losses of 6 + 3 steps, log-probabilities and a checkpoint after 6."""
    torch.set_num_threads(1)
    rank = RankActor(0, 1, ("", 0))
    rank.make("plain")
    folder = tmp_path_factory.mktemp("plain") / "point"
    first = rank.train("plain", 1, 6)
    answers = rank.log_probs("plain")
    rank.save("plain", folder)
    return {"first": first, "answers": answers, "folder": folder, "rest": rank.train("plain", 2, 3)}


@pytest.mark.parametrize("strategy", SHARDED)
def test_two_ranks_train_answer_and_resume_as_one(pair, plain, tmp_path, strategy):
    pair.make(strategy)
    assert pair.train(strategy, 1, 6) == pytest.approx(plain["first"], abs=CLOSE)
    np.testing.assert_allclose(pair.log_probs(strategy), plain["answers"], atol=CLOSE)
    # Answers between steps change nothing: the curve goes on as one that was never interrupted.
    pair.save(strategy, tmp_path / "two")
    rest = pair.train(strategy, 2, 3)
    assert rest == pytest.approx(plain["rest"], abs=CLOSE)
    # On the same layout a resume is bit-equal, in an engine that has already been elsewhere, too.
    assert pair.load(strategy, tmp_path / "two") == {"at": strategy}
    assert pair.train(strategy, 2, 3) == rest
    # From two ranks to one, and from one to two in a new engine, with the optimizer's state.
    one = RankActor(0, 1, ("", 0))
    one.make("plain")
    one.load("plain", tmp_path / "two")
    np.testing.assert_allclose(one.log_probs("plain"), plain["answers"], atol=CLOSE)
    assert one.train("plain", 2, 3) == pytest.approx(plain["rest"], abs=CLOSE)
    pair.make(strategy)
    pair.load(strategy, plain["folder"])
    np.testing.assert_allclose(pair.log_probs(strategy), plain["answers"], atol=CLOSE)
    assert pair.train(strategy, 2, 3) == pytest.approx(plain["rest"], abs=CLOSE)


@pytest.mark.parametrize("strategy", [*SHARDED, "muon on ddp"])
def test_other_optimizers_over_ranks(pair, tmp_path, strategy):
    """Two ranks are one, and from two ranks to one, momentum included."""
    name, _, strategy = strategy.rpartition(" on ")
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    recipe = replace(RECIPE, optimizer=name or "sgd", lr=3e-3 if name else 0.1)
    one = RankActor(0, 1, ("", 0))
    one.make("plain", SPEC, recipe)
    first = one.train("plain", 1, 4)
    close = 1e-3 if name else CLOSE  # muon's iteration is in bfloat16
    pair.make(strategy, SPEC, recipe)
    assert pair.train(strategy, 1, 4) == pytest.approx(first, abs=close)
    pair.save(strategy, tmp_path / "two")
    rest = pair.train(strategy, 2, 2)
    pair.load(strategy, tmp_path / "two")
    assert pair.train(strategy, 2, 2) == rest
    one.load("plain", tmp_path / "two")
    assert one.train("plain", 2, 2) == pytest.approx(rest, abs=close)
    one.save("plain", tmp_path / "one")
    pair.make(strategy, SPEC, recipe)
    pair.load(strategy, tmp_path / "one")
    assert pair.train(strategy, 3, 2) == pytest.approx(one.train("plain", 3, 2), abs=close)


def test_from_zero3_to_fsdp2_and_bf16(pair, plain, tmp_path):
    """Every strategy reads every other's checkpoint; bfloat16 follows the float32 curve to 0.02 nats."""
    pair.make("zero3")
    pair.load("zero3", plain["folder"])
    pair.save("zero3", tmp_path / "zero3")
    pair.make("fsdp2")
    pair.load("fsdp2", tmp_path / "zero3")
    assert pair.train("fsdp2", 2, 3) == pytest.approx(plain["rest"], abs=CLOSE)
    for strategy in ("fsdp2", "tp", "zero1", "zero3"):
        pair.make(strategy, SPEC, replace(RECIPE, precision="bf16", activation_checkpointing=True))
        assert pair.train(strategy, 1, 6) == pytest.approx(plain["first"], abs=0.02)
        pair.save(strategy, tmp_path / f"{strategy}-bf16")
        rest = pair.train(strategy, 2, 3)
        pair.load(strategy, tmp_path / f"{strategy}-bf16")
        assert pair.train(strategy, 2, 3) == rest  # the float32 masters are in the checkpoint


def test_adapters_over_ranks(pair, tmp_path):
    """LoRA: only the adapters are trained, saved and cut; the answers of two ranks are those of one."""
    pytest.importorskip("peft")
    spec = replace(SPEC, lora_rank=4)
    one = RankActor(0, 1, ("", 0))
    one.make("plain", spec)
    curve = one.train("plain", 1, 4)
    assert curve[-1] < curve[0] + 0.1 and all("lora_" in name for name in one.weights("plain"))
    pair.make("zero2", spec)
    assert pair.train("zero2", 1, 4) == pytest.approx(curve, abs=CLOSE)
    pair.save("zero2", tmp_path / "point")
    again = RankActor(0, 1, ("", 0))
    again.make("plain", spec)
    again.load("plain", tmp_path / "point")
    np.testing.assert_allclose(again.log_probs("plain"), one.log_probs("plain"), atol=CLOSE)


def test_rows_that_do_not_divide_are_refused():
    one = RankActor(0, 1, ("", 0))
    one.make("plain")
    with pytest.raises(ValueError, match="accumulate=2"):
        one.engines["plain"].train_steps([np.zeros((3, 17), np.uint16)])
    with pytest.raises(ValueError, match="zero4"):
        one.make("zero4")
    assert one.engines["plain"].log_probs(TOKENS, LENGTHS).shape == (7, V)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "hsdp", "tp", "zero1", "zero3"])
def test_all_ranks_notice_a_gradient_that_is_not_finite(pair, tmp_path, strategy):
    """Engines that can't leave the step out say that their state is lost; a checkpoint restores them."""
    pair.make(strategy)
    pair.train(strategy, 1, 1)
    pair.save(strategy, tmp_path / "good")
    pair.make(strategy, SPEC, replace(RECIPE, lr=1e30, warmup_steps=0))
    pair.train(strategy, 1, 3)
    health = pair.health(strategy)
    assert health.poisoned == strategy.startswith("zero") and health.skipped_in_row >= 1
    pair.make(strategy)
    pair.load(strategy, tmp_path / "good")
    assert pair.health(strategy).skipped_in_row == 0 and np.isfinite(pair.train(strategy, 2, 1)).all()


def test_a_reserved_port_is_taken_by_the_first_rank_and_by_nobody_else():
    """From its choice until the first rank has bound it, a port is held: choose and bind leave no gap."""
    port = cluster.reserve_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    limit = datetime.timedelta(seconds=60)
    store = dist.TCPStore("127.0.0.1", port, 1, True, limit, wait_for_workers=False)  # as `init_process_group` does
    store.set("key", "value")
    assert dist.TCPStore("127.0.0.1", port, 1, False, limit).get("key") == b"value"
