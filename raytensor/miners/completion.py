"""Streams a miner's completion of a prompt: one next-token question per token.

In: a `Prompt`, a function that asks the miner, a tokenizer. Out: pieces of text, until the end of
document or `max_tokens`.
Waits for: one answer per token. Tokens are drawn by (seed, prompt id), so a repeated prompt has the same completion.
Knows nothing of HTTP.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np

from raytensor.data import assign
from raytensor.data.tokenizer import Tokenizer
from raytensor.types import Failure, Response, Submission, Task
from raytensor.wire.codec import Prompt

TOP_K = 64  # candidates of a token


Ask = Callable[[Task], Awaitable[Response | Submission | Failure]]


async def complete(prompt: Prompt, ask: Ask, coder: Tokenizer, context: int) -> AsyncIterator[str]:
    """The completion in pieces. `context`: tokens that the model sees at most.

    Raises `RuntimeError` with the reason when the miner gives no answer.
    """
    tokens = [int(token) for token in coder.encode([prompt.text])[0]] or [coder.end]
    draw = assign.generator(prompt.seed, "completion", prompt.prompt_id)
    made: list[int] = []
    sent = ""
    for number in range(prompt.max_tokens):
        seen = np.array([tokens[-context:]], np.int32)
        lengths, top_k = np.array([seen.shape[1]], np.int32), min(TOP_K, coder.vocab_size)
        who = (prompt.netuid, prompt.validator, prompt.hotkey)
        task = Task(f"{prompt.prompt_id}/{number}", 0, *who, seen, lengths, top_k, prompt.deadline_s)
        answer = await ask(task)
        if isinstance(answer, Failure):
            raise RuntimeError(answer.detail or answer.reason.value)
        assert isinstance(answer, Response), "a next-token question is answered by tokens"
        token = choose(answer.ids[0], answer.probs[0], prompt.temperature, draw)
        if token == coder.end:
            break
        tokens.append(token)
        made.append(token)
        text = coder.decode(made)
        if text.endswith("\ufffd"):  # a character may be split over several tokens
            continue
        if text != sent:
            yield text[len(sent) :]
            sent = text


def choose(ids: np.ndarray, probs: np.ndarray, temperature: float, draw: np.random.Generator) -> int:
    """The next token: the likeliest at temperature 0, else drawn from probs^(1 / temperature)."""
    if temperature == 0.0:
        return int(ids[int(np.argmax(probs))])
    logits = np.log(np.maximum(probs.astype(np.float64), 1e-30)) / temperature
    weights = np.exp(logits - logits.max())
    return int(draw.choice(ids, p=weights / weights.sum()))
