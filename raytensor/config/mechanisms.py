"""The `mechanism` section: what all incentive mechanisms share, and a section of its own for each.

In: nothing. Out: plain dataclasses with every default, and their checks. Knows nothing of how a mechanism works.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from raytensor.config.checks import Checks


@dataclass
class Query:
    # Texts per question; the noise of a round's loss falls with their square root.
    rows: int = 256
    # Tokens of the longest context that is sent.
    context: int = 24
    # Tokens of the shortest context that is sent.
    shortest: int = 8
    # Next tokens that an answer may name per text.
    top_k: int = 128
    # Weight of the newest loss in a miner's moving average.
    ema: float = 0.35
    # Share of its value that a miner loses with each question it does not answer; 0.1 as in classic Bittensor.
    miss: float = 0.1
    # Exponent on the effective number of parameters; 0.5 as in classic Bittensor.
    power: float = 0.5
    # Loss (nats per token) that no model can go below; the scaling law counts from here.
    entropy_floor: float = 1.69


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
    # Settings of a mechanism of your own, by name.
    options: dict[str, Any] = field(default_factory=dict)


def check_mechanism(mechanism: Mechanism, checks: Checks) -> None:
    """Refuse impossible numbers of the section; `checks` collects them under "mechanism."."""
    need = checks.need
    need(0.0 <= mechanism.exclude_quantile < 1.0, "mechanism.exclude_quantile", "must be at least 0 and below 1")
    need(0.0 < mechanism.max_weight <= 1.0, "mechanism.max_weight", "must lie above 0 and be at most 1")
    rule = mechanism.query
    checks.positive("mechanism.query.rows", "mechanism.query.shortest", "mechanism.query.top_k", "mechanism.query.power")
    need(0.0 < rule.ema <= 1.0, "mechanism.query.ema", "must lie above 0 and be at most 1")
    need(0.0 < rule.miss <= 1.0, "mechanism.query.miss", "must lie above 0 and be at most 1")
    need(rule.context >= 2, "mechanism.query.context", "must be 2 or more")
    need(rule.shortest <= rule.context, "mechanism.query.shortest", f"must be at most mechanism.query.context ({rule.context})")
    need(rule.entropy_floor >= 0, "mechanism.query.entropy_floor", "must be 0 or greater")
