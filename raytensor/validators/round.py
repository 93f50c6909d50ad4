"""The round: validators of one subnet ask miners, have the answers scored, and make weights.

    Ask -> Task -> transport -> Response | Submission | Failure -> scorers -> Score | Failure
        -> evidence log -> score board -> weights

In: one `Ask` for each validator, a `MinerTransport`, the scorers. Out: a `RoundResult`; the evidence is in `Records`.
Every job that validates plays this round: `validate` with the wire, `run` with its own miners, and sweeps in memory.
Waits for: the miners, each until its deadline; the scorers, at most their `patience_s` since the last result.
Bounds: at most `MAX_WAITING_BYTES` of files wait for scorers; until then more are asked for.
Knows nothing of clocks, of the chain or of other subnets.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raytensor.data.text import Text
from raytensor.errors import MechanismError
from raytensor.mechanisms.base import Ask
from raytensor.mechanisms.evidence import gather
from raytensor.mechanisms.guard import Guard
from raytensor.types import Failure, Metagraph, Reason, Score, Submission, Task
from raytensor.validators.records import Records
from raytensor.validators.scorer_service import Scorers, Session
from raytensor.validators.transport import Answer, MinerTransport
from raytensor.wire.payloads import num_bytes_of

MAX_WAITING_BYTES = 2**30  # of the files of one round that wait for scorers


@dataclass(frozen=True)
class RoundParts:
    """What the rounds of one subnet are played with. name: of the mechanism in the scorers."""

    name: str
    mechanism: Guard
    text: Text
    records: Records
    transport: MinerTransport
    scorers: Scorers


@dataclass(frozen=True)
class RoundResult:
    """The outcome of a round.

    block                    of the chain that the questions were drawn from; 0 without a chain.
    asked, answered, scored  numbers of questions.
    failures                 {reason: number} of questions without a usable answer: the miners' failures.
    unscored                 {cause: number} of answers that could not be scored; no miner's fault.
    weights                  {validator: {hotkey: weight}}; empty in a round that makes none.
    ask_s, score_s, wall_s   seconds until the last answer, from there to the last score, and in all.
    """

    netuid: int
    round: int
    block: int
    miners: int
    asked: int
    answered: int
    scored: int
    wall_s: float
    failures: Mapping[str, int] = field(default_factory=dict)
    unscored: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    ask_s: float = 0.0
    score_s: float = 0.0

    def counts(self) -> dict[str, Any]:
        """The fields that the event of a round has, too, by name."""
        names = ("netuid", "round", "block", "miners", "asked", "answered", "scored", "failures")
        return {name: getattr(self, name) for name in names}


class _Answers:
    """The questions of a round, what has been answered, and what each came to."""

    def __init__(self, questions: Mapping[str, tuple[Task, Any]]) -> None:
        self.questions = questions
        self.results: dict[str, Score | Failure] = {}
        self.answered: dict[str, Submission | None] = {}  # None for an answer that is no file
        self.asked_at = self.scored_at = time.monotonic()

    def of(self, validator: str) -> dict[str, Score | Failure]:
        """The results of one validator's questions, by task id."""
        tasks = (task for task, _ in self.questions.values() if task.validator == validator)
        return {task.task_id: self.results[task.task_id] for task in tasks}

    def files(self, validator: str) -> dict[str, Submission]:
        """The files that one validator was given, by the miner's hotkey."""
        found = ((self.questions[task_id][0], file) for task_id, file in self.answered.items() if file is not None)
        return {task.hotkey: file for task, file in found if task.validator == validator}

    def failures(self) -> tuple[dict[str, int], dict[str, int]]:
        """({reason: number} of what miners failed at, {cause: number} of answers that were not scored)."""
        theirs, ours = Counter[str](), Counter[str]()
        for task_id, result in self.results.items():
            if isinstance(result, Score):
                continue
            if task_id in self.answered and result.reason is not Reason.MALFORMED:
                ours[result.detail or result.reason.value] += 1
            else:
                theirs[result.reason.value] += 1
        return dict(theirs), dict(ours)


