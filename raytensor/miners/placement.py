"""Which host runs which miners, which miners have processes of their own, and whom a copying miner copies. Pure.

In: profiles by hotkey, the number of hosts. Out: the members of each host, the victims. Knows nothing of Ray.
"""

import math
from collections.abc import Mapping, Sequence

from raytensor.config import MinerProfile, Mining
from raytensor.config.behaviours import BEHAVIOURS
from raytensor.config.optimizers import OPTIMIZERS

Member = tuple[str, MinerProfile]  # hotkey and profile


def assign_profiles(cfg: Mining, hotkeys: Sequence[str]) -> dict[str, MinerProfile]:
    """The profile of each miner, in rotation when there are more miners than profiles."""
    return {hotkey: cfg.profiles[i % len(cfg.profiles)] for i, hotkey in enumerate(hotkeys)}


def is_sharded(profile: MinerProfile) -> bool:
    """Whether a miner has a placement group of its own; other miners share host actors."""
    return profile.ranks > 1 or profile.gpus_per_rank > 0 or profile.engine != "plain"


def num_hosts(cfg: Mining, num_miners: int, cpus: float, gpus: float = math.inf) -> int:
    """Host actors of a job that has `cpus` CPUs and `gpus` GPUs for its miners: `miners.num_hosts`, or as many as fit
    besides the sharded miners; at most one per miner that shares hosts, and at least 1 if there is such a miner."""
    profiles = assign_profiles(cfg, [str(i) for i in range(num_miners)]).values()
    small = sum(not is_sharded(profile) for profile in profiles)
    sharded = [profile for profile in profiles if is_sharded(profile)]
    fit = (cpus - sum(profile.ranks * profile.cpus_per_rank for profile in sharded)) / cfg.cpus_per_host
    if cfg.gpus_per_host:
        fit = min(fit, (gpus - sum(profile.ranks * profile.gpus_per_rank for profile in sharded)) / cfg.gpus_per_host)
    return min(small, cfg.num_hosts or max(1, int(fit + 1e-9)))


def work(profile: MinerProfile) -> float:
    """Relative cost of a miner: parameters of its layers times sequences per round; 1 without a model."""
    if not BEHAVIOURS[profile.behaviour].trains:
        return 1.0
    return 12.0 * profile.layers * profile.hidden**2 * profile.steps * profile.batch_size


def place(profiles: Mapping[str, MinerProfile], hosts: int) -> list[list[Member]]:
    """Members of each host, none empty: the costliest miner first, each to the host with the least work so far."""
    assert (hosts >= 1) == bool(profiles) and hosts <= len(profiles)
    members: list[list[Member]] = [[] for _ in range(hosts)]
    load = [0.0] * hosts
    for hotkey, profile in sorted(profiles.items(), key=lambda item: -work(item[1])):
        # Of equal loads, the host with fewer miners, so that miners without a model are spread as well.
        least = min(range(hosts), key=lambda number: (load[number], len(members[number])))
        members[least].append((hotkey, profile))
        load[least] += work(profile)
    return members


def architecture(profile: MinerProfile) -> tuple[int, int, int] | None:
    """What profiles must share to be stacked: (hidden, layers, heads); None for one that needs an engine of its own."""
    own = profile.model or profile.engine != "plain" or profile.precision != "fp32" or profile.accumulate > 1
    own = own or profile.activation_checkpointing or profile.lora_rank or profile.z_loss
    if own or not (OPTIMIZERS[profile.optimizer].stackable and BEHAVIOURS[profile.behaviour].trains):
        return None
    return profile.hidden, profile.layers, profile.heads


def victims(profiles: Mapping[str, MinerProfile]) -> dict[str, str]:
    """Whom each copying miner copies: the nearest honest miner before it, cyclically; no entry when there is none."""
    hotkeys = list(profiles)
    found: dict[str, str] = {}
    for i, hotkey in enumerate(hotkeys):
        if BEHAVIOURS[profiles[hotkey].behaviour].copies:
            before = [hotkeys[(i - step) % len(hotkeys)] for step in range(1, len(hotkeys))]
            honest = [other for other in before if profiles[other].behaviour == "honest"]
            if honest:
                found[hotkey] = honest[0]
    return found
