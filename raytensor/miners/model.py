"""The model and the engine of a miner's profile.

In: a `MinerProfile`, a vocabulary size, a seed. Out: a `ModelSpec` or an engine, bit-equal for equal arguments on every
rank; the likeliest tokens of a model's answer; a model of constant answers. Knows nothing of hotkeys.
"""

from collections.abc import Iterable

import numpy as np
import torch
from transformers import LlamaForCausalLM

from raytensor.config import Data, MinerProfile
from raytensor.config.optimizers import ENGINES
from raytensor.data import pretrained
from raytensor.data.tokenizer import vocab_size_of
from raytensor.training import engine, models, single_file, trace
from raytensor.training.footprint import Sizes
from raytensor.training.models import ModelSpec
from raytensor.training.ranks import Ranks
from raytensor.training.recipe import Recipe


def refuse_models(profiles: Iterable[MinerProfile], data: Data, cache: str, seq_len: int, *, where: str) -> None:
    """Check that named models can be built, before anything starts, and set `data.tokenizer` to theirs.

    where  the setting that names the models. Raises `ConfigError`; see `pretrained.settle`.
    """
    named = {profile.model: profile for profile in profiles if profile.model}
    for profile in named.values():
        models.refuse_unusable(spec(profile, 1, seq_len, seed=0))
    pretrained.settle(data, named, cache, where=where)
    vocab_size = vocab_size_of(data.tokenizer, data.vocab_size)
    for profile in named.values():
        models.refuse_unusable(spec(profile, vocab_size, seq_len, seed=0))


def spec(profile: MinerProfile, vocab_size: int, seq_len: int, seed: int) -> ModelSpec:
    """The model of a profile. Without `profile.model`: a Llama (pre-norm, RoPE, SwiGLU) with tied embeddings of
    vocab_size * hidden parameters and, per layer, 4 * hidden^2 parameters of attention and 8 * hidden^2 of
    feed-forward (inner width 8/3 hidden, rounded to 16)."""
    shape = (profile.hidden, profile.layers, profile.heads)
    return ModelSpec(profile.model, *shape, vocab_size, seq_len, seed, lora_rank=profile.lora_rank)


def sizes(profile: MinerProfile, vocab_size: int, rows: int, seq_len: int) -> Sizes:
    """Parameters and activations of a profile; `rows` sequences in a micro-batch."""
    casts = ENGINES[profile.engine].casts
    return trace.sizes(spec(profile, vocab_size, seq_len, seed=0), Recipe.of(profile), rows, seq_len, casts=casts)


def make_engine(profile: MinerProfile, vocab_size: int, seq_len: int, seed: int, ranks: Ranks) -> engine.Engine:
    """The engine of a profile on this rank."""
    model = models.build(spec(profile, vocab_size, seq_len, seed))
    return engine.make(profile.engine, model, Recipe.of(profile), ranks)


def top_tokens(log_probs: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top_k` likeliest tokens of each row, likeliest first: ids int32 [B, K] and probs float32 [B, K].

    log_probs  float32 [B, V].
    """
    chosen = np.argpartition(-log_probs, top_k - 1, axis=1)[:, :top_k]
    order = np.argsort(-np.take_along_axis(log_probs, chosen, axis=1), axis=1, kind="stable")
    ids = np.take_along_axis(chosen, order, axis=1)
    return ids.astype(np.int32), np.exp(np.take_along_axis(log_probs, ids, axis=1)).astype(np.float32)


def frequency_table(log_unigram: np.ndarray, seq_len: int) -> bytes:
    """A Llama that always answers with the frequencies `log_unigram` (float32 [V]), as a file.

    All tokens have the same embedding and the layers add nothing. The product of the norm's result (1, 1) with each
    row of the output embedding is the token's log frequency.
    """
    shape = dict(zip(single_file.SHAPE, (len(log_unigram), 2, 1, 1, 1, 1, seq_len)))
    config = single_file.llama(shape | {"tie_word_embeddings": False})
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in LlamaForCausalLM(config).state_dict().items()}
    weights = {name: torch.zeros(shape) if "_proj" in name else torch.ones(shape) for name, shape in shapes.items()}
    weights["lm_head.weight"] = torch.from_numpy(log_unigram.astype(np.float32))[:, None].repeat(1, 2) / 2
    return single_file.pack_weights(config, weights)
