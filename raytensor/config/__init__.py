"""Configuration: the settings of every job, their defaults and checks, and how they are composed.

In: a root file of `conf/` (one per job) and what a user typed. Out: plain dataclasses, checked.

    checks      what each field allows; one walk that checks any configuration
    behaviours, optimizers  one row for each behaviour of miners, engine and optimizer
    groups      sections that jobs share
    cluster     the section of the Ray cluster
    operators   what the jobs share that use an operator's keys on any chain
    data        the section of the text
    mechanisms  the section of the incentive mechanisms
    wire        the sections of signed HTTP between validators and miners
    run, ...    one module per job: its root dataclass
    overrides   "key=value" as typed -> values of the declared types
    old_flags   flags of Bittensor's subnet template -> settings
    compose     YAML of `conf/` and overrides -> a checked configuration
    help        the `--help` pages of the jobs

Defaults are in the dataclasses and nowhere else; a YAML file of `conf/` has only what differs from them.
Knows nothing of Ray, torch or the chain: a wrong setting is refused here, before anything starts.
"""

from raytensor.config.checks import Section, check
from raytensor.config.cluster import Cluster
from raytensor.config.collab import Collab
from raytensor.config.compose import compose, conf_dir, to_yaml
from raytensor.config.groups import (
    Chain,
    Data,
    Generation,
    MinerProfile,
    Miners,
    MinersJob,
    Mining,
    Paths,
    Scoring,
    Tracker,
    Validators,
)
from raytensor.config.help import Setting, asks_for_help, help_page, settings
from raytensor.config.mechanisms import Mechanism, ModelEval, Query
from raytensor.config.run import RunConfig
from raytensor.config.wire import AccessPolicy, AnswerBounds, Bounds, Client, Freshness, MinersWire, Server
