"""The `mechanism` section: the settings that all incentive mechanisms share, and a section for each.

In: nothing. Out: plain dataclasses with every default and range. Knows nothing of how a mechanism works.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from raytensor.config.checks import DOTTED_PATH, Section, setting
from raytensor.config.collab import Collab


@dataclass
class Query(Section):
    # token: the next token. phrase: phrases that may follow, as in classic Bittensor. completion: whole continuations.
    kind: str = setting("token", choices=("token", "phrase", "completion"))
    # Texts per question; the noise of a round's loss falls with their square root.
    rows: int = 256
    # Tokens of the longest context that is sent.
    context: int = setting(24, least=2)
    # Tokens of the shortest context that is sent.
    shortest: int = 8
    # Tokens that are withheld after each context; 1 for kind "token", 8 in classic Bittensor.
    horizon: int = 1
    # Largest number of next tokens (phrases, continuations) that an answer may name per text.
    top_k: int = 128
    # Leave out one token at a random place of each context, so that no data set holds what is asked (classic: yes).
    prune: bool = False
    # Leave it out among this many last tokens of the context; null is anywhere in it, as in classic Bittensor.
    prune_within: int | None = None
    # Miners that a validator asks per round, each once before any is asked again; 0 asks all every round.
    sample: int = setting(0, least=0)
    # Miners that are asked together, about the same windows of text; 0 is all of a round, 20 in classic Bittensor.
    group_size: int = setting(0, least=0)
    # First rows of a question that are the same for the whole group: for synergy, divergence and duplicates. The other
    # rows differ per miner, and only they decide its loss.
    shared_rows: int = setting(0, least=0)
    # Weight of the newest loss in the moving average of a miner.
    ema: float = setting(0.35, above=0, most=1)
    # Share of its presence that a miner loses with each question it does not answer; 0.1 in classic Bittensor.
    miss: float = setting(0.1, above=0, most=1)
    # Weight of the newest value in the moving average that is paid, where no answer counts as 0 (classic: 0.1); null
    # pays the newest value times the presence.
    value_ema: float | None = setting(None, above=0, most=1)
    # Exponent on the effective number of parameters; 0.5 in classic Bittensor.
    power: float = 0.5
    # Loss (nats per `unit`) that no model can go below; the scaling law counts from here. 1.69 is for BPE tokens.
    entropy_floor: float = setting(1.69, least=0)
    # Unit that losses are divided by before they are valued: token | byte.
    unit: str = setting("token", choices=("token", "byte"))
    # Correct a loss for the luck of the draw, by the loss of the training part's frequency table on the same targets.
    control_variate: bool = True
    # Pay only what a miner does better than that table; false pays the table too, as classic Bittensor did.
    baseline: bool = True
    # Exponent of the synergy of pairs of miners (classic: 0.5); 0 pays no synergy.
    synergy_power: float = setting(0.0, least=0)
    # Largest synergy of a miner, as a multiple of what its own loss is worth; null sets no limit, as in classic
    # Bittensor.
    synergy_limit: float | None = setting(1.0, least=0)
    # Share of its value that a miner loses per unit of excess divergence from the average answer (classic: 0.02).
    divergence_penalty: float = setting(0.0, least=0)
    # Number of parts of the vocabulary over which answers are compared; 0 compares every token (exact, more evidence).
    divergence_cells: int = setting(16, least=0)
    # Miners of a group whose losses differ by less than this per shared row (nats) count as giving the same answers.
    duplicate_nats: float = setting(0.02, least=0)
    # Learn which miners answer which questions best, and choose half of `sample` by it.
    gate: bool = False
    # Features that describe a question to the learned router.
    gate_features: int = 16
    # Learning rate of the learned router.
    gate_lr: float = 0.5

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.shortest > self.context:
            yield "shortest", f"must be at most mechanism.query.context ({self.context})"
        if self.prune and self.shortest < 2:
            yield "shortest", "must be 2 or more with prune=true: a token inside is left out"
        if self.kind == "token" and self.horizon != 1:
            yield "horizon", "must be 1 for kind token; use kind=phrase or kind=completion"
        if self.kind == "completion":
            why = "must be false for kind completion: a table of frequencies names no texts"
            yield from ((key, why) for key in ("control_variate", "baseline") if getattr(self, key))
        if self.shared_rows >= self.rows:
            yield "shared_rows", f"must be below mechanism.query.rows ({self.rows})"
        if (self.synergy_power or self.divergence_penalty) and not self.shared_rows:
            why = "must be 1 or more for synergy_power or divergence_penalty: miners are compared on shared rows"
            yield "shared_rows", why
        if self.shared_rows and not 1 <= self.group_size <= 256:
            why = "must lie between 1 and 256 where rows are shared: all pairs of a group are compared"
            yield "group_size", why
        if self.gate and not self.sample:
            yield "sample", "must be 1 or more with gate=true: the router chooses which miners are asked"


@dataclass
class ModelEval(Section):
    # paired: a challenger must beat the king by `margin`, tested sequence by sequence until the result is significant.
    # epsilon: win rates on mean losses with an advantage for the earlier model, as on subnet 9.
    rule: str = setting("paired", choices=("paired", "epsilon"))
    # Sequences on which every model of a round is evaluated.
    sequences: int = 128
    # Tokens of a sequence.
    seq_len: int = setting(128, least=2, most=65536)
    # Dotted path of the class that reads a checkpoint and evaluates it; loaded by scorers only.
    forward: str = setting("raytensor.validators.forward.LlamaForward", form=DOTTED_PATH)
    # Sequences of one forward pass, limited by the device memory of a scorer.
    batch_size: int = 16
    # Largest checkpoint that is read, in bytes.
    max_bytes: int = 2**28
    # Largest model that is built, in parameters.
    max_parameters: int = 10**8
    # Nats per token by which a challenger must be better than the king (paired).
    margin: float = 0.0015
    # Probability of crowning a challenger that is better by exactly `margin` (type I error).
    alpha: float = setting(0.001, above=0, below=0.5)
    # Probability of rejecting a challenger that is better by twice the margin (type II error).
    beta: float = setting(0.02, above=0, below=0.5)
    # Sequences after which a challenger is rejected if the result is still not significant.
    max_sequences: int = 25000
    # Differences of a sequence below this (nats per token) count for neither side in the win rate.
    dead_zone: float = setting(0.01, least=0)
    # Share of the counted sequences that a challenger must have won to be crowned.
    win_rate: float = setting(0.55, least=0, below=1)
    # Challengers that are evaluated per round: new ones first, then those whose result is nearest to significant.
    challengers: int = 16
    # Secret places of the held-out text where the probabilities of all models are compared, to find copies.
    probes: int = setting(32, least=0)
    # Models whose log-probabilities there differ by less than this (nats, root mean square) are copies: the later one
    # is paid nothing.
    copy_nats: float = setting(0.05, least=0)
    # Models that share most of the weight.
    top: int = 20
    # Ratio of the share of the first of them to that of the last.
    ramp: float = setting(2.0, least=1)
    # Share of the weight for the models after them, each half of the one before.
    reserve: float = setting(0.1, least=0, below=1)
    # Number of models that share the reserve.
    reserve_top: int = setting(10, least=0)
    # Nats per token behind the king at which the share of a model has fallen to 1/e.
    quality_nats: float = 0.05
    # Consecutive rounds in which a model may fail to arrive before it is dropped.
    patience: int = 3
    # Advantage of an earlier model when it is new, as a share of its loss (epsilon).
    epsilon_start: float = setting(0.005, least=0)
    # Final advantage of an earlier model (epsilon).
    epsilon_end: float = setting(0.0001, least=0)
    # Blocks over which the advantage falls from epsilon_start to epsilon_end (epsilon).
    epsilon_blocks: int = 14400
    # Temperature of the softmax that sharpens win rates (epsilon).
    temperature: float = 0.01
    # Weight of the newest round in the moving average of weights (epsilon).
    ema: float = setting(0.5, above=0, most=1)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.epsilon_start < self.epsilon_end:
            yield "epsilon_start", f"must be at least mechanism.model_eval.epsilon_end ({self.epsilon_end})"


@dataclass
class Mechanism(Section):
    # Dotted path of the incentive mechanism; a class of your own package works as well.
    path: str = setting("raytensor.mechanisms.query.QueryMechanism", form=DOTTED_PATH)
    # Dotted path of the class that answers for miners, where questions carry a payload; null: the mechanism's.
    responder: str | None = setting(None, form=DOTTED_PATH)
    # Share of the miners with a weight above 0, lowest first, that get no weight at all; 0.1 in classic Bittensor.
    # Miners without a weight don't count: of 200 miners of which 20 earn, 0.1 leaves out the lowest 2.
    exclude_quantile: float = setting(0.0, least=0, below=1)
    # Largest weight of one miner, as a share of all; 0.015 in classic Bittensor. The excess is distributed to the
    # others.
    max_weight: float = setting(1.0, above=0, most=1)
    # Whether the miners of a run submit checkpoints and commit to them on the chain (tasks of kind "file"); null: for
    # raytensor.mechanisms.model_eval. Set it for a mechanism of your own that asks for files. Only `run` reads it.
    files: bool | None = None
    # Version key of the weights; null: the one that the mechanism declares, 0: the subnet's. A subnet that asks for a
    # newer one refuses the weights.
    version_key: int | None = setting(None, least=0)
    # Settings of raytensor.mechanisms.query.
    query: Query = field(default_factory=Query)
    # Settings of raytensor.mechanisms.model_eval.
    model_eval: ModelEval = field(default_factory=ModelEval)
    # Settings of raytensor.mechanisms.collab.
    collab: Collab = field(default_factory=Collab)
    # Settings of a mechanism of your own, by name: mechanism.options.NAME=VALUE.
    options: dict[str, Any] = field(default_factory=dict)
