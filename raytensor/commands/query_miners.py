"""Asks miners to continue a text: token by token and mixed, or as a stream of one miner's text.

In: a prompt, the miners with their addresses and weights, how to sample. Out: the mixed continuation and each miner's
own. Waits for: each answer, at most `deadline_s`. A miner that fails is not asked again; its `error` says why.
Knows nothing of the command line.
"""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raytensor.data import tokenizer
from raytensor.errors import ConfigError, RayTensorError, WireError
from raytensor.mechanisms.losses import distributions
from raytensor.mechanisms.mixture import mix
from raytensor.types import Failure, Metagraph, Response, Task
from raytensor.wire.client import WireClient
from raytensor.wire.codec import Prompt
from raytensor.wire.endpoints import BadEndpoint, endpoint


class QueryFailed(RayTensorError):
    """No miner answered; the message lists who was asked, and each reason."""


@dataclass(frozen=True)
class Query:
    """One query. context, top_k: tokens that a miner is shown, next tokens that it names."""

    netuid: int
    caller: str  # hotkey of the caller (ss58)
    prompt: str
    num_tokens: int
    context: int
    top_k: int
    temperature: float
    seed: int
    deadline_s: float


@dataclass
class MinerAnswer:
    """One miner and its own continuation.

    weight   its incentive, from 0 to 1.
    ids      tokens of its continuation.
    times_s  duration of each answer.
    error    why it is not asked any more, "" if it is.
    """

    uid: int
    hotkey: str
    weight: float
    axon: str
    ids: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def median_ms(self) -> float | None:
        return round(1000 * float(np.median(self.times_s)), 1) if self.times_s else None


def choose(metagraph: Metagraph, top: int, named: Sequence[str] | None = None, own: str = "") -> list[MinerAnswer]:
    """The miners to ask: those in `named` (uids or hotkeys), else the `top` with the most incentive and an address.

    Raises ConfigError for a name that is not on the subnet, QueryFailed if no neuron has an address.
    """
    rows = [
        MinerAnswer(uid, hotkey, int(metagraph.incentive[uid]) / 65535, metagraph.axons[uid])
        for uid, hotkey in enumerate(metagraph.hotkeys)
    ]
    where = f"subnet {metagraph.netuid} at block {metagraph.block}"
    if named:
        found = []
        for name in named:
            uid = int(name) if name.isascii() and name.isdigit() and len(name) < 9 else metagraph.uid(name)
            if uid is None or uid >= len(rows):
                raise ConfigError(f"--miner {name}: is not on {where}")
            found.append(rows[uid])
        return found
    serving = [row for row in rows if row.axon and row.hotkey != own]
    if not serving:
        raise QueryFailed(f"nobody serves on {where}: none of its {len(rows)} neurons has published an address")
    return sorted(serving, key=lambda row: (-row.weight, row.uid))[:top]


def refuse_unreachable(miners: Sequence[MinerAnswer], *, allow_local: bool) -> None:
    """Set the `error` of miners whose published address can't be asked."""
    for miner in miners:
        try:
            endpoint(miner.axon, allow_local=allow_local)
        except BadEndpoint as error:
            miner.error = f"{error} (--allow-local asks such addresses)" if error.fix else str(error)


