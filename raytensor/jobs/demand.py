"""What miners, which several jobs have, ask of a cluster. Imports no Ray: a job counts before it starts any."""

from collections import Counter

from raytensor.config import Mining
from raytensor.miners.placement import assign_profiles, is_sharded, num_hosts
from raytensor.types import Need

# What decides how much a role asks for.
HOST_SETTINGS = "miners.num_hosts, miners.cpus_per_host or miners.gpus_per_host"
RANK_SETTINGS = "ranks, cpus_per_rank or gpus_per_rank of miners.profiles"


def miners_need(cfg: Mining, num_miners: int, cpus: float) -> list[Need]:
    """What miners ask of a cluster that has `cpus` CPUs for them: the hosts first, then each kind of sharded miner."""
    profiles = assign_profiles(cfg, [str(number) for number in range(num_miners)]).values()
    sharded = Counter((p.ranks, p.cpus_per_rank, p.gpus_per_rank) for p in profiles if is_sharded(p))
    hosts = num_hosts(cfg, num_miners, cpus)
    roles = [Need("miner hosts", hosts, cfg.cpus_per_host, cfg.gpus_per_host, HOST_SETTINGS)]
    for (ranks, cpus_each, gpus_each), count in sharded.items():
        role = "sharded miner" if count == 1 else f"{count} sharded miners"
        roles.append(Need(role, count * ranks, cpus_each, gpus_each, RANK_SETTINGS))
    return roles
