"""What trials would earn as the miners of one subnet.

In: trials and a way to ask their models. Out: each one's share of the incentive, as a run would pay it: a few rounds of
validators/round.py with the sweep's mechanism, then one epoch of Yuma consensus (`raytensor.consensus`).
It is computed in this process, without a chain, actors or files. Waits for: the trials' answers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from raytensor import consensus
from raytensor.config import Validators
from raytensor.config.sweep import SweepConfig
from raytensor.data.text import Text
from raytensor.mechanisms.base import Ask
from raytensor.types import Failure, Metagraph, Reason, Response, Task
from raytensor.validators.records import Records
from raytensor.validators.round import Round, RoundParts
from raytensor.validators.scorer import MechanismSpec, Scorer
from raytensor.validators.scorer_service import InProcessScorers
from raytensor.validators.transport import Answer

ROUNDS = 4  # after which the moving averages have settled
NETUID = 1
NAME = "sweep"  # of the mechanism in the scorer
TEMPO = 360  # blocks; the chain's default
RAO = 10**9

# (number of the trial, its questions) -> its answers
AskTrial = Callable[[int, Sequence[Task]], Sequence[Response]]


class _Trials:
    """The transport to trials. numbers: of the trials by hotkey."""

    def __init__(self, numbers: Mapping[str, int], ask: AskTrial) -> None:
        self._numbers, self._ask = numbers, ask

    def ask(self, tasks: Sequence[Task], metagraph: Metagraph | None) -> Iterator[Answer]:
        """See `MinerTransport.ask`; every trial is asked once, about all of its tasks."""
        by_trial: dict[str, list[Task]] = {}
        for task in tasks:
            by_trial.setdefault(task.hotkey, []).append(task)
        for hotkey, number in self._numbers.items():
            left = {task.task_id: task for task in by_trial.get(hotkey, [])}
            for answer in self._ask(number, list(left.values())) if left else ():
                del left[answer.task_id]
                yield answer
            for task in left.values():
                yield Failure(task.task_id, task.hotkey, Reason.SILENT)


def incentives(cfg: SweepConfig, text: Text, numbers: Sequence[int], ask: AskTrial) -> dict[int, float]:
    """Shares of the incentive by trial number; they sum to 1, or are all 0 when no trial deserves any."""
    spec = MechanismSpec(cfg.mechanism, text.log_unigram, text.vocab_size)
    mechanism, stakes = spec.load(), Validators()
    validators = tuple(f"validator-{n}" for n in range(stakes.num_validators))
    hotkeys = {f"trial-{number:05d}": number for number in numbers}
    records = Records.in_memory(NETUID, validators, mechanism)
    scorers = InProcessScorers(Scorer({NAME: spec}))
    game = Round(RoundParts(NAME, mechanism, text, records, _Trials(hotkeys, ask), scorers))
    weights: Mapping[str, Mapping[str, float]] = {}
    for round in range(1, ROUNDS + 1):
        asks = [Ask(cfg.seed, NETUID, validator, round, tuple(hotkeys)) for validator in validators]
        result = game.play(asks, weigh=round == ROUNDS)
        assert result is not None, "nothing interrupts it"
        weights = result.weights
    stakes_rao = [int(stakes.stake_tao * stakes.stake_ratio**n * RAO) for n in range(len(validators))]
    rows = [[weights[validator].get(hotkey, 0.0) for hotkey in hotkeys] for validator in validators]
    return dict(zip(hotkeys.values(), epoch_shares(rows, stakes_rao), strict=True))


def epoch_shares(weights: Sequence[Sequence[float]], stakes_rao: Sequence[int]) -> list[float]:
    """Shares of the incentive of one epoch. The validators have the uids from 0 on, the miners those after them.

    weights     [validators][miners], any scale.
    stakes_rao  of the validators.
    """
    num_validators, num_miners = len(weights), len(weights[0])
    n = num_validators + num_miners
    rows = []
    for row in weights:
        top = max(row, default=0.0)
        # u16 with the largest at 65535, as a client normalises them.
        paid = ((num_validators + m, value) for m, value in enumerate(row) if value > 0)
        rows.append([(uid, round(value / top * 65535)) for uid, value in paid])
    block = 10 * TEMPO
    output = consensus.epoch(
        consensus.EpochInput(
            block=block,
            tempo=TEMPO,
            activity_cutoff=5000,
            last_update=np.full(n, block - 1, np.uint64),
            block_at_registration=np.zeros(n, np.uint64),
            stake=np.array([*stakes_rao, *[0] * num_miners], np.uint64),
            validator_permit=np.arange(n) < num_validators,
            weights=consensus.Rows.from_lists([*rows, *[[]] * num_miners]),
            bonds=consensus.Rows.from_lists([[]] * n),
            max_validators=64,
            emission=RAO,
            last_mechanism_step_block=block - TEMPO,
        ),
        implementation="reference",  # one small epoch: loading the compiled one takes longer
    )
    earned = output.incentive[num_validators:].astype(float)
    return (earned / earned.sum() if earned.sum() else earned).tolist()
