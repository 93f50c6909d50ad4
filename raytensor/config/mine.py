"""The settings of the `mine` job."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from raytensor.config.checks import FOLDER_NAME, setting
from raytensor.config.data import Data, settle_tokenizer
from raytensor.config.groups import Cluster, MinerProfile, Mining
from raytensor.config.mechanisms import Mechanism
from raytensor.config.operators import Alerts, Endpoints, Operated, name_each_once
from raytensor.config.run import profile_conflicts, seq_len_conflicts
from raytensor.config.wire import MinersWire


@dataclass
class MinerChain(Endpoints):
    """The chain, and how often it is read."""

    # Seconds to wait for an extrinsic to be included in a block.
    inclusion_timeout_s: float = 60.0
    # Blocks between metagraph refreshes; an epoch always refreshes. It decides who may ask.
    refresh_blocks: int = 10


@dataclass
class MinerWatch(Alerts):
    """When and where alarms are raised."""

    # Registrations before a hotkey is replaced at which an alarm is raised.
    near_pruning: int = setting(3, least=0)
    # Seconds in which no request reached the published address after which an alarm is raised.
    unreachable_s: float = 300.0


def _mining() -> Mining:
    """One model per hotkey, served on one port."""
    return Mining(
        wire=MinersWire(enabled=True, one_port=True), profiles=[MinerProfile(lr=1.5e-3, steps=60)], checkpoint_every=10
    )


@dataclass
class MineConfig(Operated):
    # Name of the folder under paths.runs that keeps the state; the same name resumes it.
    name: str = setting("miner", form=FOLDER_NAME)
    # Subnets that every hotkey mines on.
    netuids: list[int] = setting(make=list, least=1, most=65535)
    # Hotkeys by reference: wallet/hotkey, or a development key like //Alice. Only hotkeys are read.
    hotkeys: list[str] = field(default_factory=list)
    # Answer for all hotkeys with one model, that of the first. Most subnets take such answers for copies.
    share_model: bool = False
    # Train between answers; false only serves, from the newest checkpoint.
    training: bool = True
    # Rounds of training after which the job ends; null: never.
    rounds: int | None = None
    # Seconds between two rounds of training.
    pause_s: float = setting(0.0, least=0)
    # Seed of everything random: initial weights and the text that each miner trains on, with its hotkey.
    seed: int = setting(0, least=0, most=2**63 - 1)
    # Print the resolved configuration and what would be mined, then stop.
    dry_run: bool = False
    # The Ray cluster.
    cluster: Cluster = field(default_factory=Cluster)
    # The text that models train on.
    data: Data = field(default_factory=Data)
    # The models, their hosts, and the server. The hotkeys take the profiles in order, repeating from the first.
    miners: Mining = field(default_factory=_mining)
    # What the subnets' validators ask; decides whether miners submit files.
    mechanism: Mechanism = field(default_factory=Mechanism)
    # The chain of the subnets.
    chain: MinerChain = field(default_factory=MinerChain)
    # When and where alarms are raised.
    watch: MinerWatch = field(default_factory=MinerWatch)

    def settle(self) -> None:
        settle_tokenizer(self.data, [profile.model for profile in self.miners.profiles])

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from name_each_once(hotkeys=self.hotkeys, netuids=self.netuids)
        if not self.miners.wire.enabled:
            yield "miners.wire.enabled", "must be true: a miner is asked over signed HTTP"
        for key, why in self.miners.unfit(max(1, len(self.hotkeys)), "the number of hotkeys"):
            yield f"miners.{key}", why
        yield from seq_len_conflicts(self.mechanism, self.miners.seq_len)
        for number, profile in enumerate(self.miners.profiles):
            for key, why in profile_conflicts(profile):
                yield f"miners.profiles[{number}].{key}", why
