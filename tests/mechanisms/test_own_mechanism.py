"""The complete example of docs/usage_subnet.md, used as a user would: loaded by its path, scored, kept on a board,
paid by what it counts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from raytensor import config
from raytensor.data.text import Text, unigram
from raytensor.mechanisms import base
from raytensor.mechanisms.evidence import State, evidence_from_json, evidence_to_json, gather
from raytensor.types import Failure, Reason, Response
from raytensor.validators.scoreboard import ScoreBoard

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "usage_subnet.md"
EXAMPLE = ROOT / "examples" / "counting" / "rules.py"
V = 11


@pytest.fixture
def path(tmp_path, monkeypatch):
    (tmp_path / "my_rules.py").write_text(DOC.read_text().split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_rules.Counting"
    sys.modules.pop("my_rules", None)


def test_the_example_is_the_code_of_the_docs():
    assert EXAMPLE.read_text() == DOC.read_text().split("```python\n")[1].split("```")[0]


def test_the_example_of_the_docs_pays_who_is_right(path, tmp_path):
    tokens = (np.arange(2000) * 3 % V).astype(np.uint16)
    text = Text(tokens, tokens, np.array([0, 2000]), np.array([0, 2000]), unigram(tokens, V), V, 1.0)
    cfg = config.Mechanism(path=path, options={"rows": 20})
    mechanism = base.load(cfg, text.log_unigram, V, deadline_s=3.0)
    board = ScoreBoard(1, "v", mechanism, path)
    hotkeys = ("always", "half", "never", "malformed", "silent")
    for number in range(5):
        results, items = {}, []
        for task, sealed in mechanism.tasks(base.Ask(0, 1, "v", number, hotkeys), board.state, text):
            right = ((task.tokens[:, 3] + 3) % V).astype(np.int32)
            wrong = np.where(
                np.arange(20) < {"always": 20, "half": 10}.get(task.hotkey, 0), right, (right + 1) % V
            ).astype(np.int32)
            ids = np.repeat(wrong[:, None], 2 if task.hotkey == "malformed" else 1, axis=1)
            if task.hotkey == "silent":
                results[task.task_id] = Failure(task.task_id, task.hotkey, Reason.SILENT)
            else:
                items.append(
                    base.Item(task, sealed, Response(task.task_id, task.hotkey, ids, np.ones(ids.shape, np.float32)))
                )
        results |= {item.task.task_id: result for item, result in zip(items, mechanism.score(items), strict=True)}
        evidence = gather(1, "v", number, results, answered={item.task.task_id for item in items})
        board.update(evidence_from_json(evidence_to_json(evidence)))
    weights = board.weights()
    assert weights == pytest.approx({"always": 2 / 3, "half": 1 / 3, "never": 0.0, "malformed": 0.0, "silent": 0.0})
    board.save(tmp_path / "board.json", saved_at=0.0)
    again = ScoreBoard(1, "v", mechanism, path)
    assert again.restore(tmp_path / "board.json", now=1.0) and again.weights() == weights and again.state != State()
