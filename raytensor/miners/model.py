"""The model and the engine of a miner's profile.

In: a `MinerProfile`, a vocabulary size, a seed. Out: a `ModelSpec` or an engine, bit-equal for equal arguments on every
rank. Knows nothing of hotkeys.
"""

from collections.abc import Iterable

from raytensor.config import Data, MinerProfile
from raytensor.data import pretrained
from raytensor.data.tokenizer import vocab_size_of
from raytensor.training import engine, models
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


def make_engine(profile: MinerProfile, vocab_size: int, seq_len: int, seed: int, ranks: Ranks) -> engine.Engine:
    """The engine of a profile on this rank."""
    model = models.build(spec(profile, vocab_size, seq_len, seed))
    return engine.make(profile.engine, model, Recipe.of(profile), ranks)
