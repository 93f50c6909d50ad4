"""Tensor parallelism and hybrid sharding on four ranks: the curve, the answers and the checkpoints of one rank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rank_pair import RECIPE, SPEC, Pair, RankActor

from raytensor.config.train import TrainConfig, Training
from raytensor.errors import ConfigError
from raytensor.training import loop, models
from raytensor.training.models import ModelSpec

CLOSE = 1e-5  # nats, as for two ranks
WIDE = replace(SPEC, heads=4)  # a head for each rank


@pytest.fixture(scope="module")
def four(ray_session):
    found = Pair(ray_session, 4)
    yield found
    found.close()


def test_four_ranks_train_answer_and_resume_as_one(four, tmp_path):
    """hsdp (two copies over two ranks each), tp, fsdp2; each goes on from the checkpoint of the one before."""
    one = RankActor(0, 1, ("", 0))
    one.make("plain", WIDE)
    first = one.train("plain", 1, 4)
    answers = one.log_probs("plain")
    one.save("plain", tmp_path / "plain")
    rest = one.train("plain", 2, 2)
    before = "plain"
    for strategy in ("hsdp", "tp", "fsdp2"):
        recipe = replace(RECIPE, shard_ranks=2)
        four.make(strategy, WIDE, recipe)
        assert four.train(strategy, 1, 4) == pytest.approx(first, abs=CLOSE), strategy
        np.testing.assert_allclose(four.log_probs(strategy), answers, atol=CLOSE)
        four.save(strategy, tmp_path / strategy)
        ours = four.train(strategy, 2, 2)
        assert ours == pytest.approx(rest, abs=CLOSE), strategy
        four.load(strategy, tmp_path / strategy)
        assert four.train(strategy, 2, 2) == ours  # bit for bit
        four.load(strategy, tmp_path / before)
        assert four.train(strategy, 2, 2) == pytest.approx(rest, abs=CLOSE), (before, strategy)
        before = strategy
    one.load("plain", tmp_path / "fsdp2")
    assert one.train("plain", 2, 2) == pytest.approx(rest, abs=CLOSE)


def test_what_can_not_be_cut_is_refused():
    with pytest.raises(ConfigError, match=r"num_key_value_heads of the model \(4\) does not divide by ranks \(3\)"):
        models.refuse_uncuttable(models.build(ModelSpec("1M"), meta=True), 3)
    cfg = TrainConfig(training=Training(model="gpt2-1M", engine="tp", ranks=2))
    cfg.data.tokenizer = "bytes"
    with pytest.raises(ConfigError, match="can't cut a model of type 'gpt2'; fix: a model of llama"):
        loop.refuse_unusable(cfg)
