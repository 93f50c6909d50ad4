"""Trains the miners round after round while they are served, and saves checkpoints. Never waits for a host.

    fleet.train -> fleet.tend ... -> checkpoint -> files to commit to -> next round

In: a fleet, the newest commitments of the subnets. Out: a `MinerRound` event per round, checkpoints, commitments.
Without training it only watches over the hosts. Waits for: a checkpoint, at most `miners.train_timeout_s`.
Knows nothing of questions: the hosts answer them beside the training.
"""

import time
from collections.abc import Callable, Mapping

from raytensor.chain.intents import SetCommitment
from raytensor.config.mine import MineConfig
from raytensor.miners.fleet import Fleet
from raytensor.telemetry import events, miner_events
from raytensor.types import FileCommit

Commits = Mapping[str, FileCommit]


class Trainer:
    """first_round: the next one to train. files: whether the mechanism asks for files.

    round        the newest round that was trained, 0 before the first. saved_round: the newest with a checkpoint.
    done         whether all rounds are trained and saved.
    """

    def __init__(
        self, cfg: MineConfig, fleet: Fleet, first_round: int, files: bool, show: Callable[[events.Event], None]
    ) -> None:
        self._cfg, self._fleet, self._files, self._show = cfg, fleet, files, show
        self.round = first_round - 1
        self.done = False
        self.saved_round = self.round
        self._last = None if cfg.rounds is None else self.round + cfg.rounds
        self._training = False
        self._began = self._next_at = 0.0

    def tick(self, committed: Commits | None) -> None:
        """Take in what has ended, and begin what is due. committed: of the chain, where files are asked for."""
        idle = self._fleet.tend()
        for incident in self._fleet.incidents():
            self._show(events.Warned(text=incident, fix="the miners go on; Ray's logs say more"))
        if not idle or not self._cfg.training:
            return
        if self._training:
            self._end_round()
        if self._last is not None and self.round >= self._last:
            if not self.done:
                self.save()
            self.done = True
        elif time.monotonic() >= self._next_at and not (self._files and committed is None):
            self._begin_round(committed)

    def save(self) -> None:
        """Write a checkpoint of the newest round, unless it has one."""
        if self.round > self.saved_round and self._fleet.checkpoint(self.round):
            self.saved_round = self.round

    def _begin_round(self, committed: Commits | None) -> None:
        self.round += 1
        self._training, self._began = True, time.monotonic()
        digests = None if committed is None else {hotkey: commit.digest for hotkey, commit in committed.items()}
        self._fleet.train(self.round, digests if self._files else None)

    def _end_round(self) -> None:
        self._training = False
        wall_s, losses = time.monotonic() - self._began, dict(self._fleet.train_losses)
        self._show(miner_events.MinerRound(round=self.round, wall_s=wall_s, losses=losses))
        every = self._cfg.miners.checkpoint_every
        if every and self.round % every == 0:
            self.save()
        self._next_at = time.monotonic() + self._cfg.pause_s


def file_commitments(netuid: int, files: Mapping[str, str], known: Mapping[str, str]) -> list[SetCommitment]:
    """Commitments to the miners' newest files, in the miners' names, where the chain does not have that already.

    files  digest by hotkey. known: digest by hotkey that the chain has.

    The intent's id is made from its content, so submitting it twice, after a resume for example, has no effect.
    """
    new = [(hotkey, digest) for hotkey, digest in files.items() if known.get(hotkey) != digest]
    return [
        SetCommitment(signer=hotkey, netuid=netuid, text=digest, intent_id=f"commit-{netuid}-{hotkey}-{digest}")
        for hotkey, digest in new
    ]
