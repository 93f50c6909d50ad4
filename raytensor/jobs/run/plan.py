"""The plan of a run, before anything starts: its neurons, the resources that it asks for, what it refuses.

In: a `RunConfig`. Out: identities, resources per role, refusals with their fix. Starts nothing and knows
nothing of what runs.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from raytensor.chain.wallet import DevKey, KeyRef
from raytensor.config import MinersJob, RunConfig
from raytensor.config.behaviours import BEHAVIOURS
from raytensor.config.checks import list_of
from raytensor.data import corpus
from raytensor.errors import ConfigError
from raytensor.jobs.demand import miners_need
from raytensor.mechanisms import base
from raytensor.types import Need
from raytensor.wire.policy import check_addresses

CHAIN_ACTOR_CPUS = 0.1
SUBMIT_UPDATES = "must be false or null where miners train a shared model: they submit updates"


@dataclass(frozen=True)
class Identity:
    """A neuron of the run: its name, its role and references of its keys."""

    name: str
    role: str  # owner | validator | miner
    hotkey: KeyRef
    coldkey: KeyRef
    behaviour: str = ""
    stake_tao: float = 0.0

    @property
    def ss58(self) -> str:
        """Address of the hotkey."""
        return self.hotkey.ss58


def identities(cfg: RunConfig) -> list[Identity]:
    """The owner, the validators and the miners of a run, in the order in which they register.

    Their keys are development keys, derived from the run's seed; nothing else in a run derives keys.
    """
    profiles = cfg.miners.profiles

    def make(role: str, number: int, **more: Any) -> Identity:
        uri = f"//raytensor//{cfg.seed}//{role}//{number}"
        return Identity(f"{role}-{number}", role, DevKey(f"{uri}//hot"), DevKey(f"{uri}//cold"), **more)

    stakes = [cfg.validators.stake_tao * cfg.validators.stake_ratio**n for n in range(cfg.validators.num_validators)]
    validators = [make("validator", n, stake_tao=stake) for n, stake in enumerate(stakes)]
    miners = [make("miner", n, behaviour=profiles[n % len(profiles)].behaviour) for n in range(cfg.miners.num_miners)]
    return [make("owner", 0), *validators, *miners]


def delegate(cfg: RunConfig) -> KeyRef:
    """The key that is a proxy of all validators, so that their weights share an extrinsic."""
    return DevKey(f"//raytensor//{cfg.seed}//operator")


def needs(cfg: RunConfig, on: Mapping[str, float]) -> list[Need]:
    """What a run asks of a cluster with the resources `on`, role by role."""
    others = [cfg.validators.need, Need("chain actor", 1, CHAIN_ACTOR_CPUS)]
    return [*miners_need(cfg, cfg.miners.num_miners, others, on, prompts=False), *others]


def refuse_unusable(cfg: MinersJob) -> None:
    """Refuse what can't work before there is a folder: a mechanism that can't be imported or does not fit the miners,
    data and models that are missing or can't be submitted. Raises `ConfigError`."""
    declared = base.needs(cfg.mechanism)
    _refuse_unfit(cfg, declared)
    corpus.refuse_missing(cfg.data)
    check_addresses(cfg.miners.wire.policy, "miners.wire.policy")
    named = any(profile.model for profile in cfg.miners.profiles)
    if named or declared.asks_for_files:
        from raytensor.miners import model, submission_export  # imports torch, which takes seconds

        profiles, cache, where = cfg.miners.profiles, cfg.paths.cache, "miners.profiles[].model"
        model.refuse_models(profiles, cfg.data, cache, cfg.miners.seq_len, where=where)
        if declared.asks_for_files:
            submission_export.refuse_unlike(cfg)


def _refuse_unfit(cfg: MinersJob, declared: base.Needs) -> None:
    """Refuse miners that do not fit what the mechanism declares. Raises `ConfigError` with all mistakes."""
    mistakes, files, seq_len = [], declared.asks_for_files, cfg.miners.seq_len
    if declared.responder:
        base.load_class(declared.responder, "mechanism.responder")
        if files:
            mistakes.append("mechanism.files=True: a responder submits no files; use files=false, or no responder")
    if files and declared.miner:
        mistakes.append(f"mechanism.files=True: {SUBMIT_UPDATES}")
    longest = attrgetter(declared.longest_sequence)(cfg.mechanism) if declared.longest_sequence else 0
    if longest > seq_len:
        why = f"must be at most miners.seq_len ({seq_len}), the longest text that the models see"
        mistakes.append(f"mechanism.{declared.longest_sequence}={longest}: {why}")
    known = tuple(name for name in BEHAVIOURS if fits(name, declared))
    for number, profile in enumerate(cfg.miners.profiles):
        where = f"miners.profiles[{number}]"
        if profile.behaviour not in known:
            mistakes.append(f"{where}.behaviour={profile.behaviour!r}: {list_of(known)}")
        if (declared.miner or declared.responder) and (profile.engine != "plain" or profile.ranks > 1):
            why = f"{cfg.mechanism.path} trains in one process per miner; use engine=plain and ranks=1"
            mistakes.append(f"{where}.engine={profile.engine!r}: {why}")
        if files and profile.lora_rank:
            why = "a submitted file holds whole weights; use lora_rank=0"
            mistakes.append(f"{where}.lora_rank={profile.lora_rank}: {why}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def fits(behaviour: str, declared: base.Needs) -> bool:
    """Whether miners have a behaviour under a mechanism that declares these needs."""
    where = BEHAVIOURS[behaviour].mechanism
    return not where or behaviour in declared.behaviours or (where == "files" and declared.asks_for_files)


def with_folders(cfg: RunConfig, folder: Path) -> RunConfig:
    """`cfg` with folders of the run for what miners share: a mechanism's shared state, and submitted files."""
    mechanism = base.with_shared_state(cfg.mechanism, str(folder / "shared"))
    if base.needs(cfg.mechanism).asks_for_files and cfg.miners.files is None:
        cfg = dataclasses.replace(cfg, miners=dataclasses.replace(cfg.miners, files=str(folder / "files")))
    return dataclasses.replace(cfg, mechanism=mechanism)
