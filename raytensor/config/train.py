"""The settings of the `train` job."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from raytensor.config.checks import setting
from raytensor.config.groups import Job, Tracker
from raytensor.config.recipes import SCHEDULES, Recipe


@dataclass
class Training(Recipe):
    # Model: a size (1M 5M 20M 124M 350M 1.2B 8B: a Llama), gpt2-SIZE, qwen2-SIZE, a folder in the format of
    # transformers, or a hub name: OWNER/NAME or OWNER/NAME@REVISION.
    model: str = setting("1M", path="model")
    # Use the weights of a folder or hub model; false uses its shape with random weights.
    pretrained: bool = True
    # Optimizer steps.
    steps: int = 200
    warmup_steps: int = setting(20, least=0)
    schedule: str = setting("cosine", choices=SCHEDULES)
    # Tokens of a sequence.
    seq_len: int = setting(128, least=2, most=65536)
    # Elastic training: continue with as few ranks as this when a node is lost, and add ranks again when there is room;
    # null is not elastic.
    min_ranks: int | None = None
    # torch.compile; null: on GPUs only.
    compile: bool | None = None
    # Folder or object-store URL (s3://BUCKET/PREFIX; needs raytensor[s3]) of the checkpoints and the export, below the
    # run's name; null: the run's folder.
    store: str | None = setting(None, path="path")
    # Steps between checkpoints (the last step always writes one). They are written while the training goes on.
    checkpoint_every: int = 50
    # Checkpoints to keep. The newest one that later steps have proved good is kept besides.
    keep: int = 2
    # Steps in a row whose gradient is not finite after which the training goes back to its newest checkpoint. Such
    # steps are left out; no checkpoint is written until one is finite again.
    max_skipped: int = 10
    # Times that the training goes back to a checkpoint before it ends with an error.
    max_rollbacks: int = setting(3, least=0)
    # Steps between lines of progress.
    log_every: int = 10
    # Steps between measurements of the held-out loss (the last step always measures); 0 never measures in between.
    heldout_every: int = setting(100, least=0)
    # Sequences of held-out text on which it is measured, each of seq_len tokens; all where the held-out part has fewer.
    heldout_rows: int = setting(1024, least=2)
    # Times that lost workers are replaced before the job fails.
    max_failures: int = setting(5, least=0)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from Recipe.conflicts(self)
        if self.min_ranks is None:
            return
        if self.min_ranks > self.ranks:
            yield "min_ranks", f"must be at most training.ranks ({self.ranks})"
        counts = range(self.min_ranks, self.ranks + 1)
        if uneven := [n for n in counts if self.batch_size % (n * self.accumulate)]:
            why = f"must divide by accumulate times each number of ranks of an elastic run; {uneven} do not"
            yield "batch_size", why


@dataclass
class TrainConfig(Job):
    # The model and how it is trained.
    training: Training = field(default_factory=Training)
    # Where metrics are logged besides the run folder.
    tracker: Tracker = field(default_factory=Tracker)

    def models(self) -> list[str | None]:
        return [self.training.model]
