"""Configuration: the schema, its checks, and how a job's configuration is composed.

In: a root file of `conf/` (one per job) and Hydra overrides. Out: a `RunConfig` of plain dataclasses, checked.
Defaults live here and nowhere else; a YAML file of `conf/` says only what differs from them.
Knows nothing of Ray, torch or the chain: a wrong number is refused here, before anything starts.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
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
    # Seconds a host may take for one round of training of all its miners.
    train_timeout_s: float = 300.0
    # Rounds between checkpoints (the last round always writes one); 0 writes none.
    checkpoint_every: int = 1
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
    # Responses that one scorer holds at most, the one it works on included.
    scorer_queue: int = 2
    # Seconds that one miner may take for one question.
    deadline_s: float = 60.0


@dataclass
class Mechanism:
    # Dotted path of the incentive mechanism; a class of your own package works as well.
    path: str = "raytensor.mechanisms.query.QueryMechanism"
    # Texts per question; the noise of a round's loss falls with their square root.
    rows: int = 256
    # Tokens of the longest context that is sent.
    context: int = 24
    # Tokens of the shortest context that is sent.
    shortest: int = 8
    # Next tokens that an answer may name per text.
    top_k: int = 128
    # Weight of the newest loss in a miner's moving average.
    ema: float = 0.35
    # Share of its value that a miner loses with each question it does not answer; 0.1 as in classic Bittensor.
    miss: float = 0.1
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


# ---------------------------------------------------------------------------------------------------------- checks


def check(cfg: RunConfig) -> None:
    """Refuse impossible numbers. Raises `ConfigError` with every mistake found, each with its value and the fix."""
    wrong: list[str] = []

    def need(ok: bool, key: str, why: str) -> None:
        if not ok:
            value: Any = cfg
            for part in key.split("."):
                value = getattr(value, part)
            wrong.append(f"{key}={value!r}: {why}")

    def positive(*keys: str) -> None:
        for key in keys:
            value: Any = cfg
            for part in key.split("."):
                value = getattr(value, part)
            need(value is None or (math.isfinite(value) and value > 0), key, "must be greater than 0")

    positive("rounds", "cluster.start_timeout_s", "cluster.torch_threads", "cluster.num_cpus", "data.vocab_size")
    positive("data.max_documents", "miners.num_miners", "miners.num_hosts", "miners.cpus_per_host", "miners.train_timeout_s")
    positive("validators.num_validators", "validators.stake_tao", "validators.stake_ratio", "validators.num_scorers")
    positive("validators.cpus_per_scorer", "validators.scorer_queue", "validators.deadline_s", "mechanism.rows")
    positive("miners.heldout_rows", "mechanism.shortest", "mechanism.top_k", "mechanism.power", "chain.block_time_s", "chain.timeout_s", "chain.inclusion_timeout_s")
    positive("chain.weights_every")
    need(
        cfg.name is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", cfg.name) is not None,
        "name",
        "is a folder name: letters, digits, '.', '_' and '-', starting with a letter or digit",
    )
    need(cfg.seed >= 0, "seed", "must be 0 or greater")
    need(cfg.resume in ("never", "auto", "must"), "resume", "must be never, auto or must")
    need(cfg.resume == "never" or cfg.name is not None, "resume", "needs the name of the run to go on from: add name=...")
    need(0.0 < cfg.data.heldout_share < 1.0, "data.heldout_share", "must lie between 0 and 1")
    need(cfg.data.tokenizer in ("bpe", "bytes"), "data.tokenizer", "must be bpe or bytes")
    need(cfg.data.tokenizer == "bytes" or 257 <= cfg.data.vocab_size <= 65536, "data.vocab_size", "must lie between 257 and 65536")
    need(0.0 < cfg.mechanism.ema <= 1.0, "mechanism.ema", "must lie above 0 and be at most 1")
    need(0.0 < cfg.mechanism.miss <= 1.0, "mechanism.miss", "must lie above 0 and be at most 1")
    need(cfg.mechanism.context >= 2, "mechanism.context", "must be 2 or more")
    need(cfg.mechanism.shortest <= cfg.mechanism.context, "mechanism.shortest", f"must be at most mechanism.context ({cfg.mechanism.context})")
    need(cfg.mechanism.entropy_floor >= 0, "mechanism.entropy_floor", "must be 0 or greater")
    need(cfg.miners.seq_len >= 8, "miners.seq_len", "must be 8 or more")
    need(cfg.miners.seq_len <= 65536, "miners.seq_len", "must be at most 65536")
    need(cfg.mechanism.context <= cfg.miners.seq_len, "mechanism.context", f"must be at most miners.seq_len ({cfg.miners.seq_len}), the longest text that the models see")
    need(cfg.miners.gpus_per_host >= 0, "miners.gpus_per_host", "must be 0 or greater")
    need(cfg.miners.warmup_rounds >= 0, "miners.warmup_rounds", "must be 0 or greater")
    need(cfg.miners.checkpoint_every >= 0, "miners.checkpoint_every", "must be 0 (never) or greater")
    need(cfg.miners.num_hosts is None or cfg.miners.num_hosts <= cfg.miners.num_miners, "miners.num_hosts", f"must be at most miners.num_miners ({cfg.miners.num_miners})")
    need(2 <= cfg.chain.tempo <= 65535, "chain.tempo", "must lie between 2 and 65535 blocks")
    total = cfg.miners.num_miners + cfg.validators.num_validators + 1
    need(total <= 4096, "miners.num_miners", f"with the validators and the owner makes {total} neurons; a subnet holds at most 4096")
    need(cfg.validators.num_validators <= 64, "validators.num_validators", "must be at most 64, the validators that the chain permits on a subnet")
    need(len(cfg.miners.profiles) > 0, "miners.profiles", "must hold one profile or more")
    for number, profile in enumerate(cfg.miners.profiles):
        where = f"miners.profiles[{number}]"
        for key in ("hidden", "layers", "heads", "lr", "steps", "batch_size"):
            value = getattr(profile, key)
            if not (math.isfinite(value) and value > 0):
                wrong.append(f"{where}.{key}={value!r}: must be greater than 0")
        if profile.behaviour not in BEHAVIOURS:
            wrong.append(f"{where}.behaviour={profile.behaviour!r}: must be one of {', '.join(BEHAVIOURS)}")
        if profile.heads > 0 and profile.hidden % (2 * profile.heads):
            wrong.append(f"{where}.hidden={profile.hidden}: must be a multiple of 2 * heads ({2 * profile.heads})")
    need(cfg.tracker.kind in ("none", "wandb"), "tracker.kind", "must be none or wandb")
    need(cfg.tracker.mode in ("offline", "online", "disabled"), "tracker.mode", "must be offline, online or disabled")
    need(cfg.chain.endpoint is None or re.match(r"wss?://\S+", cfg.chain.endpoint) is not None, "chain.endpoint", "must be a ws:// or wss:// address")
    if wrong:
        raise ConfigError("\n".join(wrong))


# --------------------------------------------------------------------------------------------------------- compose


def conf_dir() -> Path:
    """The folder of the YAML groups: `conf/` of a checkout, or the copy inside an installed package."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "conf", here / "_conf"):
        if (folder / "run.yaml").is_file():
            return folder
    raise ConfigError(f"the configuration folder is missing beside {here}; install the package again")


