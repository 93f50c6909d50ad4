"""Settings of collaborative training (raytensor.mechanisms.collab) and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass

from raytensor.config.checks import Checks


@dataclass
class Collab:
    # Size ("20M", "gpt2-124M"), folder or hub name of the shared model; null is a Llama of hidden, layers and heads.
    model: str | None = None
    # Width of the shared model.
    hidden: int = 64
    # Number of layers.
    layers: int = 2
    # Number of attention heads.
    heads: int = 2
    # Optimizer steps that a miner makes on its own between two updates (H).
    inner_steps: int = 10
    # Sequences per step.
    batch_size: int = 16
    # Tokens of a sequence; at most miners.seq_len.
    seq_len: int = 32
    # Values that are sent of each chunk of 4,096, at two bits each; 0 sends all of them as float32. Few values need many
    # rounds: 512 in short runs, 64 from a thousand rounds on.
    k: int = 512
    # Share of what was not sent that stays for the next update.
    feedback: float = 0.95
    # Learning rate of the outer optimizer.
    outer_lr: float = 1.5
    # Momentum (Nesterov) of the outer optimizer; 0.9 needs hundreds of rounds.
    outer_momentum: float = 0.0
    # Largest share of one miner in the sum of all updates' norms; 1 sets no limit.
    peer_cap: float = 0.25
    # Share of an update that is applied when it is judged.
    judge_share: float = 0.5
    # Sequences of a miner's own text, and as many of text that nobody was given, that an update is judged on.
    judge_rows: int = 64
    # Weight of the newest gain in a miner's moving average.
    gain_ema: float = 0.1
    # What the best by rating gets on top of what its gain is worth, as a share of it; others get in proportion to theirs.
    rating_bonus: float = 1.0
    # Cosine above which two updates of a round are the same work.
    copy_cosine: float = 0.75
    # Windows between checkpoints of the shared model; joiners replay the changes since the newest.
    checkpoint_every: int = 10
    # Folder of the shared model, seen by all nodes; null is a folder of the run.
    folder: str | None = None


def check_collab(rule: Collab, checks: Checks) -> None:
    """Refuse impossible numbers; `checks` collects them under "mechanism.collab."."""

    def need(ok: bool, key: str, why: str) -> None:
        checks.need(ok, f"mechanism.collab.{key}", why)

    positive = (
        "hidden",
        "layers",
        "heads",
        "inner_steps",
        "batch_size",
        "outer_lr",
        "judge_share",
        "judge_rows",
        "checkpoint_every",
    )
    checks.positive(*(f"mechanism.collab.{key}" for key in positive))
    need(0 <= rule.k <= 4096, "k", "must lie between 0 (all values, uncompressed) and 4096")
    need(rule.rating_bonus >= 0, "rating_bonus", "must be 0 or greater")
    need(rule.seq_len >= 8, "seq_len", "must be 8 or more")
    for key in ("feedback", "outer_momentum"):
        need(0.0 <= getattr(rule, key) <= 1.0, key, "must lie between 0 and 1")
    for key in ("peer_cap", "gain_ema", "copy_cosine"):
        need(0.0 < getattr(rule, key) <= 1.0, key, "must lie above 0 and be at most 1")
    need(
        rule.hidden > 0 and rule.heads > 0 and rule.hidden % (2 * rule.heads) == 0,
        "hidden",
        f"must be a multiple of 2 * heads ({2 * rule.heads})",
    )
    need(
        rule.judge_rows <= rule.inner_steps * rule.batch_size,
        "judge_rows",
        f"must be at most inner_steps * batch_size ({rule.inner_steps * rule.batch_size}), the sequences that a miner gets",
    )
