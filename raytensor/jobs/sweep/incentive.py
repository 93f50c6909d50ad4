"""What trials would earn: side by side as the miners of one subnet, questioned by validators and paid by consensus.

In: trials and a way to ask their models. Out: each one's share of the incentive, by the sweep's own mechanism and by the
chain's Yuma consensus (`raytensor.consensus`), as a run would pay them. No chain process and no time: questions, evidence,
weights and one epoch, computed here. Pure but for the asking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from raytensor import consensus
from raytensor.config import Validators
from raytensor.config.sweep import SweepConfig
from raytensor.data.text import Text
from raytensor.mechanisms import base
from raytensor.mechanisms.evidence import State, advance, gather
from raytensor.types import Failure, Response, Score, Task

ROUNDS = 4  # of questions; the moving averages settle
NETUID = 1
TEMPO = 360  # blocks; the chain's default
RAO = 10**9

# (number of the trial, its questions) -> its answers
Ask = Callable[[int, Sequence[Task]], Sequence[Response]]


def incentives(cfg: SweepConfig, text: Text, numbers: Sequence[int], ask: Ask) -> dict[int, float]:
    """Shares of the incentive by trial number; they sum to 1, or are all 0 when nobody deserves any."""
    mechanism = base.load(cfg.mechanism, text.log_unigram, text.vocab_size)
    stakes = Validators()
    validators = [f"validator-{n}" for n in range(stakes.num_validators)]
    hotkeys = {f"trial-{number:05d}": number for number in numbers}
    states = dict.fromkeys(validators, State())
    for round in range(1, ROUNDS + 1):
        asked = {
            validator: mechanism.tasks(
                base.Ask(cfg.seed, NETUID, validator, round, tuple(hotkeys)), states[validator], text
            )
            for validator in validators
        }
        by_trial: dict[str, list[Task]] = {hotkey: [] for hotkey in hotkeys}
        for questions in asked.values():
            for task, _ in questions:
                by_trial[task.hotkey].append(task)
        answers = {
            answer.task_id: answer
            for hotkey, tasks in by_trial.items()
            if tasks
            for answer in ask(hotkeys[hotkey], tasks)
        }
        for validator, questions in asked.items():
            items = [
                base.Item(task, sealed, answers[task.task_id]) for task, sealed in questions if task.task_id in answers
            ]
            results: dict[str, Score | Failure] = {
                item.task.task_id: found for item, found in zip(items, mechanism.score(items), strict=True)
            }
            evidence = gather(NETUID, validator, round, results, answered=results)
            states[validator] = advance(mechanism, states[validator], evidence)
    weights = [mechanism.weights(states[validator]) for validator in validators]
    stakes_rao = [int(stakes.stake_tao * stakes.stake_ratio**n * RAO) for n in range(len(validators))]
    shares = epoch_shares([[given.get(hotkey, 0.0) for hotkey in hotkeys] for given in weights], stakes_rao)
    return dict(zip(hotkeys.values(), shares, strict=True))


def epoch_shares(weights: Sequence[Sequence[float]], stakes_rao: Sequence[int]) -> list[float]:
    """Shares of the incentive of one epoch: validators (uids 0 ..) of these stakes weigh the miners behind them.

    weights  [validators][miners], any scale.
    """
    num_validators, num_miners = len(weights), len(weights[0])
    n = num_validators + num_miners
    rows = []
    for row in weights:
        top = max(row, default=0.0)
        # u16 with the largest at 65535, as a client normalises them.
        rows.append(
            [(num_validators + m, round(value / top * 65535)) for m, value in enumerate(row) if top > 0 and value > 0]
        )
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