class Round:
    """Plays rounds of one subnet, one after another. parts: shared by all of them."""

    def __init__(self, parts: RoundParts) -> None:
        self.parts = parts

    def play(
        self,
        asks: Sequence[Ask],
        metagraph: Metagraph | None = None,
        *,
        weigh: bool = True,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> RoundResult | None:
        """One round: ask, score, log, reduce, weigh.

        asks         one for each validator, all of one round.
        metagraph    where miners are reached; hotkeys that have left it lose their scores. None: nobody has left.
        weigh        whether weights are made of it.
        interrupted  called after each answer and at least twice a second; True abandons the round.

        Returns None when the round was abandoned: nothing of it is kept. Raises `MechanismError` when the mechanism
        fails as a whole, `TimeoutError` when no scorer works.
        """
        parts, started, first = self.parts, time.monotonic(), asks[0]
        questions: dict[str, tuple[Task, Any]] = {}
        for ask in asks:
            state = parts.records.boards[ask.validator].state
            made = parts.mechanism.tasks(ask, state, parts.text)
            questions.update({task.task_id: (task, sealed) for task, sealed in made})
        answers = _Answers(questions)
        if not self._ask_and_score(answers, metagraph, interrupted) or interrupted():
            return None
        self._refuse_broken(answers)
        self._keep(first.round, asks, answers, None if metagraph is None else set(metagraph.hotkeys))
        weights = parts.records.weigh(first.round) if weigh else {}
        parts.records.end_round(first.round)
        failures, unscored = answers.failures()
        scored = sum(isinstance(result, Score) for result in answers.results.values())
        counts = (len(first.hotkeys), len(questions), len(answers.answered), scored)
        ask_s, score_s = answers.asked_at - started, answers.scored_at - answers.asked_at
        of, wall_s = (first.netuid, first.round, first.block), time.monotonic() - started
        return RoundResult(*of, *counts, wall_s, failures, unscored, weights, ask_s, score_s)

    def _ask_and_score(self, answers: _Answers, metagraph: Metagraph | None, interrupted: Callable[[], bool]) -> bool:
        """Answers go to the scorers as they arrive. Every question ends as one Score or one Failure.

        Returns False when the round was interrupted.
        """
        parts = self.parts
        scoring = _Scoring(parts.scorers, parts.name, answers)
        try:
            for answer in parts.transport.ask([task for task, _ in answers.questions.values()], metagraph):
                scoring.take_in(answer)
                while scoring.waiting_bytes > MAX_WAITING_BYTES and not interrupted():
                    scoring.wait()
                if interrupted():
                    return False
            answers.asked_at = scoring.last_at = time.monotonic()
            while len(answers.results) < len(answers.questions):
                scoring.wait()
                if interrupted():
                    return False
            answers.scored_at = time.monotonic()
        finally:
            scoring.session.close()
        assert answers.results.keys() == answers.questions.keys(), "every question must end exactly once"
        return True

    def _refuse_broken(self, answers: _Answers) -> None:
        """Raise `MechanismError` when the mechanism failed on every answer: that is a bug, not an odd answer."""
        results = [answers.results[task_id] for task_id in answers.answered]
        broken = [one for one in results if isinstance(one, Failure) and one.reason is Reason.MECHANISM]
        if broken and len(broken) == len(answers.answered):
            raise MechanismError(broken[0].detail)

    def _keep(self, number: int, asks: Sequence[Ask], answers: _Answers, present: Collection[str] | None) -> None:
        """Each validator's board takes in its own evidence; the first one's advances the state that miners share."""
        records, answered = self.parts.records, answers.answered.keys()
        for place, ask in enumerate(asks):
            mine, state = answers.of(ask.validator), records.boards[ask.validator].state
            gone = [] if present is None else [miner for miner in state.miners if miner not in present]
            evidence = gather(ask.netuid, ask.validator, number, mine, answered=answered & mine.keys(), gone=gone)
            if place == 0:
                # Before the evidence is logged: a process that is killed in between plays the round again and makes the
                # same state once more, while a logged round without its state could not be continued.
                self.parts.mechanism.after_round(state, evidence, answers.files(ask.validator))
            records.append(evidence)


class _Scoring:
    """The way of a round's answers through the scorers."""

    def __init__(self, scorers: Scorers, name: str, answers: _Answers) -> None:
        self.session: Session = scorers.session(name)
        self.last_at = time.monotonic()  # of the newest answer or result
        self._answers, self._patience_s = answers, scorers.patience_s
        self._sizes: dict[str, int] = {}  # bytes of the answers that wait for a score, by task id

    @property
    def waiting_bytes(self) -> int:
        return sum(self._sizes.values())

    def take_in(self, answer: Answer) -> None:
        """Submit an answer, or keep the failure; then collect the results that are there."""
        self.last_at = time.monotonic()
        if isinstance(answer, Failure):
            self._answers.results[answer.item_id] = answer
        else:
            file = answer if isinstance(answer, Submission) else None
            self._answers.answered[answer.task_id] = file
            self._sizes[answer.task_id] = num_bytes_of(answer)
            self.session.submit(*self._answers.questions[answer.task_id], answer)
        while self._collect(0.0):
            pass

    def wait(self) -> None:
        """Wait at most half a second for a result. Raises `TimeoutError` when none came for too long."""
        if not self._collect(0.5) and time.monotonic() - self.last_at >= self._patience_s:
            out = len(self._answers.questions) - len(self._answers.results)
            raise TimeoutError(f"the scorers gave no result within {self._patience_s:g} s; {out} are out")

    def _collect(self, wait_s: float) -> bool:
        found = self.session.result(wait_s)
        if found is None:
            return False
        self._answers.results.setdefault(*found)
        self._sizes.pop(found[0], None)
        self.last_at = time.monotonic()
        return True
