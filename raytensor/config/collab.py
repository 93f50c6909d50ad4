"""Settings of collaborative training (raytensor.mechanisms.collab)."""

from collections.abc import Iterator
from dataclasses import dataclass

from raytensor.config.checks import Section, setting


@dataclass
class Collab(Section):
    # Size ("20M", "gpt2-124M"), folder or hub name of the shared model; null is a Llama of hidden, layers and heads.
    model: str | None = None
    # Width of the shared model.
    hidden: int = 64
    # Number of layers.
    layers: int = 2
    # Number of attention heads.
    heads: int = 2
    # Optimizer steps that a miner makes locally between two updates (H).
    inner_steps: int = 10
    # Sequences per step.
    batch_size: int = 16
    # Tokens of a sequence; at most miners.seq_len.
    seq_len: int = setting(32, least=8, most=65536)
    # Values that are sent per chunk of 4,096, at two bits each; 0 sends all of them uncompressed (float32). Small
    # values need many rounds: 512 for short runs, 64 from a thousand rounds on.
    k: int = setting(512, least=0, most=4096)
    # Share of the values not sent that is kept for the next update (error feedback).
    feedback: float = setting(0.95, least=0, most=1)
    # Learning rate of the outer optimizer.
    outer_lr: float = 1.5
    # Momentum (Nesterov) of the outer optimizer; 0.9 needs hundreds of rounds.
    outer_momentum: float = setting(0.0, least=0, most=1)
    # Largest share of one miner in the sum of the norms of all updates; 1 sets no limit.
    peer_cap: float = setting(0.25, above=0, most=1)
    # Share of an update that is applied when it is evaluated.
    judge_share: float = 0.5
    # Sequences on which an update is evaluated: so many of the miner's own text, and as many of text assigned to
    # nobody.
    judge_rows: int = 64
    # Weight of the newest gain in the moving average of a miner.
    gain_ema: float = setting(0.1, above=0, most=1)
    # Bonus of the miner with the best rating, as a share of what its gain is worth; others get it in proportion to
    # theirs.
    rating_bonus: float = setting(1.0, least=0)
    # Cosine similarity above which two updates of a round count as the same work.
    copy_cosine: float = setting(0.75, above=0, most=1)
    # Rounds between checkpoints of the shared model; a miner that joins replays the updates since the newest one.
    checkpoint_every: int = 10
    # Folder of the shared model, visible to all nodes and miners, or an object-store URL (s3://BUCKET/PREFIX; needs
    # raytensor[s3]); null uses a folder of the run.
    folder: str | None = None

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.hidden % (2 * self.heads):
            yield "hidden", f"must be a multiple of 2 * heads ({2 * self.heads})"
        rows = self.inner_steps * self.batch_size
        if self.judge_rows > rows:
            yield "judge_rows", f"must be at most inner_steps * batch_size ({rows}), the sequences of a miner per round"
