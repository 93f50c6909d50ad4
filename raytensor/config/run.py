"""The `run` job's settings and what it refuses."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from raytensor.config.behaviours import BEHAVIOURS, available
from raytensor.config.checks import Checks, absolute_folder, is_publishable, training_mistakes
from raytensor.config.groups import Chain, Cluster, Data, Miners, Paths, Tracker, Validators
from raytensor.config.mechanisms import Mechanism, check_mechanism, collaborates, hands_in_files


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


def check(cfg: RunConfig) -> None:
    """Refuse impossible numbers. Raises `ConfigError` with every mistake found, each with its value and the fix."""
    checks = Checks(cfg)
    need, positive = checks.need, checks.positive
    positive("rounds", "cluster.start_timeout_s", "cluster.torch_threads", "cluster.num_cpus", "data.vocab_size")
    positive(
        "data.max_documents", "miners.num_miners", "miners.num_hosts", "miners.cpus_per_host", "miners.train_timeout_s"
    )
    positive("validators.num_validators", "validators.stake_tao", "validators.stake_ratio", "validators.num_scorers")
    positive("validators.cpus_per_scorer", "validators.scorer_queue", "validators.deadline_s")
    positive("validators.evidence_mib", "validators.evidence_rounds", "validators.evidence_segments")
    positive("validators.pack_items", "validators.pack_mib", "validators.score_limit_s")
    need(cfg.validators.gpus_per_scorer >= 0, "validators.gpus_per_scorer", "must be 0 or greater")
    need(
        not (cfg.validators.isolate and cfg.validators.gpus_per_scorer),
        "validators.isolate",
        "must be false or null where scorers have a GPU: a GPU's context does not survive a fork",
    )
    positive("miners.heldout_rows", "chain.block_time_s", "chain.timeout_s", "chain.inclusion_timeout_s")
    positive("chain.weights_every", "miners.commit_every")
    need(
        cfg.name is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", cfg.name) is not None,
        "name",
        "is a folder name: letters, digits, '.', '_' and '-', starting with a letter or digit",
    )
    need(cfg.seed >= 0, "seed", "must be 0 or greater")
    checks.one_of("resume", ("never", "auto", "must"))
    need(
        cfg.resume == "never" or cfg.name is not None, "resume", "needs the name of the run to go on from: add name=..."
    )
    need(0.0 < cfg.data.heldout_share < 1.0, "data.heldout_share", "must lie between 0 and 1")
    checks.one_of("data.tokenizer", ("bpe", "bytes"))
    need(
        cfg.data.tokenizer == "bytes" or 257 <= cfg.data.vocab_size <= 65536,
        "data.vocab_size",
        "must lie between 257 and 65536",
    )
    check_mechanism(cfg.mechanism, checks)
    rule = cfg.mechanism.query
    need(
        rule.context <= cfg.miners.seq_len,
        "mechanism.query.context",
        f"must be at most miners.seq_len ({cfg.miners.seq_len}), the longest text that the models see",
    )
    need(cfg.miners.seq_len >= 8, "miners.seq_len", "must be 8 or more")
    need(cfg.miners.seq_len <= 65536, "miners.seq_len", "must be at most 65536")
    need(cfg.miners.gpus_per_host >= 0, "miners.gpus_per_host", "must be 0 or greater")
    need(cfg.miners.warmup_rounds >= 0, "miners.warmup_rounds", "must be 0 or greater")
    need(cfg.miners.checkpoint_every >= 0, "miners.checkpoint_every", "must be 0 (never) or greater")
    need(
        cfg.miners.num_hosts is None or cfg.miners.num_hosts <= cfg.miners.num_miners,
        "miners.num_hosts",
        f"must be at most miners.num_miners ({cfg.miners.num_miners})",
    )
    need(2 <= cfg.chain.tempo <= 65535, "chain.tempo", "must lie between 2 and 65535 blocks")
    total = cfg.miners.num_miners + cfg.validators.num_validators + 1
    need(
        total <= 4096,
        "miners.num_miners",
        f"with the validators and the owner makes {total} neurons; a subnet holds at most 4096",
    )
    need(
        cfg.validators.num_validators <= 64,
        "validators.num_validators",
        "must be at most 64, the validators that the chain permits on a subnet",
    )
    need(len(cfg.miners.profiles) > 0, "miners.profiles", "must hold one profile or more")
    files = hands_in_files(cfg.mechanism)
    need(
        not (files and collaborates(cfg.mechanism)),
        "mechanism.files",
        "must be false or null where miners train a shared model: they hand in updates",
    )
    if files and cfg.mechanism.path.startswith("raytensor.mechanisms.model_eval."):
        length = cfg.mechanism.model_eval.seq_len
        need(
            length <= cfg.miners.seq_len,
            "mechanism.model_eval.seq_len",
            f"must be at most miners.seq_len ({cfg.miners.seq_len}), the longest text that the models see",
        )
    for number, profile in enumerate(cfg.miners.profiles):
        where = f"miners.profiles[{number}]"
        for key in ("hidden", "layers", "heads", "lr", "steps", "batch_size"):
            value = getattr(profile, key)
            if not (math.isfinite(value) and value > 0):
                checks.add(f"{where}.{key}={value!r}: must be greater than 0")
        known = available(collab=collaborates(cfg.mechanism), files=files)
        if profile.behaviour not in known:
            checks.add(f"{where}.behaviour={profile.behaviour!r}: must be one of {', '.join(known)}")
        if collaborates(cfg.mechanism) and (profile.engine != "plain" or profile.ranks > 1):
            checks.add(
                f"{where}.engine={profile.engine!r}: the shared model of mechanism=collab is trained in one process a miner; take engine=plain and ranks=1"
            )
        if files and profile.lora_rank:
            checks.add(
                f"{where}.lora_rank={profile.lora_rank}: a file that is handed in holds whole weights; take lora_rank=0"
            )
        profile.model = absolute_folder(profile.model)
        for mistake in training_mistakes(profile):
            checks.add(f"{where}.{mistake}")
        if (
            profile.behaviour in known
            and not BEHAVIOURS[profile.behaviour].trains
            and (profile.ranks > 1 or profile.gpus_per_rank)
        ):
            checks.add(
                f"{where}.behaviour={profile.behaviour!r}: has no model, so it takes neither ranks nor GPUs of its own"
            )
        if profile.heads > 0 and profile.hidden % (2 * profile.heads):
            checks.add(f"{where}.hidden={profile.hidden}: must be a multiple of 2 * heads ({2 * profile.heads})")
    wire = cfg.miners.wire
    need(
        0 <= wire.port <= 65535 - (cfg.miners.num_miners - 1 if wire.port else 0),
        "miners.wire.port",
        "must be 0, or leave room for a port a miner up to 65535",
    )
    need(wire.min_stake_alpha >= 0, "miners.wire.min_stake_alpha", "must be 0 or greater")
    need(
        wire.ip is None or is_publishable(wire.ip),
        "miners.wire.ip",
        "must be an IP address that the chain takes: not 127.0.0.1, ::1 or 0.0.0.0",
    )
    checks.one_of("tracker.kind", ("none", "wandb"))
    checks.one_of("tracker.mode", ("offline", "online", "disabled"))
    need(
        cfg.chain.endpoint is None or re.match(r"wss?://\S+", cfg.chain.endpoint) is not None,
        "chain.endpoint",
        "must be a ws:// or wss:// address",
    )
    checks.raise_all()
