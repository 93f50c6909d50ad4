"""What roles that several jobs share ask of a cluster. Imports no Ray: a job counts before it starts any."""

from raytensor.config import Scoring
from raytensor.types import Need


def scorers_need(cfg: Scoring) -> Need:
    """What the scorers ask of a cluster."""
    settings = "validators.num_scorers, validators.cpus_per_scorer or validators.gpus_per_scorer"
    return Need("scorers", cfg.num_scorers, cfg.cpus_per_scorer, cfg.gpus_per_scorer, settings)
