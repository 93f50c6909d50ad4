"""The `mechanism` section: what all incentive mechanisms share, and a section of its own for each.

In: nothing. Out: plain dataclasses with every default, and their checks. Knows nothing of how a mechanism works.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from raytensor.config.checks import Checks
from raytensor.config.collab import Collab, check_collab


@dataclass
class Query:
    # token: the next token. phrase: phrases that may follow, as in classic Bittensor. completion: whole continuations.
    kind: str = "token"
    # Texts per question; the noise of a round's loss falls with their square root.
    rows: int = 256
    # Tokens of the longest context that is sent.
    context: int = 24
    # Tokens of the shortest context that is sent.
    shortest: int = 8
    # Tokens that are withheld after each context; 1 for kind "token", 8 in classic Bittensor.
    horizon: int = 1
    # Next tokens (phrases, continuations) that an answer may name per text.
    top_k: int = 128
    # Leave out one token at a random place of each context, so that no data set holds what is asked (classic: yes).
    prune: bool = False
    # The token that is left out lies among so many last ones of the context; null is anywhere in it, as in classic.
    prune_within: int | None = None
    # Miners that a validator asks per round, each once before anyone is asked again; 0 asks all every round.
    sample: int = 0
    # Miners that are asked together, about the same windows of text; 0 is all of a round. 20 in classic Bittensor.
    group_size: int = 0
    # First rows of a question that are the same for the whole group: for synergy, divergence and duplicates. The other
    # rows are each miner's own, and only they decide its loss.
    shared_rows: int = 0
    # Weight of the newest loss in a miner's moving average.
    ema: float = 0.35
    # Share of its presence that a miner loses with each question it does not answer; 0.1 as in classic Bittensor.
    miss: float = 0.1
    # Weight of the newest value in the moving average that is paid, where silence counts as 0 (classic: 0.1); null pays
    # the newest value times the presence.
    value_ema: float | None = None
    # Exponent on the effective number of parameters; 0.5 as in classic Bittensor.
    power: float = 0.5
    # Loss (nats per `unit`) that no model can go below; the scaling law counts from here. 1.69 is for BPE tokens.
    entropy_floor: float = 1.69
    # What losses are counted per before they are valued: token | byte.
    unit: str = "token"
    # Correct a loss for the luck of the draw, by the loss of the train part's frequency table on the same targets.
    control_variate: bool = True
    # Pay only what goes beyond that table; false pays a table what its loss is worth, as classic Bittensor did.
    baseline: bool = True
    # Exponent for what pairs of miners reach together (classic: 0.5); 0 pays no synergy.
    synergy_power: float = 0.0
    # Largest synergy of a miner, in times of what its own loss is worth; null sets no limit, as classic Bittensor did.
    synergy_limit: float | None = 1.0
    # Share of its value that a miner loses per unit of excess divergence from the average answer (classic: 0.02).
    divergence_penalty: float = 0.0
    # Parts of the vocabulary that answers are compared over; 0 compares every token (exact, more evidence).
    divergence_cells: int = 16
    # Miners of a group whose losses differ by less than this per shared row (nats) gave the same answers.
    duplicate_nats: float = 0.02
    # Learn which miners answer which questions best, and ask half of `sample` by it.
    gate: bool = False
    # Numbers that describe a question to the gate.
    gate_features: int = 16
    # Learning rate of the gate.
    gate_lr: float = 0.5


@dataclass
class Mechanism:
    # Dotted path of the incentive mechanism; a class of your own package works as well.
    path: str = "raytensor.mechanisms.query.QueryMechanism"
    # Share of the miners, worst first, that get no weight at all; 0.1 in classic Bittensor.
    exclude_quantile: float = 0.0
    # Largest weight of one miner, as a share of all; 0.015 in classic Bittensor. What is above is dealt to the others.
    max_weight: float = 1.0
    # Settings of raytensor.mechanisms.query.
    query: Query = field(default_factory=Query)
    # Settings of raytensor.mechanisms.collab.
    collab: Collab = field(default_factory=Collab)
    # Settings of a mechanism of your own, by name.
    options: dict[str, Any] = field(default_factory=dict)


def collaborates(mechanism: Mechanism) -> bool:
    """Whether miners train one shared model together, rather than models of their own."""
    return mechanism.path.startswith("raytensor.mechanisms.collab.")


def check_mechanism(mechanism: Mechanism, checks: Checks) -> None:
    """Refuse impossible numbers of the section; `checks` collects them under "mechanism."."""
    need = checks.need
    need(0.0 <= mechanism.exclude_quantile < 1.0, "mechanism.exclude_quantile", "must be at least 0 and below 1")
    need(0.0 < mechanism.max_weight <= 1.0, "mechanism.max_weight", "must lie above 0 and be at most 1")
    check_collab(mechanism.collab, checks)
    _check_query(mechanism.query, checks)


def _check_query(rule: Query, checks: Checks) -> None:
    def need(ok: bool, key: str, why: str) -> None:
        checks.need(ok, f"mechanism.query.{key}", why)

    checks.one_of("mechanism.query.kind", ("token", "phrase", "completion"))
    checks.one_of("mechanism.query.unit", ("token", "byte"))
    positive = ("rows", "shortest", "horizon", "top_k", "power", "gate_features", "gate_lr", "prune_within")
    checks.positive(*(f"mechanism.query.{key}" for key in positive))
    for key in ("ema", "miss", "value_ema"):
        value = getattr(rule, key)
        need(value is None or 0.0 < value <= 1.0, key, "must lie above 0 and be at most 1")
    for key in ("entropy_floor", "synergy_power", "divergence_penalty", "divergence_cells", "duplicate_nats", "sample", "group_size", "synergy_limit"):
        need((getattr(rule, key) or 0) >= 0, key, "must be 0 or greater")
    need(rule.context >= 2, "context", "must be 2 or more")
    need(rule.shortest <= rule.context, "shortest", f"must be at most mechanism.query.context ({rule.context})")
    need(not rule.prune or rule.shortest >= 2, "shortest", "must be 2 or more with prune=true: a token inside is left out")
    need(rule.kind != "token" or rule.horizon == 1, "horizon", "must be 1 for kind token; take kind=phrase or kind=completion")
    for key in ("control_variate", "baseline"):
        need(rule.kind != "completion" or not getattr(rule, key), key, "must be false for kind completion: a table names no texts")
    need(0 <= rule.shared_rows < rule.rows, "shared_rows", f"must be at least 0 and below mechanism.query.rows ({rule.rows})")
    if rule.synergy_power or rule.divergence_penalty:
        need(rule.shared_rows > 0, "shared_rows", "must be 1 or more for synergy_power or divergence_penalty: miners are compared on shared rows")
    if rule.shared_rows:
        need(1 <= rule.group_size <= 256, "group_size", "must lie between 1 and 256 where rows are shared: all pairs of a group are compared")
    need(not rule.gate or rule.sample > 0, "sample", "must be 1 or more with gate=true: a gate chooses whom to ask")
