"""The one loop that wires the parts.

    corpus -> Task -> Miner -> Response | Failure -> Scorer pool -> Score -> evidence log -> ScoreBoard -> Weights
           -> Handover -> ChainWriter

Where the mechanism asks for files, miners commit to theirs: digests -> Handover -> chain -> `Promises` -> Task. What is
asked follows from the newest block's hash, and only what was committed to before that block is asked for.

In: the parts, already started. Out: one `RoundDone` per round, through `show`; weights and commitments on the chain.
Waits for: the miners' answers, each at most its deadline; never for the chain: at most one set of weights and one of
commitments is on its way, and while it is, only the newest of the later ones is kept.
Bounds: a round holds num_validators x num_miners questions; the pool holds at most that many answers.
Knows every part; no part knows it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raytensor.chain.calls import SetCommitment
from raytensor.config import RunConfig, hands_in_files
from raytensor.data.text import Text
from raytensor.jobs.handover import Handover
from raytensor.mechanisms.base import Ask, Mechanism
from raytensor.mechanisms.collab import CollabMechanism
from raytensor.mechanisms.evidence import gather
from raytensor.miners.fleet import Fleet
from raytensor.pool import Pool
from raytensor.telemetry import events
from raytensor.types import Failure, Promises, Score, Submission, Task, Weights
from raytensor.validators.evidence_log import EvidenceLog
from raytensor.validators.scoreboard import ScoreBoard
from raytensor.validators.scorers import submit

RULES = "run"  # the name of a run's only rules in its scorers
Show = Callable[[events.Event], None]


@dataclass
class RoundParts:
    """What a round is made of."""

    fleet: Fleet
    scorers: Pool
    mechanism: Mechanism
    boards: dict[str, ScoreBoard]  # validator hotkey -> its own board
    logs: dict[str, EvidenceLog]  # validator hotkey -> where its evidence goes before its board takes it in
    handover: Handover
    text: Text
    show: Show


class Round:
    """Plays rounds of one subnet.

    netuid   the subnet.
    miners   hotkeys that are asked, in a fixed order.
    block    returns the newest chain block that is known; for `Weights.made_at_block` only.
    promises returns what miners have committed to at the newest block, None before that was read; needed where the
             mechanism asks for files.
    """

    def __init__(
        self,
        cfg: RunConfig,
        parts: RoundParts,
        netuid: int,
        miners: list[str],
        block: Callable[[], int],
        promises: Callable[[], Promises | None] = lambda: None,
    ) -> None:
        self.cfg = cfg
        self.parts = parts
        self.netuid = netuid
        self.miners = miners
        self._block = block
        self._files = hands_in_files(cfg.mechanism)
        self._promises = promises
        self.last_weights: dict[str, dict[str, float]] = {}

    def play(self, number: int) -> events.RoundDone:
        """One round: train, ask, score, weigh. Returns what happened; never raises for a miner's or the chain's fault."""
        parts, started = self.parts, time.monotonic()
        trained_before_s = parts.fleet.train_s
        promises = self._promises() if self._files else None
        parts.fleet.train(
            number, {hotkey: commit.digest for hotkey, commit in promises.commits.items()} if promises else None
        )
        questions = self._questions(number, promises)
        results, answers, asked = self._ask_and_score(questions)
        scored = time.monotonic()
        self._keep(number, questions, results, answers)
        scores = [result for result in results.values() if isinstance(result, Score)]
        failures = [result for result in results.values() if isinstance(result, Failure)]
        if number % self.cfg.chain.weights_every == 0:
            self._weigh(number)
        weighed = time.monotonic()
        self._commit(promises)
        parts.handover.poll()
        for incident in parts.fleet.incidents():
            parts.show(events.Warned(text=incident, fix="the run goes on; Ray's logs say more"))
        ended = time.monotonic()
        # Hosts train side by side, and one may answer while another still trains: count what a host trained on average.
        train_s = min(asked - started, (parts.fleet.train_s - trained_before_s) / parts.fleet.num_hosts)
        ask_s = asked - started - train_s
        return events.RoundDone(
            round=number,
            rounds=self.cfg.rounds,
            wall_s=ended - started,
            train_s=train_s,
            ask_s=ask_s,
            score_s=scored - asked,
            chain_s=ended - weighed,
            idle_s=weighed - scored,
            netuid=self.netuid,
            miners=len(self.miners),
            asked=len(questions),
            answered=len(answers),
            scored=len(scores),
            failures=dict(Counter(failure.reason.value for failure in failures)),
            losses=self._mean({v: board.state.floats("loss") for v, board in parts.boards.items()}),
            values=self._mean(self.last_weights),
            standings=next(iter(parts.boards.values())).state.words("status"),
        )

    def _questions(self, number: int, promises: Promises | None) -> dict[str, tuple[Task, Any]]:
        parts, questions, miners = self.parts, {}, tuple(self.miners)
        for validator, board in parts.boards.items():
            if promises is not None:
                ask = Ask.at(promises, self.netuid, validator, number, miners)
            else:
                ask = Ask(self.cfg.seed, self.netuid, validator, number, miners)
            questions.update(
                {task.task_id: (task, sealed) for task, sealed in parts.mechanism.tasks(ask, board.state, parts.text)}
            )
        return questions

    def _ask_and_score(
        self, questions: dict[str, tuple[Task, Any]]
    ) -> tuple[dict[str, Score | Failure], dict[str, Submission | None], float]:
        """Answers flow into the scorers as they come. Every question ends as one Score or one Failure.

        Also returns the files that were handed in by task id (None for an answer of another kind), and when the last
        answer came, on the monotonic clock.
        """
        parts = self.parts
        results: dict[str, Score | Failure] = {}
        answers: dict[str, Submission | None] = {}
        for answer in parts.fleet.ask([task for task, _ in questions.values()]):
            if isinstance(answer, Failure):
                results[answer.item_id] = answer
            else:
                answers[answer.task_id] = answer if isinstance(answer, Submission) else None
                task, sealed = questions[answer.task_id]
                submit(parts.scorers, RULES, self.cfg.validators, task, sealed, answer)
            results.update(parts.scorers.poll())
            parts.handover.poll()
        if self._files:  # some hosts are asked nothing, and the next round's training must not pile up on this one's
            parts.fleet.wait_trained()
        asked = time.monotonic()
        results.update(parts.scorers.drain(self.cfg.validators.deadline_s))
        assert results.keys() == questions.keys(), "every question must end exactly once"
        return results, answers, asked

    def _keep(
        self,
        number: int,
        questions: dict[str, tuple[Task, Any]],
        results: dict[str, Score | Failure],
        answers: dict[str, Submission | None],
    ) -> None:
        """Each validator's board takes in its own evidence of the round; the first's decides on a shared model's step."""
        lead = next(iter(self.parts.boards))
        for validator, board in self.parts.boards.items():
            mine = {
                task_id: results[task_id] for task_id, (task, _) in questions.items() if task.validator == validator
            }
            evidence = gather(self.netuid, validator, number, mine, answered=answers.keys() & mine.keys())
            self.parts.logs[validator].append(evidence)
            if validator == lead and isinstance(self.parts.mechanism, CollabMechanism):
                handed_in = {
                    questions[task_id][0].hotkey: answer
                    for task_id, answer in answers.items()
                    if task_id in mine and answer
                }
                self.parts.mechanism.advance_model(board.state, evidence, handed_in)
            board.update(evidence)

    # ---------------------------------------------------------------------------------------------- the chain

    def _weigh(self, number: int) -> None:
        """Newest weights win: what was not sent yet is replaced."""
        newest = []
        for validator, board in self.parts.boards.items():
            values = board.weights()
            self.last_weights[validator] = values
            self.parts.logs[validator].append_weights(number, values)
            self.parts.show(
                events.WeightsMade(
                    netuid=self.netuid, round=number, hotkey=validator, values=values, block=self._block()
                )
            )
            if values:
                newest.append(Weights(self.netuid, validator, values, made_at_block=self._block()))
        self.parts.handover.hand_over(newest)

    def _commit(self, promises: Promises | None) -> None:
        """Commit to the miners' newest files, in the miners' names, unless the chain has that already.

        An intent's id says what is promised: what is handed in twice, as after a resume, is carried out once.
        """
        seen = promises.commits if promises is not None else {}
        intents = [
            SetCommitment(
                signer=hotkey, netuid=self.netuid, text=digest, intent_id=f"commit-{self.netuid}-{hotkey}-{digest}"
            )
            for hotkey, digest in self.parts.fleet.files.items()
            if self.parts.handover.committed.get(hotkey) != digest
            and (hotkey not in seen or seen[hotkey].digest != digest)
        ]
        self.parts.handover.commit(intents)

    @staticmethod
    def _mean(per_validator: dict[str, dict[str, float]]) -> dict[str, float]:
        """Mean over validators of {hotkey: number}; a validator that has no number for a hotkey is left out of it."""
        sums: dict[str, list[float]] = {}
        for values in per_validator.values():
            for hotkey, value in values.items():
                sums.setdefault(hotkey, []).append(value)
        return {hotkey: sum(values) / len(values) for hotkey, values in sums.items()}
