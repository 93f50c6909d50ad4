"""Models of miners: small Llamas of transformers with random initial weights.

In: a `MinerProfile`, a vocabulary size, a seed. Out: a `LlamaForCausalLM`, bit-equal for equal arguments.
Knows nothing of training.
"""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from raytensor.config import MinerProfile


def build(profile: MinerProfile, vocab_size: int, seq_len: int, seed: int) -> LlamaForCausalLM:
    """A Llama (pre-norm, RoPE, SwiGLU) with tied embeddings: vocab_size * hidden parameters of embedding and, per
    layer, 4 * hidden^2 of attention and 8 * hidden^2 of feed-forward (an inner width of 8/3 hidden, rounded to 16)."""
    inner = max(16, round(8 * profile.hidden / 3 / 16) * 16)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=profile.hidden,
        intermediate_size=inner,
        num_hidden_layers=profile.layers,
        num_attention_heads=profile.heads,
        num_key_value_heads=profile.heads,
        max_position_embeddings=seq_len,
        tie_word_embeddings=True,
        use_cache=False,
        # The usual 0.02 is made for wide models; narrow ones learn faster from a larger start.
        initializer_range=0.5 / profile.hidden**0.5,
        bos_token_id=None,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def num_parameters(model: torch.nn.Module) -> int:
    """Parameters, shared ones counted once."""
    return sum(p.numel() for p in model.parameters())
