"""Prompts that are continued together, with a cache of keys and values: the tokens are those of full forward passes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ray
from test_miner import CFG, SMALL, V, one_thread, text  # noqa: F401 (fixtures)

from raytensor.config import MinerProfile
from raytensor.data import assign
from raytensor.miners.actors import GenerationRequest, NewTokens
from raytensor.miners.generation import Batch, FullForward, Generations
from raytensor.miners.group import LANES
from raytensor.miners.host import MinerHost
from raytensor.miners.miner import Miner
from raytensor.miners.streams import Streams
from raytensor.training.decoding import CachedDecoder, bytes_per_token
from raytensor.types import Task

CONTEXT = CFG.miners.seq_len
# name -> (tokens of the prompt, max_tokens, temperature): shorter and longer than the context
PROMPTS = {"a": (5, 30, 0.0), "b": (1, 30, 0.8), "c": (CONTEXT, 12, 1.0), "d": (40, 8, 0.5), "e": (9, 25, 0.0)}


def request(of: str, **changes: Any) -> GenerationRequest:
    size, most, heat = PROMPTS[of]
    tokens = np.random.default_rng(ord(of)).integers(1, V, size).astype(np.int32)
    return replace(GenerationRequest(of, of, "a", tokens, 0, most, heat, 7, -1, 600.0), **changes)


def by_full_forward(miner: Miner, asked: GenerationRequest, count: int, made: list[int] | None = None) -> list[int]:
    """The same text by one whole question for each token, drawn one by one by numpy itself."""
    made = [] if made is None else made
    draw = assign.generator(asked.seed, "completion", asked.prompt_id)
    for _ in made if asked.temperature else ():
        draw.random()
    while len(made) < count:
        tokens = [*asked.tokens.tolist(), *made]
        over = len(tokens) - CONTEXT
        start = 0 if over <= 0 else -(-over // (CONTEXT // 4)) * (CONTEXT // 4)
        shown = np.array([tokens[start:]], np.int32)
        answer = miner.answer(Task("q", 0, 1, "v", "a", shown, np.array([shown.shape[1]], np.int32), 64, 60.0))
        assert answer is not None and len(shown[0]) <= CONTEXT
        if asked.temperature == 0.0:
            made.append(int(answer.ids[0, 0]))
            continue
        weights = np.maximum(answer.probs[0].astype(np.float64), 1e-30) ** (1 / asked.temperature)
        made.append(int(draw.choice(answer.ids[0], p=weights / weights.sum())))
    return made


def made_miner(text, **profile) -> Miner:  # noqa: F811
    found = Miner("a", MinerProfile(**SMALL | {"steps": 20} | profile), CFG, text)
    found.train(1)
    return found


def batch_of(miner: Miner, max_sequences: int = 8) -> tuple[Batch, CachedDecoder]:
    decoder = miner.cached_decoder()
    assert decoder is not None
    return Batch(decoder, V, CONTEXT, max_sequences), decoder


def gather(found: dict[str, NewTokens], into: dict[str, list[int]]) -> None:
    for name, new in found.items():
        into.setdefault(name, []).extend(new.tokens)
        assert not new.error


@pytest.mark.parametrize(
    "profile", [{}, {"model": "gpt2-1M", "steps": 2}, {"lora_rank": 2}], ids=["llama", "gpt2", "lora"]
)
def test_requests_that_join_and_leave_get_the_tokens_of_full_forwards(text, profile):  # noqa: F811
    if "lora_rank" in profile:
        pytest.importorskip("peft")
    miner = made_miner(text, **profile)
    batch, decoder = batch_of(miner)
    made: dict[str, list[int]] = {}
    for step in range(45):
        for name in {0: "ab", 3: "c", 9: "de"}.get(step, ""):
            batch.join(request(name))
        if step == 20:
            batch.leave({"b"})
        gather(batch.step(), made)
        if step == 12:
            rows, model = 8, miner.engine.model  # five of them in use
            assert decoder.cache_bytes == rows * CONTEXT * bytes_per_token(model)
    assert not batch.active and decoder.cache_bytes == 0
    for name in PROMPTS:
        count = 20 if name == "b" else PROMPTS[name][1]
        assert made[name] == by_full_forward(miner, request(name), count), name


def test_a_host_of_stacked_miners_continues_with_the_model_of_the_newest_round(text):  # noqa: F811
    profile = MinerProfile(**SMALL)
    host, alone = MinerHost(CFG, [("a", profile), ("b", profile)], text), Miner("a", profile, CFG, text)
    made: dict[str, list[int]] = {}
    host.train(1)
    alone.train(1)
    most = {"max_tokens": 60}
    asked = [request("a", **most), request("b", **most), request("b", name="other", hotkey="b", **most)]
    gather(host.generate([*asked, request("e", name="less", max_tokens=1)], []), made)
    first = {name: list(tokens) for name, tokens in made.items()}
    expected = {name: by_full_forward(alone, request(name), len(first[name])) for name in "ab"}
    host.train(2)
    alone.train(2)
    while any(len(made[name]) < 60 for name in ("a", "b", "other")):
        gather(host.generate([], []), made)
    assert len(first["less"]) == 1
    for name in "ab":
        assert made[name] == by_full_forward(alone, request(name), 60, expected[name])
    assert made["other"] != made["b"]  # of another model
    wrong = host.generate([request("a", name="x", hotkey="z"), request("a", name="y", tokens=np.array([V]))], [])
    assert "no miner" in wrong["x"].error and f"0 .. {V - 1}" in wrong["y"].error


def test_without_a_cache_the_tokens_are_the_same_and_a_miner_that_is_silent_says_so(text):  # noqa: F811
    miner = made_miner(text)
    batch, made = Batch(FullForward(miner.answer, "a", together=True), V, CONTEXT, 2), {}
    for name in PROMPTS:
        batch.join(request(name, max_tokens=6))
    while batch.active:
        gather(batch.step(), made)
    assert made == {name: by_full_forward(miner, request(name), 6) for name in PROMPTS}
    silent = MinerHost(CFG, [("a", MinerProfile(behaviour="silent"))], text)
    assert "no answer" in silent.generate([request("a")], [])["a"].error


def test_the_end_of_a_text_and_a_deadline_end_a_request(text):  # noqa: F811
    miner = made_miner(text)
    batch, _ = batch_of(miner)
    whole = by_full_forward(miner, request("a"), 30)
    cut = next(place for place, token in enumerate(whole) if token not in whole[:place] and place > 1)
    batch.join(request("a", end=whole[cut]))
    batch.join(request("e", deadline_s=-1.0))
    found = batch.step()
    assert found["e"] == NewTokens(done=True, error="the deadline has passed") and found["a"].tokens == (whole[0],)
    made = list(found["a"].tokens)
    while batch.active:
        made += batch.step()["a"].tokens
    assert made == whole[:cut]  # the last token is not shown


def test_prompts_keep_to_their_share_while_the_host_trains(text):  # noqa: F811
    miner = made_miner(text)
    generations = Generations(lambda hotkey: batch_of(miner)[0], share=1e-9)
    with generations.training():
        assert len(generations.run([request("a")], [])["a"].tokens) >= 1
        assert generations.run([], []) == {}  # the next burst is due in years
    assert len(generations.run([], [])["a"].tokens) >= 1


def test_a_stream_goes_on_at_the_replacement_of_a_lost_host_and_a_closed_one_leaves(ray_session, text):  # noqa: F811
    members = [("a", MinerProfile(**SMALL))]
    factory: Any = ray.remote(**LANES)(MinerHost).options(num_cpus=0.1)
    first, second = factory.remote(CFG, members, text), factory.remote(CFG, members, text)
    pid, _ = ray.get([first.ready.remote(), second.ready.remote()], timeout=120)
    hosts, asked = {"a": first}, Counter()

    async def play() -> list[int]:
        streams = Streams(hosts.get, asked)
        closed = streams.tokens(request("e", max_tokens=10**6))
        async for _ in closed:
            break
        await closed.aclose()
        made: list[int] = []
        async with aclosing(streams.tokens(request("b", max_tokens=400))) as news:
            async for new in news:
                if not made:
                    os.kill(pid, signal.SIGKILL)
                    hosts["a"] = second
                made += new
        return made

    made = asyncio.run(asyncio.wait_for(play(), 200))
    undisturbed = Miner("a", members[0][1], CFG, text)
    assert made == by_full_forward(undisturbed, request("b"), 400) and not any(asked.values())
    ray.kill(second)
