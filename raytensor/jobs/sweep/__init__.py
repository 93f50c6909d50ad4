"""Sweeps: a search space over a miner's settings, tried on a cluster by Ray Tune.

space -> trials (lists of overrides) -> Tune (ASHA, PBT) -> hosts and ranks that train -> ranking -> best settings
"""
