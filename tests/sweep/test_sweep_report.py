"""The plots of a sweep's report: readable axes, losses of the same round, every trial drawn or mentioned."""

from __future__ import annotations

import re

from raytensor.config.sweep import SweepConfig
from raytensor.jobs.sweep.outcome import DIVERGED, FAILED, FINISHED, STOPPED, TrialOutcome
from raytensor.jobs.sweep.report import draw, why_unpaid, write_report


def trial(number: int, lr: str, heldout: dict[int, float], status: str = FINISHED, **more: object) -> TrialOutcome:
    return TrialOutcome(number, ((0, (f"profile.lr={lr}", f"profile.layers={number}")),), status, heldout, {}, **more)


TRIALS = [
    trial(1, "0.001", {1: 5.0, 5: 4.0}),
    trial(2, "0.01", {1: 4.5, 5: 4.1}),
    trial(3, "0.0001", {1: 5.5}, STOPPED),
    *(trial(number, "0.003", {1: 5.2}, STOPPED) for number in range(4, 8)),
    trial(8, "1.0", {}, FAILED, error="out of memory"),
]
KEYS = ["profile.lr", "profile.layers"]


def texts(svg: str) -> list[str]:
    return re.findall(r">([^<>\n]+)</text>", svg)


def test_the_axes_are_readable_and_the_losses_are_of_one_round():
    plots = draw(TRIALS, KEYS)
    assert list(plots) == [
        "Held-out loss by round",
        "Held-out loss after round 1 against profile.lr",
        "Held-out loss after round 1 against profile.layers",
    ]
    by_lr, by_layers = list(plots.values())[1:]
    assert "mathdefault" not in by_lr and {"0.0001", "0.001", "0.01"} <= set(texts(by_lr))
    ticks = [text for text in texts(by_layers) if re.fullmatch(r"[\d.]+", text)]
    assert {"2", "4", "6"} <= set(ticks) and not [text for text in ticks if text in ("1.5", "2.5")]


def test_every_trial_is_in_the_legend_or_mentioned():
    found = texts(draw(TRIALS, KEYS)["Held-out loss by round"])
    assert [text for text in found if "trial" in text or "other" in text] == [
        "trial 1", "trial 2", "trial 3", "trial 4", "trial 5", "2 others", "no loss: trial 8",
    ]  # fmt: skip


def test_why_trials_earn_nothing_and_why_they_failed(tmp_path):
    paid = [trial(1, "0.1", {1: 4.0}, incentive=1.0), trial(2, "0.2", {1: 5.0}, incentive=0.0), *TRIALS[-1:]]
    assert len(why_unpaid(paid)) == 1 and why_unpaid(paid)[0].startswith("trials 2: ") and why_unpaid(TRIALS) == []
    text = write_report(tmp_path, SweepConfig(rank_by="incentive"), paid, KEYS, "raytensor run x", 60.0).read_text()
    assert "trial 8: out of memory" in text and "Why nothing was paid" in text and "default-src 'none'" in text
    assert "trial 1: profile.lr=0.1 profile.layers=1" in text and DIVERGED not in text
