"""A trial of Ray Tune: a small process that requests rounds of training and reports their results.

In: a point of the search space. Out: a result per round. A small model is trained by one of the sweep's hosts, together
with others; any other model by ranks in the trial's own bundles, which end with the trial.
Waits for: a round, at most `miners.round_timeout_s`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raytensor.config.sweep import SweepConfig
from raytensor.errors import RunError
from raytensor.jobs.sweep.space import compose, overrides
from raytensor.jobs.sweep.store import Lineage, key_of, read_lineage
from raytensor.miners.placement import architecture

PROXY_CPUS = 0.02  # of the trial's process, which does not train
DIVERGED = 1e9  # reported for a held-out loss that is not finite: Tune needs a number


@dataclass(frozen=True)
class TrialPlan:
    """What all trials share. base: the sweep's overrides; text: its file; hosts: actors; folder: of the store."""

    base: tuple[str, ...]
    text: Path
    hosts: tuple[Any, ...]
    folder: Path
    rounds: int
    timeout_s: float
    keep_all: bool


def hosted(cfg: SweepConfig) -> bool:
    """Whether a trial is trained by a host, stacked with others of its shape, on the device of the hosts."""
    return architecture(cfg.profile) is not None and cfg.profile.ranks == 1 and not cfg.profile.gpus_per_rank


def bundles(cfg: SweepConfig) -> list[dict[str, float]]:
    """What a trial reserves: its own process, then each rank."""
    if hosted(cfg):
        return [{"CPU": PROXY_CPUS}]
    rank = {"CPU": cfg.profile.cpus_per_rank}
    if cfg.profile.gpus_per_rank:
        rank["GPU"] = float(cfg.profile.gpus_per_rank)
    return [{"CPU": PROXY_CPUS}, *[rank] * cfg.profile.ranks]


def trial_number(trial_id: str) -> int:
    """From 1, in the order in which Tune made the trials: its ids end in "_00000", "_00001" and so on."""
    end = trial_id.rpartition("_")[2]
    return int(end) + 1 if end.isdigit() else 0


class Trial(tune.Trainable):
    """One trial. `setup` gets the `TrialPlan` through `tune.with_parameters`."""

    def setup(self, config: dict[str, Any], plan: TrialPlan | None = None) -> None:
        assert plan is not None
        self._plan = plan
        self._ranks: list[Any] = []
        self._lineage: Lineage = ()
        self._round = 0
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start the next trial in this process, which saves seconds for each."""
        self._end()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        self._round += 1
        try:
            result: dict[str, Any] = ray.get(self._ask(), timeout=self._plan.timeout_s)
        except GetTimeoutError as error:
            what, limit_s = list(self._lineage[-1][1]), self._plan.timeout_s
            text = f"round {self._round} of {what} took more than {limit_s:g} s; raise miners.round_timeout_s"
            raise RunError(text) from error
        loss = result["heldout_loss"]
        report = {"round": self._round, "heldout_loss": DIVERGED if loss is None else loss}
        report |= {"train_loss": result["train_loss"], "setback": result.get("setback", "")}
        report |= {"lineage": json.dumps(self._lineage), "key": key_of(self._lineage)}
        return report | {"done": loss is None or self._round >= self._plan.rounds}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "trial.json").write_text(json.dumps({"lineage": self._lineage, "round": self._round}))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Continue from the checkpoint in a folder with this trial's settings; PBT may pass another trial's folder."""
        assert isinstance(checkpoint, str)
        found = json.loads(Path(checkpoint, "trial.json").read_text())
        lineage, mine = read_lineage(json.dumps(found["lineage"])), self._lineage[-1][1]
        self._round = int(found["round"])
        self._lineage = lineage if lineage[-1][1] == mine else (*lineage, (self._round, mine))

    def cleanup(self) -> None:
        self._end()

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._lineage = ((0, tuple(overrides(config))),)
        self._round = 0

    def _end(self) -> None:
        for actor in self._ranks:
            ray.kill(actor)
        self._ranks = []
        for host in self._plan.hosts:
            host.release.remote(self._lineage)

    def _ask(self) -> Any:
        cfg = compose((*self._plan.base, *self._lineage[-1][1]))
        if hosted(cfg):
            host = self._plan.hosts[trial_number(self.trial_id) % len(self._plan.hosts)]
            return host.advance.remote(self._lineage, self._round)
        if not self._ranks:
            self._ranks = self._start_ranks(cfg)
        first, *_ = [rank.advance.remote(self._lineage, self._round) for rank in self._ranks]
        return first

    def _start_ranks(self, cfg: SweepConfig) -> list[Any]:
        # Imports torch, which takes seconds and memory that a hosted trial does not need.
        from raytensor.jobs.sweep.rank import TrialRank, meeting_point

        group, plan, profile = ray.util.get_current_placement_group(), self._plan, cfg.profile
        assert group is not None, "Tune reserves the bundles of a trial"

        def options(rank: int) -> dict[str, Any]:
            where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank + 1)
            return {"num_cpus": profile.cpus_per_rank, "num_gpus": profile.gpus_per_rank, "scheduling_strategy": where}

        meeting = None
        if profile.ranks > 1:
            asked = ray.remote(meeting_point).options(**options(0)).remote()
            meeting = ray.get(asked, timeout=cfg.cluster.start_timeout_s)
        factory: Any = ray.remote(TrialRank)
        args = plan.base, plan.text, plan.folder, self._lineage
        factories = [factory.options(**options(rank)) for rank in range(profile.ranks)]
        return [one.remote(*args, rank, meeting, keep_all=plan.keep_all) for rank, one in enumerate(factories)]
