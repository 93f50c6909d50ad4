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
class ModelEval:
    # paired: a challenger must beat the king by `margin`, tested sequence by sequence until it is clear. epsilon: win rates
    # on mean losses with an advantage for the earlier model, as on subnet 9.
    rule: str = "paired"
    # Sequences that every model of a round is evaluated on.
    sequences: int = 128
    # Tokens of a sequence.
    seq_len: int = 128
    # Dotted path of the class that reads a checkpoint and evaluates it; loaded by scorers only.
    forward: str = "raytensor.validators.forward.LlamaForward"
    # Sequences of one forward pass; a scorer's device memory decides.
    batch_size: int = 16
    # Bytes of the largest checkpoint that is read.
    max_bytes: int = 2**28
    # Parameters of the largest model that is built.
    max_parameters: int = 10**8
    # Nats per token by which a challenger must be better than the king (paired).
    margin: float = 0.0015
    # Chance that a challenger which is better by `margin` and no more is crowned all the same.
    alpha: float = 0.001
    # Chance that a challenger which is better by twice the margin is turned down.
    beta: float = 0.02
    # Sequences after which a challenger is turned down when nothing is clear.
    max_sequences: int = 25000
    # Differences of a sequence (nats per token) that count for neither side in the win rate.
    dead_zone: float = 0.01
    # Share of the sequences that count which a challenger must have won to be crowned.
    win_rate: float = 0.55
    # Challengers that are evaluated in a round; those whose case is clearest come first, new ones before all.
    challengers: int = 16
    # Secret places of the held-out text where all models' probabilities are compared, to find copies.
    probes: int = 32
    # Models whose log-probabilities there differ by less than this (nats, root mean square) are copies: the later one is paid nothing.
    copy_nats: float = 0.05
    # Models that share most of the weight.
    top: int = 20
    # Ratio of the first one's share to the last one's.
    ramp: float = 2.0
    # Share of the weight for the models after them, each half of the one before.
    reserve: float = 0.1
    # Number of those.
    reserve_top: int = 10
    # Nats per token behind the king at which a model's share has fallen to 1/e.
    quality_nats: float = 0.05
    # Rounds in a row in which a model may fail to arrive before it is dropped.
    patience: int = 3
    # Advantage of an earlier model when it is new, as a share of its loss (epsilon).
    epsilon_start: float = 0.005
    # Advantage of an earlier model in the end (epsilon).
    epsilon_end: float = 0.0001
    # Blocks from the one to the other (epsilon).
    epsilon_blocks: int = 14400
    # Win rates are sharpened by softmax at this temperature (epsilon).
    temperature: float = 0.01
    # Weight of the newest round in the moving average of weights (epsilon).
    ema: float = 0.5


@dataclass
class Mechanism:
    # Dotted path of the incentive mechanism; a class of your own package works as well.
    path: str = "raytensor.mechanisms.query.QueryMechanism"
    # Share of the miners, worst first, that get no weight at all; 0.1 in classic Bittensor.
    exclude_quantile: float = 0.0
    # Largest weight of one miner, as a share of all; 0.015 in classic Bittensor. What is above is dealt to the others.
    max_weight: float = 1.0
    # Whether the miners of a run hand in checkpoints and commit to them on the chain (tasks of kind "file"); null: for
    # raytensor.mechanisms.model_eval. Set it for a mechanism of your own that asks for files.
    files: bool | None = None
    # Settings of raytensor.mechanisms.query.
    query: Query = field(default_factory=Query)
    # Settings of raytensor.mechanisms.model_eval.
    model_eval: ModelEval = field(default_factory=ModelEval)
    # Settings of raytensor.mechanisms.collab.
    collab: Collab = field(default_factory=Collab)
    # Settings of a mechanism of your own, by name.
    options: dict[str, Any] = field(default_factory=dict)


def collaborates(mechanism: Mechanism) -> bool:
    """Whether miners train one shared model together, rather than models of their own."""
    return mechanism.path.startswith("raytensor.mechanisms.collab.")


