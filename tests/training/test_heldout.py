"""The held-out loss: over whole sequences, its standard error against the spread of many draws, and below 0.01 nats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_train_job import settings

from raytensor.config import Data
from raytensor.config.train import Training
from raytensor.data.text import load_tokenizer
from raytensor.training import heldout, loop, models
from raytensor.training.engine import PlainEngine
from raytensor.training.models import ModelSpec, build
from raytensor.training.ranks import alone


def test_all_positions_count():
    """As torch gives it for each sequence by itself."""
    engine = PlainEngine(build(ModelSpec(hidden=32, layers=1, heads=2, vocab_size=64, seq_len=16)), 3e-3)
    rows = np.random.default_rng(0).integers(0, 64, (300, 17)).astype(np.int32)
    found = engine.sequence_losses(rows)
    for row in (0, 7, 299):
        tokens = torch.from_numpy(rows[row : row + 1].astype(np.int64))
        with torch.no_grad():
            logits = engine.model(input_ids=tokens[:, :-1]).logits
        expected = torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:])
        assert found[row] == pytest.approx(float(expected), abs=1e-5)


def test_the_standard_error_is_the_spread_of_draws():
    """1,000 draws of 100 sequences: their means spread as the error says."""
    draw = np.random.default_rng(1)
    found = [heldout.estimate(draw.normal(3.0, 0.5, 100), 16) for _ in range(1000)]
    assert np.std([one.mean for one in found]) == pytest.approx(np.mean([one.error for one in found]), rel=0.1)
    assert found[0].num_tokens == 1600


def test_the_default_is_below_a_hundredth_of_a_nat(tmp_path):
    """Of `raytensor train` without settings, where one target for each of 256 contexts gave about 0.15."""
    cfg = replace(settings(tmp_path), data=Data(), training=Training())
    coder = load_tokenizer(cfg.data, cfg.paths.cache)
    exam = heldout.draw(cfg, coder)
    assert exam.rows.shape[1] == 129 and len(exam.rows) > 256
    engine = PlainEngine(models.build(loop.spec_of(cfg, coder.vocab_size)), 3e-3)
    engine.train_steps(exam.rows[:8].reshape(1, 8, 129).repeat(2, axis=0))
    assert exam.measure(engine).error < 0.01


def test_progress_has_the_error_and_short_parts_are_measured(tmp_path):
    seen = []
    cfg = settings(tmp_path, steps=10)
    loop.run(cfg, alone(), tmp_path / "run", seen.append)
    assert seen[-1].heldout is not None and 0 < seen[-1].heldout_error < 1
    again = heldout.draw(cfg, load_tokenizer(cfg.data, cfg.paths.cache))
    np.testing.assert_array_equal(again.rows, heldout.draw(cfg, load_tokenizer(cfg.data, cfg.paths.cache)).rows)
    longer = replace(cfg, training=replace(cfg.training, seq_len=60_000))
    exam = heldout.draw(longer, load_tokenizer(cfg.data, cfg.paths.cache))
    assert 2 <= len(exam.rows) <= 17 and exam.rows.shape[1] < 60_000
