"""The groups of settings that jobs share: plain dataclasses, every default here and nowhere else.

In: nothing. Out: the sections of a job's configuration. The comment above each field is its help text.
Knows nothing of YAML, of checks or of which job uses what.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Paths:
    # Folder that holds one folder per run.
    runs: str = "runs"
    # Folder for what can be made again: tokenizers, tokenized text.
    cache: str = "~/.cache/raytensor"


@dataclass
class Cluster:
    # Ray address to join ("auto", "host:port", "ray://..."); null starts a local Ray unless RAY_ADDRESS is set.
    address: str | None = None
    # CPUs that a local Ray offers to actors; null means all cores, and 2 on a machine with one.
    num_cpus: int | None = None
    # GPUs that a local Ray offers; null lets Ray find them.
    num_gpus: int | None = None
    # Seconds to wait for an actor or a placement group before giving up with what was asked and what is free.
    start_timeout_s: float = 120.0
    # torch threads of every CPU actor; more than one is slower on small models.
    torch_threads: int = 1


@dataclass
class Data:
    # What `datasets.load_dataset` is asked for ("text", "json", "parquet", or a hub name); "stdlib" is the embedded
    # corpus: the documentation and docstrings of Python's own standard library, no download.
    source: str = "stdlib"
    # Files of a local source (a glob or a folder); unused by "stdlib" and hub names.
    files: str | None = None
    # Configuration name of a hub dataset.
    subset: str | None = None
    # Split of the source that is read.
    split: str = "train"
    # Column that holds the text.
    column: str = "text"
    # Documents read at most; null reads all.
    max_documents: int | None = None
    # Share of the documents that is held out: never trained on, the only text that validators ask about.
    heldout_share: float = 0.1
    # "bpe" trains a byte-pair tokenizer on the training part and caches it; "bytes" uses the 256 byte values.
    tokenizer: str = "bpe"
    # Size of the BPE vocabulary.
    vocab_size: int = 1024


@dataclass
class MinerProfile:
    """How one miner behaves. Miners take the profiles in order, again from the start when there are more miners."""

    # {behaviours}
    behaviour: str = "honest"
    # Model: null is a Llama of hidden, layers and heads; else a size (1M 5M 20M 124M 350M 1.2B 8B), gpt2-SIZE, a folder
    # in transformers' format (an export of `raytensor train`), or a hub name.
    model: str | None = None
    # Width of the model.
    hidden: int = 128
    # Number of layers.
    layers: int = 4
    # Number of attention heads.
    heads: int = 4
    # {optimizers}
    optimizer: str = "adamw"
    # Learning rate.
    lr: float = 3e-3
    # Optimizer steps per round.
    steps: int = 8
    # Sequences per step, over all ranks.
    batch_size: int = 8
    # How the model is trained and spread over ranks: {engines}
    engine: str = "plain"
    # Processes that train and serve the model together, in a placement group of their own.
    ranks: int = 1
    # CPUs that each of those processes reserves.
    cpus_per_rank: float = 0.5
    # GPUs that each of those processes reserves: 1, or 0 to train on CPUs.
    gpus_per_rank: int = 0
    # fp32 | bf16 (on GPUs; slower than fp32 on most CPUs)
    precision: str = "fp32"
    # Forwards and backwards per optimizer step on each rank; batch_size must divide by ranks * accumulate.
    accumulate: int = 1
    # Compute activations again in the backward instead of keeping them: less memory, a third more work.
    activation_checkpointing: bool = False
    # Above 0: the weights are frozen and low-rank adapters of this rank are trained (needs raytensor[lora]).
    lora_rank: int = 0


def _default_profiles() -> list[MinerProfile]:
    """Eight honest miners that differ in size, learning rate and amount of training; the first learns most."""
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
class Wire:
    """How the miners of a run answer validators elsewhere."""

    # Serve every miner's hotkey by signed HTTP, and publish where on the chain.
    enabled: bool = False
    # Address to listen on.
    host: str = "0.0.0.0"
    # Address to publish; null is this node's own in the cluster. The chain refuses 127.0.0.1.
    ip: str | None = None
    # Port of the first miner; the next ones follow. 0 takes free ports.
    port: int = 8091
    # Serve only hotkeys with a validator permit on the subnet (registered ones otherwise).
    require_permit: bool = True
    # Alpha that a caller must have on the subnet.
    min_stake_alpha: float = 0.0
    # Hotkeys that are served whatever their registration, permit or stake.
    allow: list[str] = field(default_factory=list)


@dataclass
class Miners:
    # Miners (hotkeys) on the subnet.
    num_miners: int = 8
    # Host actors that share the miners; null takes as many as fit beside the other actors, at most one a miner.
    num_hosts: int | None = None
    # CPUs that each host actor reserves; a booking, no limit: two hosts, a scorer and the chain actor fit on 2 cores.
    cpus_per_host: float = 0.6
    # GPUs that each host actor reserves (a fraction shares a device).
    gpus_per_host: float = 0.0
    # Tokens of a training sequence.
    seq_len: int = 32
    # Rounds' worth of training that an honest miner does before it is first asked.
    warmup_rounds: int = 2
    # Held-out texts that each miner's held-out loss is measured on, the same for all.
    heldout_rows: int = 1024
    # Compute a host's models of one shape together, several in each matrix product; a miner's numbers are the same bits
    # whoever is beside it. null: on CPUs.
    stacked: bool | None = None
    # Seconds a host may take for one round of training of all its miners.
    train_timeout_s: float = 300.0
    # Rounds between checkpoints (the last round always writes one); 0 writes none.
    checkpoint_every: int = 1
    # Rounds between two files that a miner hands in and commits to on the chain, from the first round on, where the
    # mechanism asks for files (mechanism=model_eval).
    commit_every: int = 4
    # Folder of those files, seen by all nodes; null is a folder of the run.
    files: str | None = None
    # Miners on the wire.
    wire: Wire = field(default_factory=Wire)
    # How the miners differ: taken in order, again from the start when there are more miners than profiles.
    profiles: list[MinerProfile] = field(default_factory=_default_profiles)


@dataclass
class Validators:
    # Validators (hotkeys) on the subnet.
    num_validators: int = 3
    # TAO that the first validator stakes; each next one stakes `stake_ratio` times the one before.
    stake_tao: float = 100.0
    # Ratio of the stakes of neighbouring validators.
    stake_ratio: float = 0.7
    # Scorer actors that all validators share.
    num_scorers: int = 1
    # CPUs that each scorer actor reserves.
    cpus_per_scorer: float = 0.5
    # GPUs that each scorer actor reserves (a fraction shares a device).
    gpus_per_scorer: float = 0.0
    # Calls that one scorer holds at most, the one it works on included.
    scorer_queue: int = 2
    # Responses that are scored in one call at most; a call that runs out of memory is halved. Isolated scorers take them one
    # after the other, so that a crash costs no answer that was scored before it.
    pack_items: int = 16
    # MiB of questions and responses in one call at most.
    pack_mib: float = 64.0
    # Seconds that one call of a scorer may take; what runs longer is ended, tried once elsewhere, and fails alone.
    score_limit_s: float = 60.0
    # Score in a process that the scorer forks, so that a crash costs milliseconds and loads nothing again; null: where
    # the scorer has no GPU.
    isolate: bool | None = None
    # Seconds that one miner may take for one question.
    deadline_s: float = 60.0
    # MiB after which a segment of the evidence log is closed and the next one begun.
    evidence_mib: float = 64.0
    # Rounds after which it is; null: by its size alone.
    evidence_rounds: int | None = None
    # Closed segments that are kept of each evidence log; null: all. What comes after the newest saved state always is.
    evidence_segments: int | None = 16


@dataclass
class Chain:
    # Endpoint of a running chain ("ws://..."); null starts the embedded chain for this run.
    endpoint: str | None = None
    # Seconds between blocks of the embedded chain.
    block_time_s: float = 0.5
    # Blocks between two epochs of the subnet.
    tempo: int = 20
    # Seconds that any one request to the chain may take.
    timeout_s: float = 20.0
    # Seconds to wait for an extrinsic to be in a block.
    inclusion_timeout_s: float = 30.0
    # Rounds between two settings of weights.
    weights_every: int = 1


@dataclass
class Tracker:
    # none | wandb
    kind: str = "none"
    # wandb project.
    project: str = "raytensor"
    # wandb mode: offline needs no key and no network; online reads WANDB_API_KEY from the environment.
    mode: str = "offline"