def hands_in_files(mechanism: Mechanism) -> bool:
    """Whether miners commit to checkpoints and hand them in."""
    return (
        mechanism.files
        if mechanism.files is not None
        else mechanism.path.startswith("raytensor.mechanisms.model_eval.")
    )


def check_mechanism(mechanism: Mechanism, checks: Checks) -> None:
    """Refuse impossible numbers of the section; `checks` collects them under "mechanism."."""
    need = checks.need
    need(0.0 <= mechanism.exclude_quantile < 1.0, "mechanism.exclude_quantile", "must be at least 0 and below 1")
    need(0.0 < mechanism.max_weight <= 1.0, "mechanism.max_weight", "must lie above 0 and be at most 1")
    check_collab(mechanism.collab, checks)
    _check_query(mechanism.query, checks)
    _check_model_eval(mechanism.model_eval, checks)


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
    for key in (
        "entropy_floor",
        "synergy_power",
        "divergence_penalty",
        "divergence_cells",
        "duplicate_nats",
        "sample",
        "group_size",
        "synergy_limit",
    ):
        need((getattr(rule, key) or 0) >= 0, key, "must be 0 or greater")
    need(rule.context >= 2, "context", "must be 2 or more")
    need(rule.shortest <= rule.context, "shortest", f"must be at most mechanism.query.context ({rule.context})")
    need(
        not rule.prune or rule.shortest >= 2,
        "shortest",
        "must be 2 or more with prune=true: a token inside is left out",
    )
    need(
        rule.kind != "token" or rule.horizon == 1,
        "horizon",
        "must be 1 for kind token; take kind=phrase or kind=completion",
    )
    for key in ("control_variate", "baseline"):
        need(
            rule.kind != "completion" or not getattr(rule, key),
            key,
            "must be false for kind completion: a table names no texts",
        )
    need(
        0 <= rule.shared_rows < rule.rows,
        "shared_rows",
        f"must be at least 0 and below mechanism.query.rows ({rule.rows})",
    )
    if rule.synergy_power or rule.divergence_penalty:
        need(
            rule.shared_rows > 0,
            "shared_rows",
            "must be 1 or more for synergy_power or divergence_penalty: miners are compared on shared rows",
        )
    if rule.shared_rows:
        need(
            1 <= rule.group_size <= 256,
            "group_size",
            "must lie between 1 and 256 where rows are shared: all pairs of a group are compared",
        )
    need(not rule.gate or rule.sample > 0, "sample", "must be 1 or more with gate=true: a gate chooses whom to ask")


def _check_model_eval(rule: ModelEval, checks: Checks) -> None:
    def need(ok: bool, key: str, why: str) -> None:
        checks.need(ok, f"mechanism.model_eval.{key}", why)

    checks.one_of("mechanism.model_eval.rule", ("paired", "epsilon"))
    positive = (
        "sequences",
        "batch_size",
        "max_bytes",
        "max_parameters",
        "margin",
        "max_sequences",
        "challengers",
        "top",
        "quality_nats",
    )
    positive += ("patience", "epsilon_blocks", "temperature")
    checks.positive(*(f"mechanism.model_eval.{key}" for key in positive))
    for key in ("alpha", "beta"):
        need(0.0 < getattr(rule, key) < 0.5, key, "must lie above 0 and below 0.5")
    for key in ("dead_zone", "copy_nats", "probes", "reserve_top", "epsilon_end"):
        need(getattr(rule, key) >= 0, key, "must be 0 or greater")
    need(rule.seq_len >= 2, "seq_len", "must be 2 or more")
    need(0.0 <= rule.win_rate < 1.0, "win_rate", "must be at least 0 and below 1")
    need(rule.ramp >= 1.0, "ramp", "must be 1 or greater")
    need(0.0 <= rule.reserve < 1.0, "reserve", "must be at least 0 and below 1")
    need(
        rule.epsilon_start >= rule.epsilon_end,
        "epsilon_start",
        f"must be at least mechanism.model_eval.epsilon_end ({rule.epsilon_end})",
    )
    need(0.0 < rule.ema <= 1.0, "ema", "must lie above 0 and be at most 1")
