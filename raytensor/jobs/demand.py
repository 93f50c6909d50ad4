"""What miners, which several jobs have, ask of a cluster. Imports no Ray: a job counts before it starts any."""

from collections.abc import Mapping, Sequence
from typing import Any

from raytensor.config import MinerProfile, MinersJob
from raytensor.data.tokenizer import vocab_size_of
from raytensor.mechanisms import base
from raytensor.miners import memory
from raytensor.miners.placement import assign_profiles, is_sharded, num_hosts, place
from raytensor.types import Need

# What decides how much a role asks for.
HOST_SETTINGS = "miners.num_hosts, miners.cpus_per_host or miners.gpus_per_host"
RANK_SETTINGS = "ranks, cpus_per_rank or gpus_per_rank of miners.profiles"


LOWER = (
    "smaller models, miners.seq_len or batch_size of miners.profiles; activation_checkpointing=true, or engine=fsdp2 "
    "with more ranks there; more nodes with more miners.num_hosts"
)


def miners_need(
    cfg: MinersJob, num_miners: int, others: Sequence[Need], on: Mapping[str, float], *, prompts: bool
) -> list[Need]:
    """What miners ask of a cluster with the resources `on`, besides what others ask: the hosts first, then each kind of
    sharded miner. prompts: whether they may be asked to continue texts."""
    cpus, gpus = (on.get(of, 0.0) - sum(need.count * need.of(of) for need in others) for of in ("CPU", "GPU"))
    miners, declared = cfg.miners, base.needs(cfg.mechanism)
    profiles = assign_profiles(miners, [str(number) for number in range(num_miners)])
    hosts = num_hosts(miners, num_miners, cpus, gpus)
    known = not (declared.miner or declared.responder)  # whose models are ours
    vocab_size = vocab_size_of(cfg.data.tokenizer, cfg.data.vocab_size) if known else 0
    whole = {hotkey: profile for hotkey, profile in profiles.items() if not is_sharded(profile)}
    largest = None
    if known and whole:
        of_hosts = [memory.of_host(miners, members, vocab_size, prompts=prompts) for members in place(whole, hosts)]
        largest = max(of_hosts, key=lambda one: sum(one.parts.values()))
    roles = [Need("miner hosts", hosts, miners.cpus_per_host, miners.gpus_per_host, HOST_SETTINGS, largest, LOWER)]
    kinds: dict[tuple[Any, ...], list[MinerProfile]] = {}
    for profile in profiles.values():
        if is_sharded(profile):
            kinds.setdefault((profile.ranks, profile.cpus_per_rank, profile.gpus_per_rank, profile.model), []).append(
                profile
            )
    for (ranks, cpus_each, gpus_each, _), alike in kinds.items():
        role = "sharded miner" if len(alike) == 1 else f"{len(alike)} sharded miners"
        costs = (
            [memory.of_rank(one, miners.seq_len, vocab_size) for one in {id(p): p for p in alike}.values()]
            if known
            else []
        )
        each = max(costs, key=lambda one: sum(one.parts.values()), default=None)
        roles.append(Need(role, len(alike) * ranks, cpus_each, gpus_each, RANK_SETTINGS, each, LOWER))
    return roles
