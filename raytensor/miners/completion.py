"""A miner's completion of a prompt, as pieces of text.

In: a `Prompt`, a function that streams the tokens of a request, a tokenizer. Out: pieces of text, until the end of
document or `max_tokens`. Waits for: the tokens. Tokens are drawn by (seed, prompt id), so that a repeated prompt has
the same completion while the model is the same. Knows nothing of HTTP.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import numpy as np

from raytensor.data.tokenizer import Tokenizer
from raytensor.miners.actors import GenerationRequest
from raytensor.wire.codec import Prompt

Stream = Callable[[GenerationRequest], AsyncGenerator[Sequence[int]]]


async def complete(prompt: Prompt, hotkey: str, stream: Stream, coder: Tokenizer) -> AsyncGenerator[str]:
    """The completion in pieces. hotkey: whose model answers. Raises as `stream`."""
    tokens = [int(token) for token in coder.encode([prompt.text])[0]] or [coder.end]
    sampling = prompt.max_tokens, prompt.temperature, prompt.seed
    made: list[int] = []
    sent = ""
    who = "", prompt.prompt_id, hotkey
    request = GenerationRequest(*who, np.array(tokens, np.int32), 0, *sampling, coder.end, prompt.deadline_s)
    async with aclosing(stream(request)) as news:
        async for new in news:
            made += new
            text = coder.decode(made)
            if text.endswith("\ufffd"):  # a character may be split over several tokens
                continue
            if text != sent:
                yield text[len(sent) :]
                sent = text
