"""The `validate` job's settings and what it refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from raytensor.config.checks import Checks
from raytensor.config.groups import Cluster, Data, Paths, Validators
from raytensor.config.mechanisms import Mechanism, check_mechanism


@dataclass
class SubnetConfig:
    """A subnet that is validated by rules of its own."""

    # The subnet.
    netuid: int = 0
    # Which of `hotkeys` validate here; an empty list means all of them.
    hotkeys: list[str] = field(default_factory=list)
    # Its incentive mechanism, as the section `mechanism`.
    mechanism: Mechanism = field(default_factory=Mechanism)


@dataclass
class ValidatorChain:
    # finney, test, local or ws(s)://...; several, separated by commas, are tried in order.
    network: str = "finney"
    # Seconds that any one request to the chain may take.
    timeout_s: float = 20.0
    # Key that is a proxy of the hotkeys: the weights of all of them then share one extrinsic. null: each signs its own.
    delegate: str | None = None
    # Blocks before an epoch at which the weights of that tempo are handed in; at most a third of the tempo.
    margin_blocks: int = 20
    # Rounds of questions in one tempo.
    rounds_per_tempo: int = 3
    # Blocks after which a subnet's metagraph is read again, epochs apart.
    refresh_blocks: int = 25
    # Seconds after which a metagraph is too old to decide by: no questions are asked until the chain answers again.
    max_metagraph_age_s: float = 600.0


@dataclass
class Asking:
    # How miners are asked: btauth, epistula or axon_v10.
    protocol: str = "btauth"
    # Format of the bodies: safetensors or json.
    body: str = "safetensors"
    # Questions on their way at once.
    max_in_flight: int = 256
    # Files on their way at once, of these: each is held in memory until it is through.
    max_files_in_flight: int = 16
    # MiB of the largest file that is read of a miner; a mechanism may read less (mechanism.model_eval.max_bytes).
    max_file_mib: float = 256.0
    # Ask addresses of this machine and of private networks, too: for local networks only.
    allow_local_addresses: bool = False
    # Share of the miners that must have answered before the others are given up by the adaptive deadline.
    quorum: float = 0.6
    # Adaptive deadline: median + deadline_mads * MAD of the answers' times; 0 switches it off.
    deadline_mads: float = 3.0


@dataclass
class Watch:
    # Tempos without weights on the chain after which the alarm is raised.
    overdue_tempos: float = 3.0
    # Blocks between two looks at the weights on the chain.
    every_blocks: int = 5
    # Seconds without an answer of the chain after which the alarm is raised, too: nobody knows then how weights stand.
    silent_s: float = 300.0
    # Name of an environment variable that holds an address; an alarm is POSTed there as JSON.
    webhook_env: str | None = None
    # Command that an alarm is given to: its sentence as the last argument, and its facts as JSON on standard input.
    command: str | None = None


@dataclass
class ValidateConfig:
    # Name of the folder under paths.runs that keeps the state; the same name goes on where it stood.
    name: str = "validator"
    # Subnets that are validated by the section `mechanism`.
    netuids: list[int] = field(default_factory=list)
    # Subnets with rules of their own: subnets='[{netuid: 5, mechanism: {path: mypackage.rules.Mine}}]'.
    subnets: list[SubnetConfig] = field(default_factory=list)
    # Hotkeys by reference: wallet/hotkey, or a development key like //Alice. Only hotkeys are ever read.
    hotkeys: list[str] = field(default_factory=list)
    # Folder of the wallets.
    wallet_path: str = "~/.bittensor/wallets"
    # File whose first line opens encrypted hotkeys (else BT_WALLET_PASSWORD_FILE or BT_WALLET_PASSWORD).
    password_file: str | None = None
    # Go on although this process could read a coldkey of these wallets.
    allow_coldkey: bool = False
    # Rounds per subnet after which the job ends; null: for ever.
    rounds: int | None = None
    # Print the resolved configuration and what would be validated, then stop.
    dry_run: bool = False
    # Print one JSON object a line instead of the view.
    json: bool = False
    # Seconds before a subnet that failed is tried again; doubled with each failure in a row, up to backoff_most_s.
    backoff_s: float = 10.0
    # Seconds between two tries at most.
    backoff_most_s: float = 900.0
    # Seconds that one round of a subnet may take before it counts as stuck.
    round_limit_s: float = 900.0
    paths: Paths = field(default_factory=Paths)
    cluster: Cluster = field(default_factory=Cluster)
    data: Data = field(default_factory=Data)
    validators: Validators = field(default_factory=Validators)
    mechanism: Mechanism = field(default_factory=Mechanism)
    chain: ValidatorChain = field(default_factory=ValidatorChain)
    asking: Asking = field(default_factory=Asking)
    watch: Watch = field(default_factory=Watch)

    @property
    def all_subnets(self) -> list[SubnetConfig]:
        """The rules of every subnet, by netuid."""
        shared = [SubnetConfig(netuid, [], self.mechanism) for netuid in self.netuids]
        return sorted([*shared, *self.subnets], key=lambda rules: rules.netuid)


def check(cfg: ValidateConfig) -> None:
    """Refuse impossible settings. Raises `ConfigError` with every mistake found, each with its value and the fix."""
    checks = Checks(cfg)
    need, positive = checks.need, checks.positive
    need(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", cfg.name) is not None,
        "name",
        "is a folder name: letters, digits, '.', '_' and '-'",
    )
    need(bool(cfg.hotkeys), "hotkeys", "must name one hotkey or more: hotkeys=[mywallet/myhotkey]")
    need(len(set(cfg.hotkeys)) == len(cfg.hotkeys), "hotkeys", "must name each hotkey once")
    netuids = [rules.netuid for rules in cfg.all_subnets]
    need(bool(netuids), "netuids", "must name one subnet or more: netuids=[1,2]")
    need(len(set(netuids)) == len(netuids), "netuids", f"with subnets names one twice: {netuids}")
    need(
        all(0 < netuid <= 65535 for netuid in netuids),
        "netuids",
        "must lie between 1 and 65535 (the root takes no weights)",
    )
    for rules in cfg.subnets:
        unknown = sorted(set(rules.hotkeys) - set(cfg.hotkeys))
        if unknown:
            checks.add(f"subnets[netuid={rules.netuid}].hotkeys={unknown[0]!r}: is not among hotkeys")
    positive(
        "rounds",
        "backoff_s",
        "backoff_most_s",
        "round_limit_s",
        "chain.timeout_s",
        "chain.margin_blocks",
        "chain.rounds_per_tempo",
    )
    positive(
        "chain.refresh_blocks",
        "chain.max_metagraph_age_s",
        "asking.max_in_flight",
        "asking.max_files_in_flight",
        "asking.max_file_mib",
    )
    positive("watch.overdue_tempos", "watch.every_blocks", "watch.silent_s")
    positive("validators.num_scorers", "validators.cpus_per_scorer", "validators.scorer_queue", "validators.deadline_s")
    positive("validators.evidence_mib", "validators.evidence_rounds", "validators.evidence_segments")
    positive(
        "validators.pack_items",
        "validators.pack_mib",
        "validators.score_limit_s",
        "cluster.start_timeout_s",
        "cluster.num_cpus",
    )
    need(cfg.validators.gpus_per_scorer >= 0, "validators.gpus_per_scorer", "must be 0 or greater")
    checks.one_of("asking.protocol", ("btauth", "epistula", "axon_v10"))
    checks.one_of("asking.body", ("safetensors", "json"))
    need(0.5 < cfg.asking.quorum <= 1.0, "asking.quorum", "must lie above 0.5 and be at most 1")
    need(cfg.asking.deadline_mads >= 0, "asking.deadline_mads", "must be 0 (off) or greater")
    for rules in cfg.all_subnets:
        check_mechanism(rules.mechanism, _Of(checks, rules))
    checks.raise_all()


class _Of:
    """The checks of one subnet's `mechanism` section, whose keys are told as those of the job."""

    def __init__(self, checks: Checks, rules: SubnetConfig) -> None:
        self._inner = Checks(rules)
        self._outer, self._netuid = checks, rules.netuid

    def need(self, ok: bool, key: str, why: str) -> None:
        if not ok:
            self._outer.add(f"subnet {self._netuid}: {key}={self._inner._value(key)!r}: {why}")

    def positive(self, *keys: str) -> None:
        for key in keys:
            value = self._inner._value(key)
            self.need(value is None or value > 0, key, "must be greater than 0")

    def add(self, mistake: str) -> None:
        self._outer.add(f"subnet {self._netuid}: {mistake}")

    def one_of(self, key: str, choices: tuple[str, ...]) -> None:
        self.need(self._inner._value(key) in choices, key, f"must be one of {', '.join(choices)}")
