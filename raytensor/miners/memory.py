"""How much memory the processes of miners need, before they start.

In: profiles, the settings of the miners, the size of the vocabulary. Out: a `Memory` of a host or of a rank. The
corpus, and the keys and values of prompts that are continued, are not counted. Imports torch for named models only,
whose check has imported it before. Knows nothing of Ray.
"""

from collections import Counter
from collections.abc import Sequence

from raytensor.config import MinerProfile, Mining
from raytensor.config.behaviours import BEHAVIOURS
from raytensor.config.optimizers import ENGINES, OPTIMIZERS
from raytensor.miners.placement import Member, architecture
from raytensor.training import footprint
from raytensor.training.footprint import Llama, Sizes
from raytensor.types import Memory

ANSWERED_ROWS = 128  # of a forward pass for answers, as `training.base.CHUNK`


def of_rank(profile: MinerProfile, seq_len: int, vocab_size: int) -> Memory:
    """A rank of a sharded miner."""
    return _of_rank(profile, profile.ranks, seq_len, vocab_size, gpu=profile.gpus_per_rank > 0)


def of_host(cfg: Mining, members: Sequence[Member], vocab_size: int, *, prompts: bool) -> Memory:
    """A host of whole miners, which take turns. prompts: whether they may be asked to continue texts."""
    gpu = cfg.gpus_per_host > 0
    parts: Counter[str] = Counter()
    stacks: Counter[tuple[Llama, int]] = Counter()
    works: list[int] = []
    for _, profile in members:
        if not BEHAVIOURS[profile.behaviour].trains:
            continue
        shape = architecture(profile)
        if shape is not None and (not gpu if cfg.stacked is None else cfg.stacked):
            stacks[Llama(shape[0], shape[1], vocab_size), profile.batch_size] += 1
            continue
        own = _of_rank(profile, 1, cfg.seq_len, vocab_size, gpu=gpu).parts
        for name in ("parameters", "moments"):
            parts[name] += own[name]
        works.append(sum(size for name, size in own.items() if name not in ("process", "parameters", "moments")))
    for (model, rows), count in stacks.items():
        parts.update(footprint.of_stack(model, count, rows, cfg.seq_len, gpu=gpu))
    if prompts and cfg.generation.kv_cache:
        parts["copies for prompts"] = parts["parameters"]
    parts["models at work"] += max(works, default=0)
    process = footprint.GPU_PROCESS if gpu else footprint.PROCESS
    return Memory({"process": process, **parts}, {"process": 3 * footprint.PROCESS} if gpu else {})


def _of_rank(profile: MinerProfile, ranks: int, seq_len: int, vocab_size: int, *, gpu: bool) -> Memory:
    bf16, moments = profile.precision == "bf16", OPTIMIZERS[profile.optimizer].moments
    more = {"accumulate": profile.accumulate, "bf16": bf16, "gpu": gpu, "shards": profile.shard_ranks}
    return footprint.of_rank(
        profile.engine, _sizes(profile, ranks, seq_len, vocab_size), ranks, moments=moments, **more
    )


def _sizes(profile: MinerProfile, ranks: int, seq_len: int, vocab_size: int) -> Sizes:
    shares = 1 if ENGINES[profile.engine].same_rows else ranks  # of the rows
    rows = max(1, profile.batch_size // (shares * profile.accumulate))
    if profile.model is None and not profile.lora_rank:
        return Llama(profile.hidden, profile.layers, vocab_size).sizes(rows * seq_len, ANSWERED_ROWS * seq_len)
    from raytensor.miners import model  # imports torch

    return model.sizes(profile, vocab_size, rows, seq_len)
