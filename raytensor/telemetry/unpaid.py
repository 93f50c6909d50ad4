"""Why nothing was paid, in a sentence: for the whole run, and for each miner that earns nothing while others do.

In: the `History` of a run. Out: sentences for the view, the table, the summary and the report; "" where there is
nothing to explain. Knows nothing of mechanisms or of the chain beyond the events.
"""

from collections.abc import Collection, Mapping
from typing import Any

from raytensor.telemetry.history import History, Row

MAJORITY = 0.5  # of the stake has to agree on a weight before consensus pays for it (kappa, the chain's default)


def why_nothing_was_paid(history: History) -> str:
    """Why no miner has earned anything in the whole run; "" when one has, or before the network is up."""
    if not history.neurons or any(share > 0 for epoch in history.epochs for share in epoch.incentive.values()):
        return ""
    if not history.rounds:
        return "no round is over yet"
    if not history.weights:
        every = history.weights_every
        if every > 1:
            following = (history.round // every + 1) * every
            return f"no weights were set yet: they are set every {every} rounds, next after round {following}"
        return "no weights were set yet"
    if not any(share > 0 for given in history.weights.values() for share in given.values()):
        return "the validators give no miner a weight: no miner has a score above 0"
    if not history.weights_set:
        causes = ", ".join(name for name, _ in history.errors.most_common(2))
        return f"the weights are not on the chain: {causes}" if causes else "the weights are not on the chain yet"
    first = min(block for block, _ in history.weights_set.values())
    if not history.epochs or history.epochs[-1].block <= first:
        left = history.blocks_until_epoch
        when = f"; it runs again in {left} blocks" if left is not None else ""
        return f"consensus has not run since weights were set in block {first}{when}"
    epoch = history.epochs[-1].block
    before = {hotkey for hotkey, (block, _) in history.weights_set.items() if block < epoch}
    share = _stake_share(history, before)
    if share is not None and share <= MAJORITY:
        early = f"only validators with {share:.0%} of the stake had set weights before consensus ran in block {epoch}"
        return f"{early}; it pays for what more than {MAJORITY:.0%} of the stake agree on"
    return f"consensus gave no incentive in block {epoch}: validators need a permit, and enough stake that agrees"


def why_unpaid(history: History) -> dict[str, str]:
    """{hotkey: why} for each miner without incentive in the newest epoch; {} while no miner was paid."""
    if not history.epochs or why_nothing_was_paid(history):
        return {}
    miners = (row for row in history.rows() if row.role == "miner")
    return {row.hotkey: _why(history, row) for row in miners if not row.incentive}


def unpaid_lines(summary: Mapping[str, Any]) -> list[str]:
    """The lines of a summary about it: one for the run, or one for each reason, with the names of its miners."""
    names: dict[str, list[str]] = {}
    for neuron in summary["neurons"]:
        if neuron["unpaid"]:
            names.setdefault(neuron["unpaid"], []).append(neuron["name"] or neuron["hotkey"])
    if summary["unpaid"]:
        return [summary["unpaid"]]
    more = {why: f" and {len(who) - 8} more" if len(who) > 8 else "" for why, who in names.items()}
    return [f"{', '.join(who[:8])}{more[why]}: {why}" for why, who in names.items()]


def _why(history: History, row: Row) -> str:
    if row.loss is None and not row.score:
        return "no answer has a score"
    if not row.weight:
        return "weight 0: the score is not above the mechanism's baseline, or a limit of the mechanism leaves it out"
    givers = {hotkey for hotkey, given in history.weights.items() if given.get(row.hotkey, 0.0) > 0}
    share = _stake_share(history, givers)
    if share is not None and share <= MAJORITY:
        return f"only validators with {share:.0%} of the stake give a weight"
    return "consensus has not run since the first weight"


def _stake_share(history: History, hotkeys: Collection[str]) -> float | None:
    """Share of the validators' stake that some of them hold; None where stakes are not known."""
    stakes = history.epochs[-1].stake_alpha_rao
    validators = {key: stakes.get(key, 0) for key, neuron in history.neurons.items() if neuron.role == "validator"}
    total = sum(validators.values())
    return sum(stake for key, stake in validators.items() if key in hotkeys) / total if total else None
