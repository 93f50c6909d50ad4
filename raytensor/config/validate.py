"""The settings of the `validate` job."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from raytensor.config.checks import ENVIRONMENT_NAME, FOLDER_NAME, Section, setting
from raytensor.config.data import Data, settle_tokenizer
from raytensor.config.groups import Cluster, Scoring
from raytensor.config.mechanisms import Mechanism
from raytensor.config.operators import Alerts, Endpoints, Operated, name_each_once
from raytensor.config.wire import Client


@dataclass
class SubnetConfig(Section):
    """A subnet that is validated with its own mechanism."""

    # The subnet.
    netuid: int = setting(0, least=1, most=65535)
    # Which of `hotkeys` validate here; an empty list means all of them.
    hotkeys: list[str] = field(default_factory=list)
    # Its incentive mechanism, as the section `mechanism`.
    mechanism: Mechanism = field(default_factory=Mechanism)


@dataclass
class ValidatorChain(Endpoints):
    """The chain, and how often it is read."""

    # Key that is a proxy of the hotkeys: the weights of all of them then share one extrinsic. null: each signs its own.
    delegate: str | None = None
    # Blocks before an epoch at which the weights of that tempo go to the chain writer; at most a third of the tempo.
    margin_blocks: int = 20
    # Rounds of questions per tempo.
    rounds_per_tempo: int = 3
    # Blocks between metagraph refreshes; an epoch always refreshes.
    refresh_blocks: int = 25
    # Age in seconds above which a metagraph is too old to decide by: no questions are asked until the chain answers
    # again.
    max_metagraph_age_s: float = 600.0
    # Last blocks in which a start looks for weights of the hotkeys that no run under paths.runs has sent: another
    # program sets them, and the start is refused until `raytensor weights take-over`. Bounded to 30 s; 0: none.
    look_back_blocks: int = setting(1080, least=0)
    # What is set before the last weights fall out of the activity cutoff when a mechanism makes no new ones: renew the
    # last good ones, hold (set nothing), burn (all to the subnet's owner).
    renewal: str = setting("renew", choices=("renew", "hold", "burn"))


@dataclass
class Watch(Alerts):
    # Tempos without weights on the chain after which an alarm is raised.
    overdue_tempos: float = 3.0
    # Blocks between two reads of the weights on the chain.
    every_blocks: int = 5
    # Name of an environment variable that holds a URL; it is called (GET) while no alarm stands, for an outside service
    # that alarms when the calls stop.
    heartbeat_env: str | None = setting(None, form=ENVIRONMENT_NAME)
    # Seconds between two calls of the heartbeat's address.
    heartbeat_s: float = 60.0


@dataclass
class ValidateConfig(Operated):
    # Name of the folder under paths.runs that keeps the state; the same name resumes it.
    name: str = setting("validator", form=FOLDER_NAME)
    # Subnets that are validated by the section `mechanism`.
    netuids: list[int] = setting(make=list, least=1, most=65535)
    # Subnets with their own mechanism: subnets='[{netuid: 5, mechanism: {path: mypackage.rules.Mine}}]'.
    subnets: list[SubnetConfig] = field(default_factory=list)
    # Hotkeys by reference: wallet/hotkey, or a development key like //Alice. Only hotkeys are read.
    hotkeys: list[str] = field(default_factory=list)
    # Rounds per subnet after which the job ends; null: never.
    rounds: int | None = None
    # Print the resolved configuration and what would be validated, then stop.
    dry_run: bool = False
    # Seconds before a subnet that failed is retried; doubled with each consecutive failure, up to backoff_most_s.
    backoff_s: float = 10.0
    # Longest pause between two retries in seconds.
    backoff_most_s: float = 900.0
    # Seconds that one round of a subnet may take before it counts as stuck.
    round_limit_s: float = 900.0
    # The Ray cluster.
    cluster: Cluster = field(default_factory=Cluster)
    # The text that validators ask about.
    data: Data = field(default_factory=Data)
    # How answers are scored.
    validators: Scoring = field(default_factory=Scoring)
    # What is asked, how answers are scored and how scores become weights, for the subnets in `netuids`.
    mechanism: Mechanism = field(default_factory=Mechanism)
    # The chain of the subnets.
    chain: ValidatorChain = field(default_factory=ValidatorChain)
    # How miners are asked over signed HTTP.
    asking: Client = field(default_factory=Client)
    # When and where alarms are raised.
    watch: Watch = field(default_factory=Watch)

    @property
    def all_subnets(self) -> list[SubnetConfig]:
        """The rules of every subnet, by netuid."""
        shared = [SubnetConfig(netuid, [], self.mechanism) for netuid in self.netuids]
        return sorted([*shared, *self.subnets], key=lambda rules: rules.netuid)

    def settle(self) -> None:
        settle_tokenizer(self.data, ())

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from name_each_once(hotkeys=self.hotkeys, netuids=[subnet.netuid for subnet in self.all_subnets])
        for number, subnet in enumerate(self.subnets):
            if unknown := sorted(set(subnet.hotkeys) - set(self.hotkeys)):
                yield f"subnets[{number}].hotkeys", f"{unknown[0]!r} is not among hotkeys"
        if self.backoff_most_s < self.backoff_s:
            yield "backoff_most_s", f"must be at least backoff_s ({self.backoff_s:g})"
