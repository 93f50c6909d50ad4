"""Texts that continue prompts: many prompts in one batch, which they join and leave between two tokens.

    requests -> Batch, one per model -> Decoder: the likeliest next tokens -> choose -> NewTokens

In: requests that join, names of those that leave; a decoder for each hotkey. Out: new tokens of each request, at its
end the reason. Waits for: at most `PAUSE_S`; while the host trains, a call returns without tokens until prompts are
within their share of the time. Bounds: `max_sequences` requests of a model are computed together, more wait; a call
computes for `BURST_S`, or one token each. A request past its deadline leaves. Nothing runs unless it is called, so
requests whose caller is gone cost nothing. Knows nothing of Ray, of text or of how a model computes.

The tokens depend on the request and the model only, not on the other requests of the batch.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from raytensor.data import assign
from raytensor.errors import cause_of
from raytensor.miners.actors import GenerationRequest, NewTokens
from raytensor.training.decoding import PREFILL_TOKENS, Window
from raytensor.types import Response, Submission, Task

log = logging.getLogger(__name__)

TOP_K = 64  # candidates of a token
BURST_S = 0.02  # that a call computes, as far as whole tokens allow
PAUSE_S = 0.1  # that a call waits for its share of the time, at most


class Decoder(Protocol):
    """See `training.decoding.CachedDecoder`."""

    def predict(self, windows: Sequence[Window], top_k: int) -> tuple[np.ndarray, np.ndarray]: ...

    def renew(self, *, at_once: bool) -> None: ...

    def clear(self) -> None: ...


class FullForward:
    """A decoder that keeps nothing: it asks for the token after each whole text, by `answer` of a miner.

    together  one question for all texts, for answers that depend on their own text only.
    """

    def __init__(self, answer: Callable[[Task], Response | Submission | None], hotkey: str, *, together: bool) -> None:
        self._answer, self._hotkey, self._together = answer, hotkey, together

    def predict(self, windows: Sequence[Window], top_k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `CachedDecoder.predict`. Raises `RuntimeError` when the miner gives no answer."""
        groups = [list(windows)] if self._together else [[window] for window in windows]
        found = [self._ask(group, top_k) for group in groups]
        return np.concatenate([answer.ids for answer in found]), np.concatenate([answer.probs for answer in found])

    def renew(self, *, at_once: bool) -> None:
        """Nothing: each question is answered by the model as it is then."""

    def clear(self) -> None:
        """Nothing is kept."""

    def _ask(self, windows: list[Window], top_k: int) -> Response:
        lengths = np.array([len(window.tokens) for window in windows], np.int32)
        tokens = np.zeros((len(windows), int(lengths.max())), np.int32)
        for row, window in zip(tokens, windows, strict=True):
            row[: len(window.tokens)] = window.tokens
        name = f"{windows[0].name}/{windows[0].start + lengths[0]}"
        answer = self._answer(Task(name, 0, 0, "", self._hotkey, tokens, lengths, top_k, 0.0))
        if not isinstance(answer, Response):
            raise RuntimeError("the miner gave no answer")
        return answer