def compose(job: str, overrides: list[str]) -> RunConfig:
    """The checked configuration of a job, from `conf/<job>.yaml` and Hydra overrides ("miners.num_miners=16").

    Raises `ConfigError` for an unknown key, a wrong type, an unknown group option or an impossible number.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    schema = ROOTS[job]
    ConfigStore.instance().store(name=f"{job}_schema", node=schema)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            node = hydra_compose(job, overrides=overrides)
        cfg = OmegaConf.to_object(node)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(f"{error}\n{error.__cause__ or ''}", schema)) from error
    unknown = [str(key) for key in node if key not in schema.__dataclass_fields__]
    if unknown:  # Hydra's "+key=value" adds keys that nothing would read
        raise ConfigError(f"unknown setting {unknown[0]!r}; `raytensor run --help` lists all settings")
    assert isinstance(cfg, schema)
    cfg.paths.runs = str(Path(cfg.paths.runs).expanduser().absolute())
    cfg.paths.cache = str(Path(cfg.paths.cache).expanduser().absolute())
    check(cfg)
    return cfg


def to_yaml(cfg: Any) -> str:
    """A configuration as YAML, every value resolved."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(cfg), resolve=True)


@dataclass(frozen=True)
class Setting:
    """One setting as `--help` shows it."""

    default: Any
    comment: str


def settings(schema: Any, prefix: str = "") -> dict[str, Setting]:
    """Dotted key -> default and the comment that stands above the field, sections opened, in order."""
    out: dict[str, Setting] = {}
    comments = _comments(schema)
    for item in dataclasses.fields(schema):
        default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        if dataclasses.is_dataclass(default):
            out.update(settings(type(default), f"{prefix}{item.name}."))
        else:
            out[prefix + item.name] = Setting(default, comments.get(item.name, ""))
    return out


def _comments(schema: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(schema).splitlines():
        field_line = re.match(r"    (\w+): ", line)
        if line.strip().startswith("#"):
            above.append(line.strip("# "))
        elif field_line:
            found[field_line.group(1)] = " ".join(above)
            above = []
        else:
            above = []
    return found


def _explain(message: str, schema: Any) -> str:
    """Hydra's message without its internals, and the nearest key when one is misspelt."""
    noise = ("full_key:", "object_type=", "reference_type=", "Set the env", "Config search path", "provider=", "See https")
    lines = [re.sub(r"^In '\w+': ", "", line.strip()) for line in message.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(noise)]
    text = "\n".join(dict.fromkeys(lines))
    found = re.search(r"Could not override '([^']+)'", text)
    if found:
        near = difflib.get_close_matches(found.group(1), list(settings(schema)), n=3, cutoff=0.6)
        text = f"unknown setting {found.group(1)!r}"
        text += f"; did you mean {' or '.join(near)}?" if near else "; `raytensor run --help` lists all settings"
    return text
