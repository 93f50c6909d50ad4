"""Configuration: the settings of every job, their defaults and checks, and how they are composed.

In: a root file of `conf/` (one per job) and Hydra overrides. Out: plain dataclasses, checked.

    groups    sections that jobs share
    behaviours, optimizers  one row for each behaviour of miners, engine and optimizer
    mechanisms the section of the incentive mechanisms
    run, ...  one module per job: its root dataclass and what it refuses
    checks    how mistakes are collected and told
    compose   Hydra: YAML and overrides -> a checked configuration; `--help` texts

Defaults live in the dataclasses and nowhere else; a YAML file of `conf/` says only what differs from them.
Knows nothing of Ray, torch or the chain: a wrong number is refused here, before anything starts.
"""

from raytensor.config.collab import Collab
from raytensor.config.compose import Setting, compose, conf_dir, help_of_groups, help_of_settings, settings, to_yaml
from raytensor.config.groups import Chain, Cluster, Data, MinerProfile, Miners, Paths, Tracker, Validators, Wire
from raytensor.config.mechanisms import Mechanism, ModelEval, Query, collaborates, hands_in_files
from raytensor.config.run import RunConfig

__all__ = [
    "Chain",
    "Cluster",
    "Collab",
    "Data",
    "Mechanism",
    "MinerProfile",
    "Miners",
    "ModelEval",
    "Paths",
    "Query",
    "RunConfig",
    "Setting",
    "Tracker",
    "Validators",
    "Wire",
    "collaborates",
    "compose",
    "conf_dir",
    "hands_in_files",
    "help_of_groups",
    "help_of_settings",
    "settings",
    "to_yaml",
]
