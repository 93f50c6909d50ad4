"""Windows of collaborative training without a chain: miners, a validator, the shared model.

With `crews=0` all in this process; else the miners are spread over so many Ray actors. The numbers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from raytensor import config
from raytensor.data import assign
from raytensor.data.text import Text, unigram
from raytensor.mechanisms.base import Ask, Item
from raytensor.mechanisms.collab import CollabMechanism
from raytensor.mechanisms.collab.judge import first_model
from raytensor.mechanisms.collab.store import Store
from raytensor.mechanisms.evidence import Evidence, State, advance, gather
from raytensor.miners.collaborator import Collaborator
from raytensor.training.recipe import Recipe
from raytensor.types import Failure, Reason, Submission, Task

VOCAB = 64


def markov_text(length: int = 40_000) -> Text:
    """Something quick to learn: a Markov chain over 64 tokens with few likely successors."""
    draw = np.random.default_rng(5)
    successors = draw.integers(0, VOCAB, (VOCAB, 4))
    picks = draw.choice(4, length, p=[0.6, 0.2, 0.15, 0.05])
    tokens = np.empty(length, np.int32)
    tokens[0] = 0
    for i in range(1, length):
        tokens[i] = successors[tokens[i - 1], picks[i]]
    train, heldout = np.split(tokens, [length * 9 // 10])
    return Text(
        train, heldout, np.array([0, len(train)]), np.array([0, len(heldout)]), unigram(train, VOCAB), VOCAB, 1.0
    )


class Crew:
    """Some of the miners."""

    def __init__(self, rule: config.Collab, recipe: Recipe, train: np.ndarray) -> None:
        import torch

        torch.set_num_threads(1)
        self._rule, self._recipe, self._train = rule, recipe, train
        self.miners: dict[str, Collaborator] = {}

    def join(self, hotkey: str, behaviour: str) -> None:
        width = self._rule.seq_len + 1

        def other(window: int, rows: int) -> np.ndarray:
            starts = assign.generator("other text", hotkey, window).integers(0, len(self._train) - width, rows)
            return self._train[starts[:, None] + np.arange(width)]

        self.miners[hotkey] = Collaborator(hotkey, behaviour, self._rule, self._recipe, other_text=other)

    def leave(self, hotkey: str) -> None:
        del self.miners[hotkey]

    def work(self, tasks: list[Task], observed: Submission | None) -> dict[str, Submission]:
        found = {task.hotkey: self.miners[task.hotkey].work(task, observed) for task in tasks}
        return {hotkey: answer for hotkey, answer in found.items() if answer is not None}


class Play:
    """A subnet of miners (behaviour by hotkey) and one validator; `window()` plays one window."""

    def __init__(
        self,
        folder: Path,
        behaviours: Mapping[str, str],
        words: Text,
        recipe: Recipe | None = None,
        *,
        crews: int = 0,
        **rule: object,
    ) -> None:
        defaults: dict = {
            "hidden": 32,
            "layers": 1,
            "heads": 2,
            "inner_steps": 4,
            "batch_size": 8,
            "seq_len": 16,
            "judge_rows": 16,
        }
        self.rule = config.Collab(**(defaults | rule), folder=str(folder))
        self.text = words
        arrays, described = first_model(self.rule, words.vocab_size, seed=0)
        self.store = Store.create(folder, arrays, described)
        section = config.Mechanism(path="raytensor.mechanisms.collab.CollabMechanism", collab=self.rule)
        self.mechanism = CollabMechanism(section, words.log_unigram, words.vocab_size)
        self.state = State()
        self.number = 0
        self._remote = crews > 0
        self.crews = [self._crew(recipe or Recipe(lr=3e-3)) for _ in range(max(1, crews))]
        self.behaviours: dict[str, str] = {}
        for hotkey, behaviour in behaviours.items():
            self.join(hotkey, behaviour)

    def _crew(self, recipe: Recipe) -> object:
        if not self._remote:
            return Crew(self.rule, recipe, self.text.train)
        import ray

        return ray.remote(num_cpus=1)(Crew).remote(self.rule, recipe, self.text.train)

    @property
    def miners(self) -> dict[str, Collaborator]:
        """Of a play in this process."""
        return self.crews[0].miners

    def join(self, hotkey: str, behaviour: str) -> None:
        self._call(self._crew_of(len(self.behaviours)), "join", hotkey, behaviour)
        self.behaviours[hotkey] = behaviour
        self._home = {hotkey: number % len(self.crews) for number, hotkey in enumerate(self.behaviours)}

    def leave(self, hotkey: str) -> None:
        """It goes without a word; its place stays, so that nobody else moves."""
        self.behaviours[hotkey] = "gone"

    def _crew_of(self, number: int) -> object:
        return self.crews[number % len(self.crews)]

    def _call(self, crew: object, method: str, *arguments: object) -> object:
        """The result, or with Ray its reference once it has begun; `_get` waits."""
        if self._remote:
            return getattr(crew, method).remote(*arguments)
        return getattr(crew, method)(*arguments)

    def _get(self, results: list) -> list:
        if not self._remote:
            return results
        import ray

        return ray.get(results, timeout=600)

    def answers(self, victim: str | None = None) -> tuple[list, dict[str, Submission]]:
        hotkeys = tuple(hotkey for hotkey, behaviour in self.behaviours.items() if behaviour != "gone")
        asked = self.mechanism.tasks(Ask(0, 1, "validator", self.number, hotkeys), self.state, self.text)
        found: dict[str, Submission] = {}
        for last in (False, True):  # copies come after what they copy
            tasks = [task for task, _ in asked if (self.behaviours[task.hotkey] == "copy") is last]
            observed = found.get(victim or hotkeys[0])
            work = [
                self._call(crew, "work", [task for task in tasks if self._home[task.hotkey] == number], observed)
                for number, crew in enumerate(self.crews)
            ]
            for done in self._get(work):
                found |= done
        return asked, found

    def evidence(self, asked: list, answers: Mapping[str, Submission]) -> Evidence:
        items = [Item(task, sealed, answers[task.hotkey]) for task, sealed in asked if task.hotkey in answers]
        results = {item.task.task_id: result for item, result in zip(items, self.mechanism.score(items))}
        answered = set(results)
        for task, _ in asked:
            results.setdefault(task.task_id, Failure(task.task_id, task.hotkey, Reason.SILENT))
        return gather(1, "validator", self.number, results, answered=answered)

    def window(self, victim: str | None = None) -> tuple[Evidence, tuple[str, ...]]:
        """The evidence of one window, and whose updates went into the shared model."""
        asked, answers = self.answers(victim)
        evidence = self.evidence(asked, answers)
        self.mechanism.after_round(self.state, evidence, answers)
        chosen = self.mechanism.chosen(self.state, evidence)
        self.state = advance(self.mechanism, self.state, evidence)
        self.number += 1
        return evidence, chosen

    def heldout_loss(self, rows: int = 768) -> float:
        """Mean loss of the newest shared model on the held-out part, nats per token."""
        from raytensor.training.delta_evaluator import DeltaEvaluator
        from raytensor.training.models import ModelSpec, build

        probe = DeltaEvaluator(build(ModelSpec(**self.store.model)))
        probe.set(self.store.before(self.store.newest())[0])
        return probe.loss(heldout_rows(self.text, self.rule.seq_len, rows))

    def close(self) -> None:
        if self._remote:
            import ray

            for crew in self.crews:
                ray.kill(crew)


def heldout_rows(words: Text, seq_len: int, rows: int) -> np.ndarray:
    """int [rows, seq_len + 1]: the last of the held-out part."""
    width = seq_len + 1
    rows = min(rows, len(words.heldout) // width)
    return words.heldout[-rows * width :].reshape(rows, width)
