"""The section of the Ray cluster, which all jobs share."""

from dataclasses import dataclass

from raytensor.config.checks import Section, setting


@dataclass
class Cluster(Section):
    # Ray address to join ("auto", "host:port", "ray://..."); null starts a local Ray unless RAY_ADDRESS is set.
    address: str | None = None
    # CPUs that a local Ray offers to actors; null means all cores, and 2 on a machine with one.
    num_cpus: int | None = None
    # GPUs that a local Ray offers; null lets Ray detect them.
    num_gpus: int | None = setting(None, least=0)
    # Seconds to wait for an actor or a placement group to start.
    start_timeout_s: float = 120.0
    # Seconds that a collective of ranks waits for all of them: longer than the longest step, and than the time by which
    # their starts differ (downloads, compilation).
    collective_timeout_s: float = 600.0
    # The cluster starts nodes on demand: what no node has now is not refused, and waits for start_timeout_s. Set
    # miners.num_hosts then; null counts the nodes that are there.
    autoscaled: bool = False
    # Memory of a GPU in GiB, for the estimate; null: from Ray's type of the nodes' GPUs, or nvidia-smi on this machine.
    gpu_memory_gib: float | None = None
    # Start although the estimated memory exceeds what there is.
    overcommit: bool = False
    # torch threads of every CPU actor; more than one is slower on small models.
    torch_threads: int = 1
