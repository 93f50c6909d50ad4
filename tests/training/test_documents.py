"""Documents in one sequence: the loss of each is that of the document alone; training from prepared folders."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from raytensor.config import Data
from raytensor.config.train import TrainConfig, Training
from raytensor.data import prepare
from raytensor.data.pretrained import load
from raytensor.training import loop
from raytensor.training.causal import Causal
from raytensor.training.models import ModelSpec, build
from raytensor.training.ranks import alone

END, V = 0, 48


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_masked_sequence_has_the_loss_of_its_documents_alone(name, attention):
    torch.manual_seed(0)
    model = build(ModelSpec(f"{name}-1M", vocab_size=V, seq_len=64, seed=3)).eval()
    model.set_attn_implementation(attention)
    draw = np.random.default_rng(0)
    documents = [np.append(draw.integers(1, V, size), END) for size in (5, 1, 17, 9, 28)]
    tokens = torch.from_numpy(np.concatenate([[END], *documents]))[None]
    apart, packed = Causal(model, END), Causal(model)
    with torch.no_grad():
        alone = [
            packed(torch.from_numpy(np.append(END, ids))[None]).item() * ids.size for ids in documents
        ]  # each document after the end of the one before
        mean = sum(alone) / (tokens.shape[1] - 1)
        assert apart(tokens).item() == pytest.approx(mean, abs=1e-5)
        assert apart(tokens.repeat(3, 1), by_row=True).tolist() == pytest.approx([mean] * 3, abs=1e-5)
        assert abs(packed(tokens).item() - mean) > 1e-3  # without masks the documents before matter
        # A sequence that starts within a document reads it from there.
        cut = tokens[:, 3:]
        rest = packed(cut[:, :4]).item() * 3
        assert apart(cut).item() == pytest.approx((rest + sum(alone[1:])) / (cut.shape[1] - 1), abs=1e-5)


def test_training_from_a_prepared_folder_goes_on_exactly(ray_session, tmp_path):
    """Also with document masks; the export has the folder's tokenizer; the corpus itself is not read."""
    torch.set_num_threads(1)
    source = Data(max_documents=400, tokenizer="bpe", vocab_size=300)
    folder = tmp_path / "prepared"
    prepare.prepare(source, folder, os.environ["TEXT_CACHE"], block_bytes=100_000, say=lambda _: None)
    training = Training(steps=20, seq_len=16, batch_size=4, checkpoint_every=8, log_every=4, heldout_rows=16)
    data = Data(source="parquet", prepared=[str(folder)], document_masks=True)
    cfg = TrainConfig(data=data, training=training)
    cfg.paths.cache = str(tmp_path / "cache")
    cfg.settle()
    assert loop.refuse_unusable(cfg) > 0

    def curve(cfg: TrainConfig, name: str) -> dict[int, tuple[float, float | None]]:
        found = {}
        loop.run(cfg, alone(), tmp_path / name, lambda one: found.update({one.step: (one.loss, one.heldout)}))
        return found

    whole = curve(cfg, "whole")
    first = replace(cfg, training=replace(training, steps=8, schedule="constant"))
    plain = replace(cfg, training=replace(training, schedule="constant"))
    expected = curve(plain, "plain")
    found = curve(first, "broken") | curve(plain, "broken")
    assert {step: found[step][0] for step in expected} == {step: one[0] for step, one in expected.items()}
    assert found[20] == expected[20] and whole[20][1] is not None and whole[20][0] < whole[4][0]
    assert load(str(tmp_path / "whole" / "export")).digest() == load(str(folder / "tokenizer")).digest()
