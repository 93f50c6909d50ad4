"""The loop of a run: train, play the round, commit, hand over.

    fleet.train -> Round.play -> Handover -> chain writer

The round is that of `validate` (validators/round.py), with miners in the cluster and in lockstep with training, so a
run repeats to the bit. Questions are drawn from the run's seed. Where the mechanism asks for files, they are drawn from
the newest block's hash: miners commit to the digests of their files, and only commitments of earlier blocks count.

In: the parts, already started. Out: one `RoundDone` per round; weights and commitments through the hand-over.
Waits for: the miners and the scorers, as the round does; never for the chain.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from raytensor.chain.reads.follower import Seen
from raytensor.config import RunConfig
from raytensor.errors import RunError
from raytensor.jobs.handover import Handover
from raytensor.jobs.mine.trainer import file_commitments
from raytensor.mechanisms import base
from raytensor.miners.fleet import Fleet
from raytensor.telemetry import events
from raytensor.types import Promises, Weights
from raytensor.validators.round import Round, RoundResult

SPEC = "run"  # name of a run's only mechanism in its scorers
Show = Callable[[events.Event], None]


class RunLoop:
    """Plays the rounds of one subnet.

    miners  hotkeys that are asked, in a fixed order.
    seen    returns what is known of the subnet now; its promises are needed where the mechanism asks for files.
    """

    def __init__(
        self,
        cfg: RunConfig,
        netuid: int,
        miners: Sequence[str],
        round: Round,
        fleet: Fleet,
        handover: Handover,
        seen: Callable[[], Seen],
        show: Show,
    ) -> None:
        self._cfg, self._netuid, self._miners = cfg, netuid, tuple(miners)
        needs = base.needs(cfg.mechanism)
        self._files, self._version_key = needs.asks_for_files, needs.version_key
        self._round, self._fleet, self._handover, self._seen, self._show = round, fleet, handover, seen, show
        self._warned: set[str] = set()
        self._weights: Mapping[str, Mapping[str, float]] = {}  # the newest of each validator

    def play(self, number: int) -> events.RoundDone:
        """One round. A failure of a miner, a scorer or the chain does not raise; a bug in the mechanism does."""
        fleet, started, trained_before_s = self._fleet, time.monotonic(), self._fleet.train_s
        seen = self._seen()
        promises = seen.promises if self._files else None
        committed = {hotkey: commit.digest for hotkey, commit in promises.commits.items()} if promises else None
        fleet.train(number, committed)
        weigh = number % self._cfg.chain.weights_every == 0
        try:
            asks = self._asks(number, promises, seen)
            result = self._round.play(asks, seen.metagraph, weigh=weigh, interrupted=self._poll)
        except TimeoutError as error:
            fix = "more CPUs, or a larger validators.score_limit_s"
            raise RunError(f"round {number}: {error}\n  fix: {fix}") from error
        assert result is not None, "nothing interrupts a run's round"
        played = time.monotonic()
        if self._files:  # some hosts were asked nothing, and their training must not pile up
            fleet.wait_trained()
        weighed = time.monotonic()
        if weigh:
            self._weigh(result, seen)
        self._commit(promises)
        self._handover.poll()
        self._warn(result)
        ended = time.monotonic()
        # Hosts train side by side, and one may answer while another still trains: count the mean of a host's training.
        waited_s = result.ask_s + weighed - played
        train_s = min(waited_s, (fleet.train_s - trained_before_s) / fleet.num_hosts)
        boards = self._round.parts.records.boards
        return events.RoundDone(
            rounds=self._cfg.rounds,
            **result.counts(),
            wall_s=ended - started,
            train_s=train_s,
            ask_s=waited_s - train_s,
            score_s=result.score_s,
            chain_s=ended - weighed,
            idle_s=weighed - started - waited_s - result.score_s,
            losses=_mean(board.state.floats("loss") for board in boards.values()),
            values=_mean(self._weights.values()),
            standings=next(iter(boards.values())).state.words("status"),
        )

    def _asks(self, number: int, promises: Promises | None, seen: Seen) -> list[base.Ask]:
        """One for each validator; a miner that has left the subnet is not asked."""
        present = set(seen.metagraph.hotkeys if seen.metagraph is not None else self._miners)
        miners = tuple(hotkey for hotkey in self._miners if hotkey in present)
        validators = self._round.parts.records.boards
        if promises is not None:
            return [base.Ask.at(promises, self._netuid, validator, number, miners) for validator in validators]
        return [base.Ask(self._cfg.seed, self._netuid, validator, number, miners) for validator in validators]

    def _poll(self) -> bool:
        """Called by the round while it waits: the hand-over goes on. Never interrupts the round."""
        self._handover.poll()
        return False

    def _weigh(self, result: RoundResult, seen: Seen) -> None:
        """Hand over the round's weights; they replace older ones that were not sent yet."""
        self._weights = result.weights
        block = seen.tick.block if seen.tick is not None else 0
        newest = []
        for validator, values in result.weights.items():
            at, number = self._netuid, result.round
            self._show(events.WeightsMade(netuid=at, round=number, hotkey=validator, values=values, block=block))
            if values:
                facts = {"made_at_block": block, "version_key": self._version_key}
                newest.append(Weights(self._netuid, validator, dict(values), **facts))
        self._handover.hand_over(newest)

    def _commit(self, promises: Promises | None) -> None:
        """Commit to the miners' newest files where the chain does not have that already."""
        read = {hotkey: commit.digest for hotkey, commit in promises.commits.items()} if promises else {}
        ours, sent = self._fleet.files, self._handover.committed
        new = {hotkey: digest for hotkey, digest in ours.items() if sent.get(hotkey) != digest}
        intents = file_commitments(self._netuid, new, read)
        self._handover.commit(intents)

    def _warn(self, result: RoundResult) -> None:
        """Show what went wrong with hosts, and each cause of an answer that was not scored once."""
        for incident in self._fleet.incidents():
            self._show(events.Warned(text=incident, fix="the run goes on; Ray's logs say more"))
        for cause in result.unscored:
            if cause not in self._warned:
                self._warned.add(cause)
                self._show(events.Warned(text=f"an answer was not scored: {cause}", fix="no miner is blamed for it"))


def _mean(per_validator: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean over validators of {hotkey: number}; a validator that has no number for a hotkey is left out of it."""
    numbers: dict[str, list[float]] = {}
    for values in per_validator:
        for hotkey, value in values.items():
            numbers.setdefault(hotkey, []).append(value)
    return {hotkey: sum(values) / len(values) for hotkey, values in numbers.items()}
