"""One subnet, validated by any number of hotkeys: rounds of questions, evidence, scores, weights.

    metagraph -> questions -> miners -> scorers -> evidence log -> score boards -> weights

In: a metagraph, a way to ask, the scorers' desk. Out: `RoundResult`, and `weights` for whoever hands them in.
State is a folder of its own, a log and a board for each hotkey; a restart goes on with every miner's score.
Waits for: the miners and the scorers, each with a time-out. Knows nothing of clocks, of the chain or of other subnets.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raytensor.data.text import Text
from raytensor.mechanisms.base import Ask
from raytensor.mechanisms.evidence import gather
from raytensor.types import Commit, Failure, Metagraph, Promises, Score, Submission, Task, Weights
from raytensor.validators.evidence_log import EvidenceLog, Keep, replay
from raytensor.validators.scoreboard import ScoreBoard
from raytensor.validators.scorer import MechanismSpec
from raytensor.validators.scorer_service import ScorerService
from raytensor.validators.transport import MinerTransport

HELD_BYTES = 2**30  # of files of one subnet that lie with the scorers; until then more are downloaded


@dataclass(frozen=True)
class RoundResult:
    """What a round came to. asked, answered, scored: questions; failures: {reason: number}."""

    netuid: int
    round: int
    block: int
    miners: int
    asked: int
    answered: int
    scored: int
    wall_s: float
    failures: Mapping[str, int] = field(default_factory=dict)


class SubnetValidator:
    """name: of the rules at the scorers' desk. hotkeys: of the validators (ss58). folder: of the state. keep: of evidence.

    Raises `ConfigError` for a mechanism that can't be loaded, `DataError` for a state that can't be read.
    """

    def __init__(
        self,
        name: str,
        netuid: int,
        hotkeys: tuple[str, ...],
        rules: MechanismSpec,
        text: Text,
        folder: Path,
        score_limit_s: float,
        keep: Keep = Keep(),
    ) -> None:
        self.name, self.netuid, self.hotkeys = name, netuid, hotkeys
        self._text, self._folder, self._score_limit_s = text, folder, score_limit_s
        self._mechanism = rules.load()
        self.boards: dict[str, ScoreBoard] = {}
        self._logs: dict[str, EvidenceLog] = {}
        try:
            for hotkey in hotkeys:
                self._open(hotkey, rules, keep)
        except BaseException:
            self.close()
            raise

    def _open(self, hotkey: str, rules: MechanismSpec, keep: Keep) -> None:
        """The newest saved board, then what the log has beyond it."""
        board = ScoreBoard(self.netuid, hotkey, self._mechanism, rules.mechanism.path)
        log = self._logs[hotkey] = EvidenceLog(
            self._folder / hotkey / "evidence.jsonl", self.netuid, hotkey, rules, keep
        )
        board.restore(self._folder / hotkey / "board.json", now=time.time())
        if board.state.round > log.last_round:  # a log that was removed
            log.append_state(board.state)
        board.state = replay(log.path, state=board.state).state
        self.boards[hotkey] = board

    @property
    def last_round(self) -> int:
        """The newest round that any of the hotkeys has taken in; -1 before the first."""
        return max(board.state.round for board in self.boards.values())

    def play(
        self,
        metagraph: Metagraph,
        transport: MinerTransport,
        desk: ScorerService,
        stopped: Callable[[], bool] = lambda: False,
        commits: Mapping[str, Commit] | None = None,
    ) -> RoundResult | None:
        """One round: ask, score, log, reduce. None when `stopped` said so first: nothing of it counts then.

        commits  by hotkey, as of the metagraph's block; only those of earlier blocks count, for its hash draws the questions.
        """
        started, number = time.monotonic(), self.last_round + 1
        miners = self._miners(metagraph)
        promises = Promises(metagraph.block, metagraph.block_hash, commits or {})
        questions: dict[str, tuple[Task, Any]] = {}
        for hotkey, board in self.boards.items():
            ask = Ask.at(promises, self.netuid, hotkey, number, miners)
            questions.update(
                {task.task_id: (task, sealed) for task, sealed in self._mechanism.tasks(ask, board.state, self._text)}
            )
        results, answered = self._ask_and_score(questions, metagraph, transport, desk, stopped)
        if results is None or stopped():
            return None
        present = set(metagraph.hotkeys)
        for hotkey, board in self.boards.items():
            mine = {task_id: results[task_id] for task_id, (task, _) in questions.items() if task.validator == hotkey}
            gone = [miner for miner in board.state.miners if miner not in present]
            evidence = gather(self.netuid, hotkey, number, mine, answered=answered & mine.keys(), gone=gone)
            self._logs[hotkey].append(evidence)
            board.update(evidence)
            self._logs[hotkey].append_weights(number, board.weights())
            board.save(self._folder / hotkey / "board.json", saved_at=time.time())
            self._logs[hotkey].roll(board.state, number)
        failures = Counter(one.reason.value for one in results.values() if isinstance(one, Failure))
        return RoundResult(
            self.netuid,
            number,
            metagraph.block,
            len(miners),
            len(questions),
            len(answered),
            sum(isinstance(one, Score) for one in results.values()),
            time.monotonic() - started,
            dict(failures),
        )

    def weights(self, block: int) -> list[Weights]:
        """What each hotkey thinks now; nothing of a hotkey that thinks that nobody deserves any."""
        made = ((hotkey, board.weights()) for hotkey, board in self.boards.items())
        return [Weights(self.netuid, hotkey, values, made_at_block=block) for hotkey, values in made if values]

    def close(self) -> None:
        """Close the logs."""
        for log in self._logs.values():
            log.close()

    # ------------------------------------------------------------------------------------------------ inside

    def _miners(self, metagraph: Metagraph) -> tuple[str, ...]:
        """Whoever serves an address, and whoever has a score: to be silent costs, never to have served does not."""
        known = {miner for board in self.boards.values() for miner in board.state.miners}
        own = set(self.hotkeys)
        pairs = zip(metagraph.hotkeys, metagraph.axons, strict=True)
        return tuple(sorted(hotkey for hotkey, axon in pairs if hotkey not in own and (axon or hotkey in known)))

    def _ask_and_score(
        self,
        questions: Mapping[str, tuple[Task, Any]],
        metagraph: Metagraph,
        transport: MinerTransport,
        desk: ScorerService,
        stopped: Callable[[], bool],
    ) -> tuple[dict[str, Score | Failure] | None, set[str]]:
        """Answers flow into the scorers as they come, files ahead of their turn. Every question ends as one Score or one
        Failure."""
        results: dict[str, Score | Failure] = {}
        answered: set[str] = set()
        held: dict[str, int] = {}  # bytes of the answers that are with the scorers
        desk.open(self.name)
        end = 0.0

        def take() -> bool:
            """Take in a result, or wait a moment for one; False when the round was stopped."""
            nonlocal end
            found = desk.result(self.name, min(0.5, max(0.0, end - time.monotonic())))
            if found is not None:
                results.setdefault(*found)
                held.pop(found[0], None)
                end = time.monotonic() + self._score_limit_s  # the scorers work: wait as long as results come
            elif time.monotonic() >= end:
                out = len(questions) - len(results)
                raise TimeoutError(f"the scorers gave no result within {self._score_limit_s:g} s; {out} are out")
            return not stopped()

        for answer in transport.ask([task for task, _ in questions.values()], metagraph):
            if isinstance(answer, Failure):
                results[answer.item_id] = answer
            else:
                answered.add(answer.task_id)
                desk.submit(self.name, *questions[answer.task_id], answer)
                held[answer.task_id] = len(answer.payload) if isinstance(answer, Submission) else 0
            end = time.monotonic() + self._score_limit_s
            while sum(held.values()) > HELD_BYTES:
                if not take():
                    return None, answered
            if stopped():
                return None, answered
        end = time.monotonic() + self._score_limit_s
        while len(results) < len(questions):
            if not take():
                return None, answered
        return results, answered
