"""The settings of the `run` job."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from raytensor.config.behaviours import BEHAVIOURS
from raytensor.config.groups import Chain, Job, MinerProfile, Miners, Tracker, Validators
from raytensor.config.mechanisms import Mechanism


@dataclass
class RunConfig(Job):
    # Rounds to play.
    rounds: int = 12
    # Miners, their hosts and how they differ.
    miners: Miners = field(default_factory=Miners)
    # Validators, their stake and their scorers.
    validators: Validators = field(default_factory=Validators)
    # What validators ask, how answers are scored and how scores become weights.
    mechanism: Mechanism = field(default_factory=Mechanism)
    # The chain of the subnet.
    chain: Chain = field(default_factory=Chain)
    # Where metrics are logged besides the run folder.
    tracker: Tracker = field(default_factory=Tracker)

    def models(self) -> list[str | None]:
        return [profile.model for profile in self.miners.profiles]

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from super().conflicts()
        total = self.miners.num_miners + self.validators.num_validators + 1
        if total > 4096:
            yield "miners.num_miners", f"makes {total} neurons with the validators and the owner; a subnet holds 4096"
        yield from seq_len_conflicts(self.mechanism, self.miners.seq_len)
        for number, profile in enumerate(self.miners.profiles):
            for key, why in profile_conflicts(profile):
                yield f"miners.profiles[{number}].{key}", why


def seq_len_conflicts(mechanism: Mechanism, seq_len: int) -> Iterator[tuple[str, str]]:
    """Contexts that are longer than the models of the job's miners see."""
    why = f"must be at most miners.seq_len ({seq_len}), the longest text that the models see"
    if mechanism.query.context > seq_len:
        yield "mechanism.query.context", why


def profile_conflicts(profile: MinerProfile) -> Iterator[tuple[str, str]]:
    """What a profile can't be under any mechanism; `jobs.run.plan` checks it under the run's own."""
    if not BEHAVIOURS[profile.behaviour].trains and (profile.ranks > 1 or profile.gpus_per_rank):
        yield "behaviour", "has no model, so it uses neither ranks nor GPUs; use ranks=1 and gpus_per_rank=0"
