"""Why nothing was paid: the sentence for each cause, from events as a run makes them."""

from __future__ import annotations

import pytest

from raytensor.telemetry import events as ev
from raytensor.telemetry.history import History
from raytensor.telemetry.summary import build_summary
from raytensor.telemetry.unpaid import unpaid_lines, why_nothing_was_paid, why_unpaid

CALL = "SubtensorModule.set_weights"
NEURONS = (
    ev.NeuronInfo(0, "V1", "validator", "", "validator-0"),
    ev.NeuronInfo(1, "V2", "validator", "", "validator-1"),
    ev.NeuronInfo(2, "M1", "miner", "honest", "miner-0"),
    ev.NeuronInfo(3, "M2", "miner", "honest", "miner-1"),
    ev.NeuronInfo(4, "M3", "miner", "silent", "miner-2"),
    ev.NeuronInfo(5, "M4", "miner", "honest", "miner-3"),
)


def up(every: int = 1) -> ev.Event:
    return ev.NetworkUp(endpoint="ws://x", netuid=1, spec_version=1, tempo=20, neurons=NEURONS, weights_every=every)


def played(number: int = 1) -> ev.Event:
    losses = {"M1": 4.0, "M2": 6.0, "M4": 5.0}
    return ev.RoundDone(round=number, rounds=9, wall_s=1.0, losses=losses, values={"M1": 1.0, "M2": 0.0, "M4": 0.5})


def made(hotkey: str, **values: float) -> ev.Event:
    return ev.WeightsMade(round=1, hotkey=hotkey, values=values)


def receipt(signer: str, block: int, fate: str = "included", error: str | None = None) -> ev.Event:
    return ev.ReceiptSeen(call=CALL, signer=signer, fate=fate, block=block, error=error)


def epoch(block: int, **incentive: float) -> ev.Event:
    stakes = {"V1": 70_000, "V2": 30_000}
    return ev.EpochSeen(block=block, incentive=incentive, dividends={}, emission_rao={}, stake_alpha_rao=stakes)


AT_70 = ev.BlockSeen(block=70, tempo=20, blocks_until_epoch=15)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([], ""),
        ([up()], "no round is over yet"),
        ([up(), played()], "no weights were set yet"),
        ([up(4), played(5)], "no weights were set yet: they are set every 4 rounds, next after round 8"),
        ([up(), played(), made("V1", M1=0.0)], "the validators give no miner a weight: no miner has a score above 0"),
        ([up(), played(), made("V1", M1=1.0)], "the weights are not on the chain yet"),
        (
            [up(), played(), made("V1", M1=1.0), receipt("V1", 60, "failed", "NotEnoughStake")],
            "the weights are not on the chain: NotEnoughStake",
        ),
        (
            [up(), epoch(65), played(), made("V1", M1=1.0), receipt("V1", 66), AT_70],
            "consensus has not run since weights were set in block 66; it runs again in 15 blocks",
        ),
        (  # weights of the epoch's own block come after it
            [up(), played(), made("V1", M1=1.0), receipt("V1", 65), epoch(65)],
            "consensus has not run since weights were set in block 65",
        ),
        (
            [up(), played(), made("V2", M1=1.0), receipt("V2", 60), epoch(65), receipt("V1", 66)],
            (
                "only validators with 30% of the stake had set weights before consensus ran in block 65; "
                "it pays for what more than 50% of the stake agree on"
            ),
        ),
        (
            [up(), played(), made("V1", M1=1.0), receipt("V1", 60), epoch(65)],
            "consensus gave no incentive in block 65: validators need a permit, and enough stake that agrees",
        ),
        ([up(), played(), made("V1", M1=1.0), receipt("V1", 60), epoch(65, M1=1.0)], ""),
    ],
)
def test_why_nothing_was_paid_at_all(events, why):
    history = History(events)
    assert why_nothing_was_paid(history) == why
    assert not why or unpaid_lines(build_summary(history)) == [why]


def test_why_single_miners_were_not_paid():
    events = [up(), played(), made("V1", M1=1.0), made("V2", M1=0.5, M4=0.5), receipt("V1", 60), epoch(65, M1=1.0)]
    history = History(events)
    below = "weight 0: the score is not above the mechanism's baseline, or a limit of the mechanism leaves it out"
    minor = "only validators with 30% of the stake give a weight"
    assert why_unpaid(history) == {"M2": below, "M3": "no answer has a score", "M4": minor}
    assert unpaid_lines(build_summary(history)) == [
        f"miner-1: {below}", "miner-2: no answer has a score", f"miner-3: {minor}",
    ]  # fmt: skip
    late = History([*events, made("V1", M1=0.5, M4=0.5)])
    assert why_unpaid(late)["M4"] == "consensus has not run since the first weight"
