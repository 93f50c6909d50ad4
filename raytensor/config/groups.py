"""The sections of settings that several jobs share: plain dataclasses, every default here and nowhere else.

In: nothing. Out: the sections of a job's configuration. The comment above a field is its help text; `setting` declares
what a field allows where that is more than "a number greater than 0, a text that is not empty".
Knows nothing of YAML or of which job uses what.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from raytensor.config.behaviours import BEHAVIOURS
from raytensor.config.checks import ENDPOINT, FOLDER_NAME, Section, setting
from raytensor.config.cluster import Cluster
from raytensor.config.data import Data, settle_tokenizer
from raytensor.config.mechanisms import Mechanism
from raytensor.config.recipes import Recipe
from raytensor.config.wire import MinersWire
from raytensor.types import Need


@dataclass
class Paths(Section):
    # Folder that holds one folder per run.
    runs: str = setting("runs", path="path")
    # Folder for files that can be rebuilt: tokenizers and tokenized text.
    cache: str = setting("~/.cache/raytensor", path="path")


@dataclass
class MinerProfile(Recipe):
    """How one miner behaves. Miners take the profiles in order, repeating from the first when there are more miners."""

    # {behaviours}
    behaviour: str = setting("honest", choices=tuple(BEHAVIOURS))
    # Model: null is a Llama of hidden, layers and heads; else a size (1M 5M 20M 124M 350M 1.2B 8B), gpt2-SIZE, a folder
    # in the format of transformers (an export of `raytensor train`), or a hub name: OWNER/NAME or OWNER/NAME@REVISION.
    model: str | None = setting(None, path="model")
    # Width of the model.
    hidden: int = 128
    # Number of layers.
    layers: int = 4
    # Number of attention heads.
    heads: int = 4
    # Optimizer steps per round.
    steps: int = 8
    # Optimizer steps of all rounds after which a schedule has ended; a constant one needs none.
    total_steps: int | None = None

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from Recipe.conflicts(self)
        if self.schedule != "constant" and self.total_steps is None:
            yield "total_steps", f"must be given with schedule={self.schedule}: a miner trains as long as it runs"
        if self.hidden % (2 * self.heads):
            yield "hidden", f"must be a multiple of 2 * heads ({2 * self.heads})"


def _default_profiles() -> list[MinerProfile]:
    """Eight honest miners that differ in size, learning rate and amount of training; the first one learns most."""
    return [
        MinerProfile(hidden=128, layers=4, lr=1.5e-3, steps=60),
        MinerProfile(hidden=64, layers=2, steps=56),
        MinerProfile(hidden=128, layers=4, lr=1.5e-3, steps=40),
        MinerProfile(hidden=64, layers=2, steps=28),
        MinerProfile(hidden=128, layers=4, lr=1.5e-3, steps=26),
        MinerProfile(hidden=32, layers=2, heads=2, steps=24),
        MinerProfile(hidden=64, layers=2, steps=15),
        MinerProfile(hidden=64, layers=2, lr=3e-4, steps=48),
    ]


@dataclass
class Generation(Section):
    """How miners answer prompts with text."""

    # Keep keys and values of the tokens that were computed, so that a new token costs one position. It takes a second
    # copy of a model's weights, made with its first prompt. false, and models of several ranks: compute the whole text
    # for each token.
    kv_cache: bool = True
    # Prompts that one model continues together; more wait. The cache holds at most twice this number times seq_len
    # tokens (sizes are powers of two), of 2 * layers * key and value heads * head width numbers each.
    max_sequences: int = 32
    # Share of its time that a host gives to prompts while it trains. Without training it gives all.
    share: float = setting(0.1, above=0, most=1)


@dataclass
class Mining(Section):
    """How miners are hosted, trained and served, wherever their hotkeys come from."""

    # Host actors that share the miners; null uses as many as fit beside the other actors, at most one per miner.
    num_hosts: int | None = None
    # CPUs that each host actor reserves. It is a reservation, not a limit: two hosts, a scorer and the chain writer fit
    # on 2 cores.
    cpus_per_host: float = 0.6
    # GPUs that each host actor reserves (a fraction shares a device).
    gpus_per_host: float = setting(0.0, least=0)
    # Tokens of a training sequence.
    seq_len: int = setting(32, least=8, most=65536)
    # Rounds of training that an honest miner does before its first question.
    warmup_rounds: int = setting(2, least=0)
    # Held-out texts on which the held-out loss of each miner is measured, the same for all.
    heldout_rows: int = 1024
    # Compute the models of one shape on a host together, several in each matrix product. The results of a miner are
    # equal to the bit with or without others beside it. null: on CPUs.
    stacked: bool | None = None
    # Seconds that a host may take to train all its miners for one round.
    train_timeout_s: float = 300.0
    # Rounds between checkpoints (the last round always writes one); 0 writes none.
    checkpoint_every: int = setting(1, least=0)
    # Rounds between two files that a miner submits and commits to on the chain, from the first round on, where the
    # mechanism asks for files (mechanism=model_eval).
    commit_every: int = 4
    # Folder of these files, visible to all nodes; null uses a folder of the run.
    files: str | None = None
    # Texts that continue prompts.
    generation: Generation = field(default_factory=Generation)
    # Signed HTTP for validators of other operators.
    wire: MinersWire = field(default_factory=MinersWire)
    # How the miners differ: used in order, repeating from the first when there are more miners than profiles.
    profiles: list[MinerProfile] = field(default_factory=_default_profiles)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if not self.profiles:
            yield "profiles", "must hold one profile or more"

    def unfit(self, num_miners: int, name: str) -> Iterator[tuple[str, str]]:
        """(key, why) of what does not fit a number of miners; name: of the setting that decides it."""
        if self.num_hosts is not None and self.num_hosts > num_miners:
            yield "num_hosts", f"must be at most {name} ({num_miners})"
        ports = 1 if self.wire.one_port else num_miners
        if self.wire.port > 65536 - ports:
            yield "wire.port", f"must leave room for {ports} ports up to 65535, or be 0 for free ones"


@dataclass
class Population(Section):
    # Number of miners (hotkeys) on the subnet.
    num_miners: int = 8


@dataclass
class Miners(Mining, Population):
    """The miners of a run."""

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from super().conflicts()
        yield from self.unfit(self.num_miners, "miners.num_miners")


@dataclass
class Scoring(Section):
    """How validators score answers and keep the evidence."""

    # Scorer actors that all validators share.
    num_scorers: int = 1
    # CPUs that each scorer actor reserves.
    cpus_per_scorer: float = 0.5
    # GPUs that each scorer actor reserves (a fraction shares a device).
    gpus_per_scorer: float = setting(0.0, least=0)
    # Calls in flight per scorer, the running one included.
    scorer_queue: int = 2
    # Largest number of responses that one call scores; a call that runs out of memory is split in half. Isolated
    # scorers score them one after another, so that a crash loses no result of the responses before it.
    pack_items: int = 16
    # Largest size of one call in MiB of questions and responses.
    pack_mib: float = 64.0
    # Seconds that one call of a scorer may take; a longer one is ended and retried once on another scorer.
    score_limit_s: float = 60.0
    # Score in a process that the scorer forks, so that a crash costs milliseconds and nothing is loaded again; null:
    # where the scorer has no GPU.
    isolate: bool | None = None
    # Seconds that one miner may take for one question.
    deadline_s: float = 60.0
    # Size in MiB at which a segment of the evidence log is closed and the next one begins.
    evidence_mib: float = 64.0
    # Number of rounds after which a segment is closed; null: by size only.
    evidence_rounds: int | None = None
    # Closed segments to keep of each evidence log; null keeps all. Segments after the newest saved state are always
    # kept.
    evidence_segments: int | None = 16

    @property
    def need(self) -> Need:
        """What the scorers ask of a cluster."""
        settings = "validators.num_scorers, validators.cpus_per_scorer or validators.gpus_per_scorer"
        return Need("scorers", self.num_scorers, self.cpus_per_scorer, self.gpus_per_scorer, settings)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.isolate and self.gpus_per_scorer:
            yield "isolate", "must be false or null where scorers have a GPU: a GPU context does not survive a fork"


@dataclass
class Validators(Scoring):
    """The validators of a run: how many, with how much stake, and how they score."""

    # Number of validators (hotkeys) on the subnet; the chain permits 64.
    num_validators: int = setting(3, least=1, most=64)
    # TAO that the first validator stakes; each next one stakes `stake_ratio` times the one before.
    stake_tao: float = 100.0
    # Ratio of the stakes of neighbouring validators.
    stake_ratio: float = 0.7


@dataclass
class Chain(Section):
    # Endpoint of a running chain ("ws://..."); null starts the embedded chain for this run.
    endpoint: str | None = setting(None, form=ENDPOINT)
    # Seconds between blocks of the embedded chain.
    block_time_s: float = 0.5
    # Blocks between two epochs of the subnet.
    tempo: int = setting(20, least=2, most=65535)
    # Seconds that any one request to the chain may take.
    timeout_s: float = 20.0
    # Seconds to wait for an extrinsic to be included in a block.
    inclusion_timeout_s: float = 30.0
    # Rounds between two weight settings.
    weights_every: int = 1


@dataclass
class Tracker(Section):
    # none | wandb
    kind: str = setting("none", choices=("none", "wandb"))
    # wandb project.
    project: str = "raytensor"
    # wandb mode: offline needs no key and no network; online reads WANDB_API_KEY from the environment.
    mode: str = setting("offline", choices=("offline", "online", "disabled"))


class MinersJob(Protocol):
    """What the miners' code reads of a job's configuration."""

    @property
    def seed(self) -> int: ...
    @property
    def paths(self) -> Paths: ...
    @property
    def cluster(self) -> Cluster: ...
    @property
    def data(self) -> Data: ...
    @property
    def miners(self) -> Mining: ...
    @property
    def mechanism(self) -> Mechanism: ...


@dataclass
class Job(Section):
    """What every job with a run folder of its own has."""

    # Name of the run and of its folder under paths.runs; null makes one from the time.
    name: str | None = setting(None, form=FOLDER_NAME)
    # Seed of everything random: initial weights, the text of each miner, questions, keys, trials.
    seed: int = setting(0, least=0, most=2**63 - 1)
    # never (refuse an existing folder) | auto (resume the run in it if there is one) | must (refuse if there is none).
    resume: str = setting("never", choices=("never", "auto", "must"))
    # Print the resolved configuration and what the job needs, then stop.
    dry_run: bool = False
    # Folders.
    paths: Paths = field(default_factory=Paths)
    # The Ray cluster.
    cluster: Cluster = field(default_factory=Cluster)
    # The text that models train on and are asked about.
    data: Data = field(default_factory=Data)

    def models(self) -> list[str | None]:
        """The models that the job trains, as they are named."""
        return []

    def settle(self) -> None:
        settle_tokenizer(self.data, self.models())

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.resume != "never" and self.name is None:
            yield "resume", "needs the name of the run to resume: add name=..."
