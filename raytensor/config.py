"""Configuration: the schema, its checks, and how a job's configuration is composed.

In: a root file of `conf/` (one per job) and Hydra overrides. Out: a `RunConfig` of plain dataclasses, checked.
Defaults live here and nowhere else; a YAML file of `conf/` says only what differs from them.
Knows nothing of Ray, torch or the chain: a wrong number is refused here, before anything starts.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raytensor.errors import ConfigError

BEHAVIOURS = ("honest", "lazy", "copy", "constant", "random", "silent")


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
    # CPUs that a local Ray offers to actors; null means all cores.
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

    # honest | lazy (trains every tenth round) | copy (answers with another's answers) | constant | random | silent
    behaviour: str = "honest"
    # Width of the model.
    hidden: int = 128
    # Number of layers.
    layers: int = 4
    # Number of attention heads.
    heads: int = 4
    # Learning rate of AdamW.
    lr: float = 3e-3
    # Optimizer steps per round.
    steps: int = 8
    # Sequences per step.
    batch_size: int = 8


def _default_profiles() -> list[MinerProfile]:
    """Eight honest miners that differ in size, learning rate and amount of training."""
    return [
        MinerProfile(hidden=128, layers=4, steps=16),
        MinerProfile(hidden=128, layers=4, steps=8),
        MinerProfile(hidden=128, layers=4, steps=4),
        MinerProfile(hidden=128, layers=4, steps=8, lr=3e-4),
        MinerProfile(hidden=64, layers=2, steps=16),
        MinerProfile(hidden=64, layers=2, steps=6),
        MinerProfile(hidden=64, layers=2, steps=3),
        MinerProfile(hidden=64, layers=2, steps=4, lr=1e-3),
    ]


@dataclass
class Miners:
    # Miners (hotkeys) on the subnet.
    num_miners: int = 8
    # Host actors that share the miners; null takes one per two CPUs, at least 2, at most the number of miners.
    num_hosts: int | None = None
    # CPUs that each host actor reserves.
    cpus_per_host: float = 1.0
    # GPUs that each host actor reserves (a fraction shares a device).
    gpus_per_host: float = 0.0
    # Tokens of a training sequence.
    seq_len: int = 64
    # Rounds' worth of training that each miner does before it is first asked.
    warmup_rounds: int = 2
    # Seconds a host may take for one round of training of all its miners.
    train_timeout_s: float = 300.0
    # Rounds between checkpoints (the last round always writes one); 0 writes none.
    checkpoint_every: int = 5
    profiles: list[MinerProfile] = field(default_factory=_default_profiles)


@dataclass
class Validators:
    # Validators (hotkeys) on the subnet.
    num_validators: int = 3
    # TAO that the first validator stakes; each next one stakes `stake_ratio` times the one before.
    stake_tao: float = 1000.0
    # Ratio of the stakes of neighbouring validators.
    stake_ratio: float = 0.7
    # Scorer actors that all validators share.
    num_scorers: int = 1
    # CPUs that each scorer actor reserves.
    cpus_per_scorer: float = 0.5
    # Responses that one scorer holds at most, the one it works on included.
    scorer_queue: int = 2
    # Seconds that one miner may take for one question.
    deadline_s: float = 60.0


@dataclass
class Mechanism:
    # Dotted path of the incentive mechanism; a class of your own package works as well.
    path: str = "raytensor.mechanisms.query.QueryMechanism"
    # Texts per question.
    rows: int = 48
    # Tokens of the longest context that is sent.
    context: int = 40
    # Next tokens that an answer may name per text.
    top_k: int = 128
    # Weight of the newest loss in a miner's moving average.
    ema: float = 0.35
    # Exponent on the effective number of parameters; 0.5 as in classic Bittensor.
    power: float = 0.5
    # Loss (nats per token) that no model can go below; the scaling law counts from here.
    entropy_floor: float = 1.69


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


@dataclass
class RunConfig:
    # Name of the run and of its folder under paths.runs; null makes one from the time.
    name: str | None = None
    # Rounds to play.
    rounds: int = 12
    # Seed of everything random: text assignment, initial models, keys.
    seed: int = 0
    # never: refuse a folder that exists. auto: go on from it if it exists. must: refuse if there is nothing to go on from.
    resume: str = "never"
    # Print the resolved configuration and the resources per role, then stop.
    dry_run: bool = False
    paths: Paths = field(default_factory=Paths)
    cluster: Cluster = field(default_factory=Cluster)
    data: Data = field(default_factory=Data)
    miners: Miners = field(default_factory=Miners)
    validators: Validators = field(default_factory=Validators)
    mechanism: Mechanism = field(default_factory=Mechanism)
    chain: Chain = field(default_factory=Chain)
    tracker: Tracker = field(default_factory=Tracker)


ROOTS = {"run": RunConfig}