async def continue_text(
    client: WireClient, query: Query, miners: Sequence[MinerAnswer], coder: tokenizer.Tokenizer
) -> list[int]:
    """The mixed continuation: each next token is drawn from the miners' distributions, weighted by incentive.

    The same requests extend each miner's own continuation (`MinerAnswer.ids`). Raises QueryFailed if no miner answers.
    """
    (prompt,) = coder.encode([query.prompt])
    mixed: list[int] = []
    rng = np.random.default_rng(query.seed)
    weights = {one.hotkey: one.weight for one in miners}
    axons = {one.hotkey: one.axon for one in miners}
    session = uuid.uuid4().hex[:12]
    for step in range(query.num_tokens):
        asked = [one for one in miners if not one.error]
        ids = [f"query/{session}/{step}/{one.uid}" for one in asked]
        tasks = [_task(query, *pair, prompt.tolist(), mixed, coder.vocab_size) for pair in zip(asked, ids, strict=True)]
        by_hotkey, sent_at = {one.hotkey: one for one in asked}, time.monotonic()
        answers: dict[str, Response] = {}
        async for answer in client.ask_each(tasks, axons):
            one = by_hotkey[answer.hotkey]
            one.error = _fault(answer, coder.vocab_size)
            if not one.error:
                assert isinstance(answer, Response)
                answers[one.hotkey] = answer
                one.times_s.append(time.monotonic() - sent_at)
        for one in asked:
            if one.hotkey in answers:
                own = answers[one.hotkey]
                distribution = distributions(own.ids[1:], own.probs[1:], coder.vocab_size)[0]
                one.ids.append(pick(distribution, query.temperature, rng))
        if not answers:
            if mixed:
                return mixed  # the errors of the miners say why it ends here
            raise QueryFailed(f"none of the {len(miners)} miners that were asked answered:\n{_reasons(miners)}")
        firsts = [Response(a.task_id, a.hotkey, a.ids[:1], a.probs[:1]) for a in answers.values()]
        mixed.append(pick(mix(firsts, weights, coder.vocab_size)[0], query.temperature, rng))
        if mixed[-1] == coder.end:
            break
    return mixed


async def stream_text(
    client: WireClient, query: Query, miners: Sequence[MinerAnswer]
) -> AsyncIterator[tuple[MinerAnswer, str]]:
    """(miner, piece of text) of the first miner that answers prompts, in the order given.

    Raises QueryFailed if none does, or if that miner breaks off.
    """
    for one in miners:
        if one.error:
            continue
        length, sampling = 0, (query.num_tokens, query.temperature, query.seed, query.deadline_s)
        prompt = Prompt(uuid.uuid4().hex, query.netuid, query.caller, one.hotkey, query.prompt, *sampling)
        try:
            async for piece in client.complete(prompt, one.axon):
                length += len(piece)
                yield one, piece
            return
        except WireError as error:
            if length:
                raise QueryFailed(f"uid {one.uid} broke off after {length} characters: {error}") from error
            one.error = str(error)
            if one.error.startswith("404"):
                one.error = "answers no prompts, only tasks (404): ask it without --stream"
    raise QueryFailed(f"none of the {len(miners)} miners that were asked answers prompts:\n{_reasons(miners)}")


def pick(distribution: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    """A token drawn from a distribution [V] with probability p^(1/temperature); 0 takes the likeliest."""
    if temperature == 0:
        return int(distribution.argmax())
    with np.errstate(divide="ignore", over="ignore"):  # log(0) and a tiny temperature give -inf: probability 0
        logits = np.log(distribution)
        scaled = np.exp((logits - logits.max()) / temperature)
    return int(rng.choice(len(scaled), p=scaled / scaled.sum()))


def _task(query: Query, miner: MinerAnswer, task_id: str, prompt: list[int], mixed: list[int], vocab_size: int) -> Task:
    """A task of two contexts: the end of the mixed continuation, and of the miner's own."""
    rows = [[*prompt, *mixed][-query.context :], [*prompt, *miner.ids][-query.context :]]
    lengths = np.array([max(1, len(row)) for row in rows], np.int32)
    tokens = np.zeros((2, int(lengths.max())), np.int32)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
    top_k = min(query.top_k, vocab_size)
    return Task(task_id, 0, query.netuid, query.caller, miner.hotkey, tokens, lengths, top_k, query.deadline_s)


def _fault(answer: Any, vocab_size: int) -> str:
    """Why an answer can't be used, "" if it can."""
    if isinstance(answer, Failure):
        return f"{answer.reason.value}: {answer.detail}" if answer.detail else answer.reason.value
    ids, probs = answer.ids, answer.probs
    two_rows = ids.ndim == 2 and len(ids) == 2 and ids.shape[1] >= 1 and ids.min() >= 0
    if not two_rows or not np.isfinite(probs).all() or (probs < 0).any() or probs.sum(axis=1).max() > 1.001:
        return "malformed: not a distribution over next tokens"
    if ids.max() >= vocab_size:
        return f"malformed: a token is beyond {vocab_size}; give the subnet's --tokenizer"
    return ""


def _reasons(miners: Sequence[MinerAnswer]) -> str:
    return "\n".join(f"  uid {one.uid} {one.hotkey} at {one.axon or 'no address'}: {one.error}" for one in miners)
