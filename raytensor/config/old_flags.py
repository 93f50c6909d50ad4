"""Flags of Bittensor's subnet template -> settings of the `mine` and `validate` jobs.

In: arguments as typed. Out: the same arguments, where each flag of the template ("--wallet.name x", "--netuid=5") is
replaced by the setting that means the same, and a note for each flag that has none and changes nothing that matters.
Raises `ConfigError` for a flag whose effect this job can't give, since ignoring it would surprise (no weights, a test
chain). Source of the names: template/utils/config.py of opentensor/bittensor-subnet-template.
"""

import re
from collections.abc import Sequence

from raytensor.errors import ConfigError

BOTH = ("mine", "validate")
# flag -> (jobs, setting)
SETTINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "netuid": (BOTH, "netuids"),
    "wallet.path": (BOTH, "wallet_path"),
    "subtensor.network": (BOTH, "chain.network"),
    "subtensor.chain_endpoint": (BOTH, "chain.network"),
    "logging.logging_dir": (BOTH, "paths.runs"),
    "neuron.name": (BOTH, "name"),
    "neuron.timeout": (("validate",), "validators.deadline_s"),
    "axon.port": (("mine",), "miners.wire.port"),
    "axon.ip": (("mine",), "miners.wire.host"),
    "axon.external_ip": (("mine",), "miners.wire.ip"),
    "blacklist.force_validator_permit": (("mine",), "miners.wire.policy.require_permit=true"),
    "blacklist.allow_non_registered": (("mine",), "miners.wire.policy.require_registered=false"),
}
# flag -> why it is ignored
IGNORED = {
    "neuron.device": "actors use the GPUs that they reserve: validators.gpus_per_scorer, miners.gpus_per_host",
    "neuron.epoch_length": "weights are set once per tempo of the subnet: chain.margin_blocks, chain.rounds_per_tempo",
    "neuron.num_concurrent_forwards": "all miners of a round are asked concurrently: asking.max_in_flight",
    "neuron.sample_size": "the mechanism decides whom a round asks, for example mechanism.query.sample",
    "neuron.moving_average_alpha": "the mechanism has the moving average, for example mechanism.query.ema",
    "neuron.axon_off": "a validator serves no axon",
    "neuron.vpermit_tao_limit": "the mechanism decides whom a round asks",
    "neuron.dont_save_events": "evidence is always written: replay and restart need it",
    "neuron.events_retention_size": "see validators.evidence_mib",
    "axon.port": "a validator serves no axon",
    "axon.ip": "a validator serves no axon",
    "axon.external_ip": "a validator serves no axon",
    "axon.external_port": "the port that is served is the port that is published: miners.wire.port",
    "axon.max_workers": "see miners.wire.max_concurrent",
    "blacklist.force_validator_permit": "a validator serves no axon",
    "blacklist.allow_non_registered": "a validator serves no axon",
    "neuron.timeout": "the deadline is part of each question",
    "logging.debug": "everything is in job.log and events.jsonl of the run folder",
    "logging.trace": "everything is in job.log and events.jsonl of the run folder",
    "logging.info": "everything is in job.log and events.jsonl of the run folder",
    "logging.record_log": "everything is in job.log and events.jsonl of the run folder",
    "wandb.off": "these jobs report by events, a view and Prometheus metrics",
    "wandb.offline": "these jobs report by events, a view and Prometheus metrics",
    "wandb.project_name": "these jobs report by events, a view and Prometheus metrics",
    "wandb.entity": "these jobs report by events, a view and Prometheus metrics",
    "wandb.notes": "these jobs report by events, a view and Prometheus metrics",
}
# flag -> what to do instead
REFUSED = {
    "neuron.disable_set_weights": "this job always sets weights; dry_run=true checks the settings and sets none",
    "mock": "there is no mock chain; `raytensor run` plays a whole network on the embedded chain",
    "no_prompt": "leave it out: this job never asks",
}
SWITCHES = frozenset(
    {"neuron.disable_set_weights", "neuron.axon_off", "neuron.dont_save_events", "mock", "no_prompt", "wandb.off"}
    | {"wandb.offline", "logging.debug", "logging.trace", "logging.info", "logging.record_log"}
    | {"blacklist.force_validator_permit", "blacklist.allow_non_registered"}
)
WALLET = ("wallet.name", "wallet.hotkey")
_ENDPOINT, _NETWORK = "subtensor.chain_endpoint", "subtensor.network"


def translate(job: str, argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(settings, notes) of a job's arguments; what is no flag of the template is returned as it was typed.

    The wallet's flags become one hotkey by reference, "default" where one of them is missing, as in Bittensor. An
    endpoint goes before the name of a network. Raises `ConfigError` for a flag without its value, or of `REFUSED`.
    """
    if job not in BOTH:
        return list(argv), []
    found = flags(argv)
    settings = others(argv)
    notes: list[str] = []
    if _ENDPOINT in found:
        found.pop(_NETWORK, None)
    if any(name in found for name in WALLET):
        wallet, hotkey = (found.pop(name, "default") for name in WALLET)
        settings.append(f"hotkeys=[{hotkey if hotkey.startswith('//') else f'{wallet}/{hotkey}'}]")
    for name, value in found.items():
        jobs, setting = SETTINGS.get(name, ((), ""))
        if name in REFUSED:
            raise ConfigError(f"--{name}: {REFUSED[name]}")
        if job not in jobs:
            notes.append(f"--{name} is ignored: {IGNORED[name]}")
        elif "=" in setting:
            settings.append(setting)
        else:
            settings.append(f"{setting}=[{value}]" if setting == "netuids" else f"{setting}={value}")
    return settings, notes


def _name(arg: str) -> str:
    """The template's flag of an argument; "" when it is none."""
    match = re.fullmatch(r"--([\w.]+)(=.*)?", arg, re.DOTALL)
    name = match[1] if match else ""
    return name if name in WALLET or name in SETTINGS or name in IGNORED or name in REFUSED else ""


def flags(argv: Sequence[str]) -> dict[str, str]:
    """The template's flags among the arguments, with their values ("" for a switch). The last of equal ones counts."""
    found = {}
    for place, arg in enumerate(argv):
        if name := _name(arg):
            _, equals, value = arg.partition("=")
            if not equals and name not in SWITCHES:
                following = argv[place + 1 : place + 2]
                if not following or following[0].startswith("--"):
                    raise ConfigError(f"--{name} has no value; type --{name} VALUE")
                value = following[0]
            found[name] = value
    return found


def others(argv: Sequence[str]) -> list[str]:
    """The arguments that are neither a flag of the template nor the value of one."""
    kept, taken = [], False
    for arg in argv:
        if taken:
            taken = False
        elif name := _name(arg):
            taken = "=" not in arg and name not in SWITCHES
        else:
            kept.append(arg)
    return kept