class _Sequence:
    """A request in work."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.tokens = [int(token) for token in request.tokens]
        self.num_made = request.num_made
        self.end_at = time.monotonic() + request.deadline_s
        self.draw = assign.generator(request.seed, "completion", request.prompt_id)
        self.draw.random(request.num_made)  # one for each token made before

    def window(self, context: int) -> Window:
        """What the model sees: all tokens, or the last ones from a multiple of a quarter of the context on, so that the
        cache is made anew once in a quarter and not for each token."""
        block = max(1, context // 4)
        start = -(-max(0, len(self.tokens) - context) // block) * block
        return Window(self.request.name, start, np.array(self.tokens[start:], np.int64))


class Batch:
    """The requests of one model. context: tokens that the model sees at most."""

    def __init__(self, decoder: Decoder, vocab_size: int, context: int, max_sequences: int) -> None:
        self._decoder, self._top_k = decoder, min(TOP_K, vocab_size)
        self._context, self._max_sequences = context, max_sequences
        self._running: list[_Sequence] = []
        self._waiting: deque[_Sequence] = deque()

    @property
    def active(self) -> bool:
        """Whether it has requests."""
        return bool(self._running or self._waiting)

    def join(self, request: GenerationRequest) -> None:
        """One more request, from the next step on."""
        self._waiting.append(_Sequence(request))

    def leave(self, names: set[str]) -> None:
        """Forget requests."""
        self._running = [one for one in self._running if one.request.name not in names]
        self._waiting = deque(one for one in self._waiting if one.request.name not in names)
        self._release()

    def renew(self) -> None:
        """The model was trained."""
        self._decoder.renew(at_once=self.active)

    def fail(self, error: str) -> dict[str, NewTokens]:
        """End all requests."""
        names = [one.request.name for one in [*self._running, *self._waiting]]
        self.leave(set(names))
        return {name: NewTokens(done=True, error=error) for name in names}

    def step(self) -> dict[str, NewTokens]:
        """One token for each running request."""
        now = time.monotonic()
        late = {one.request.name for one in [*self._running, *self._waiting] if now > one.end_at}
        self.leave(late)
        found = {name: NewTokens(done=True, error="the deadline has passed") for name in late}
        self._admit()
        if not self._running:
            return found
        windows = [one.window(self._context) for one in self._running]
        ids, probs = self._decoder.predict(windows, self._top_k)
        chosen = choose(
            ids, probs, [one.request.temperature for one in self._running], [one.draw for one in self._running]
        )
        for one, token in zip(self._running, chosen, strict=True):
            one.tokens.append(token)
            one.num_made += 1
            ended = token == one.request.end
            done = ended or one.num_made >= one.request.max_tokens
            found[one.request.name] = NewTokens(() if ended else (token,), done)
        self._running = [one for one in self._running if not found[one.request.name].done]
        self._release()
        return found

    def _admit(self) -> None:
        """Take in those that wait. The tokens of their prompts are bounded, since the others wait for them."""
        prompts = 0
        while self._waiting and len(self._running) < self._max_sequences:
            prompts += min(len(self._waiting[0].tokens), self._context)
            if prompts > PREFILL_TOKENS and self._running:
                return
            self._running.append(self._waiting.popleft())

    def _release(self) -> None:
        if not self.active:
            self._decoder.clear()


class Generations:
    """The batches of a host. `run` is called by one thread, `training` and `trained` by another.

    make   the batch of a hotkey, made with its first request.
    share  of the time, above 0 and at most 1, that `run` may compute during `training`.
    """

    def __init__(self, make: Callable[[str], Batch], share: float) -> None:
        self._make, self._share = make, share
        self._batches: dict[str, Batch] = {}
        self._idle = threading.Event()
        self._idle.set()
        self._next_at = 0.0  # when `run` may compute again, if the host trains then

    @contextmanager
    def training(self) -> Iterator[None]:
        """While the host trains."""
        self._idle.clear()
        try:
            yield
        finally:
            self._idle.set()

    def trained(self) -> None:
        """The models have changed: running requests go on with the new ones, whose caches are made anew."""
        for batch in list(self._batches.values()):
            batch.renew()

    def run(self, joins: Sequence[GenerationRequest], leaves: Sequence[str]) -> dict[str, NewTokens]:
        """Take in and drop requests, then compute. Returns what each request got; may be empty."""
        for request in joins:
            if request.hotkey not in self._batches:
                self._batches[request.hotkey] = self._make(request.hotkey)
            self._batches[request.hotkey].join(request)
        for batch in self._batches.values() if leaves else ():
            batch.leave(set(leaves))
        if not self._may_compute():
            return {}
        began, found = time.monotonic(), {}
        while active := [batch for batch in self._batches.values() if batch.active]:
            for batch in active:
                for name, new in self._step(batch).items():
                    before = found.get(name, NewTokens())
                    found[name] = NewTokens(before.tokens + new.tokens, new.done, new.error)
            if time.monotonic() - began >= BURST_S:
                break
        now = time.monotonic()
        self._next_at = now + (now - began) * (1 / self._share - 1)
        return found

    def _may_compute(self) -> bool:
        pause_s = self._next_at - time.monotonic()
        return pause_s <= 0 or self._idle.wait(min(pause_s, PAUSE_S)) or self._next_at <= time.monotonic()

    def _step(self, batch: Batch) -> dict[str, NewTokens]:
        try:
            return batch.step()
        except Exception as error:  # the edge of a model: others go on; the caller counts the requests that failed
            log.exception("prompts could not be continued")
            return batch.fail(f"the miner failed: {cause_of(error)}")


def choose(
    ids: np.ndarray, probs: np.ndarray, temperatures: Sequence[float], draws: Sequence[np.random.Generator]
) -> list[int]:
    """The next token of each row of ids and probs [B, K]: the likeliest at temperature 0, else one drawn from
    probs^(1 / temperature), as `Generator.choice` draws it."""
    heat = np.array(temperatures)[:, None]
    logits = np.log(np.maximum(probs.astype(np.float64), 1e-30)) / np.where(heat > 0, heat, 1.0)
    sums = np.exp(logits - logits.max(axis=1, keepdims=True)).cumsum(axis=1)
    drawn = np.array([draw.random() if warm else 0.0 for warm, draw in zip(heat[:, 0] > 0, draws, strict=True)])
    places = ((sums / sums[:, -1:]) <= drawn[:, None]).sum(axis=1)
    best = np.argmax(probs, axis=1)
    places = np.where(heat[:, 0] > 0, np.minimum(places, ids.shape[1] - 1), best)
    return ids[np.arange(len(ids)), places].tolist()
