"""What comes back over the wire: the bits of the in-process answer, streams, declined and failed answers."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import numpy as np
import pytest
from wirekit import Live, answer, client_settings, key, run, server_settings, task

from raytensor.types import Failure, Reason, Response
from raytensor.wire.client import WireClient
from raytensor.wire.codec import Prompt
from raytensor.wire.errors import Declined


@pytest.mark.parametrize("body", ["safetensors", "json"])
@pytest.mark.parametrize("protocol", ["btauth", "epistula", "axon_v10"])
def test_the_wire_gives_the_bits_of_the_process(protocol, body, validator, miner):
    async def check():
        settings = server_settings(protocols=["btauth", "epistula", "axon_v10"])
        async with Live(validator, miner, settings=settings) as live:
            async with WireClient(validator, client_settings(protocol=protocol, body=body)) as client:
                for seed in range(5):
                    question = task(validator.ss58, miner.ss58, seed=seed)
                    near, far = await answer(question), await client.ask(question, live.axon)
                    assert isinstance(far, Response), far
                    assert (far.task_id, far.hotkey) == (near.task_id, near.hotkey)
                    for name in ("ids", "probs"):
                        mine, theirs = getattr(near, name), getattr(far, name)
                        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
                        assert mine.tobytes() == theirs.tobytes()

    run(check())


def test_the_handler_sees_the_bits_that_were_asked(validator, miner):
    seen = []

    async def ask(question):
        seen.append(question)
        return await answer(question)

    async def check():
        async with Live(validator, miner, ask) as live, WireClient(validator, client_settings()) as client:
            question = task(validator.ss58, miner.ss58, seed=3)
            await client.ask(question, live.axon)
            for name in question.__dataclass_fields__:
                assert np.array_equal(getattr(seen[0], name), getattr(question, name)), name

    run(check())


def test_handlers_that_decline_fail_or_dawdle(validator, miner):
    async def ask(question):
        if question.round == 2:
            raise RuntimeError("secret detail")
        if question.round == 3:
            await asyncio.sleep(30)
        return Failure(question.task_id, question.hotkey, Reason.SILENT, "asleep")

    async def check():
        settings = server_settings(answer_timeout_s=0.3)
        async with Live(validator, miner, ask, settings) as live, WireClient(validator, client_settings()) as client:
            question = task(validator.ss58, miner.ss58)
            outcomes = [await client.ask(dataclasses.replace(question, round=n), live.axon) for n in (1, 2, 3)]
            assert [outcome.reason for outcome in outcomes] == [Reason.SILENT, Reason.ERROR, Reason.TIMEOUT]
            assert "asleep" in outcomes[0].detail and "secret" not in outcomes[1].detail
            assert live.server.gate._held == 0

    run(check())


@pytest.mark.parametrize("protocol", ["btauth", "axon_v10"])
def test_an_answer_that_can_not_be_sent_is_the_miners_fault(protocol, validator, miner):
    async def ask(question):
        response = await answer(question)
        return dataclasses.replace(response, probs=response.probs * np.float32("nan"))

    async def check():
        async with Live(validator, miner, ask, server_settings(protocols=[protocol])) as live:
            async with WireClient(validator, client_settings(protocol=protocol, body="json")) as client:
                outcome = await client.ask(task(validator.ss58, miner.ss58), live.axon)
                assert outcome.reason is Reason.ERROR and "500" in outcome.detail and "can't be sent" in outcome.detail

    run(check())


def test_concurrency_is_bounded_and_the_rest_is_told(validator, miner):
    running, peak = 0, 0

    async def ask(question):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.2)
        running -= 1
        return await answer(question)

    async def check():
        settings = server_settings(max_in_hand=4, max_waiting=8)
        async with Live(validator, miner, ask, settings) as live:
            replies = await asyncio.gather(*(live.post(*live.request()) for _ in range(30)))
            statuses = sorted(status for status, _ in replies)
            assert statuses == [200] * 12 + [503] * 18 and peak == 4
            assert (await live.post(*live.request()))[0] == 200

    run(check())


def test_a_caller_that_hangs_up_frees_its_place(validator, miner):
    ended = asyncio.Event()

    async def ask(question):
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()
        return await answer(question)

    async def check():
        async with Live(validator, miner, ask) as live, WireClient(validator, client_settings()) as client:
            outcome = await client.ask(task(validator.ss58, miner.ss58, deadline_s=0.3), live.axon)
            assert outcome.reason is Reason.TIMEOUT
            await asyncio.wait_for(ended.wait(), 5)
            await asyncio.sleep(0.05)
            assert live.server.gate._held == 0

    run(check())


WORDS = ["Once ", "upon ", "a ", "time\n", "ünïcode 🎲"]


def prompt(validator, miner, **changes):
    return Prompt("p1", 1, validator.ss58, miner.ss58, "Tell me", **({"deadline_s": 5.0} | changes))


def test_completions_stream(validator, miner):
    closed = []

    async def complete(question):
        try:
            for word in WORDS if question.seed == 0 else iter(lambda: "more ", None):
                await asyncio.sleep(0.02)
                yield word
            if question.max_tokens == 7:
                raise RuntimeError("secret detail")
            if question.max_tokens == 8:
                await asyncio.sleep(30)
        finally:
            closed.append(question.seed)

    async def check():
        settings = server_settings(protocols=["btauth", "epistula"], stream_pause_s=0.4)
        async with Live(validator, miner, settings=settings, complete=complete) as live:
            for protocol in ("btauth", "epistula"):
                async with WireClient(validator, client_settings(protocol=protocol)) as client:
                    arrived = []
                    async for piece in client.complete(prompt(validator, miner), live.axon):
                        arrived.append((piece, time.monotonic()))
                    assert [piece for piece, _ in arrived] == WORDS
                    assert arrived[-1][1] - arrived[0][1] > 0.05, "the pieces came all at once"
            async with WireClient(validator, client_settings()) as client:
                for max_tokens, words in ((7, "failed while it answered"), (8, "did not finish in time")):
                    with pytest.raises(Declined, match=words):
                        async for _ in client.complete(prompt(validator, miner, max_tokens=max_tokens), live.axon):
                            pass
                endless = client.complete(prompt(validator, miner, seed=1, deadline_s=60), live.axon)
                assert await anext(endless) == "more "
                await endless.aclose()
                for _ in range(50):
                    await asyncio.sleep(0.05)
                    if 1 in closed:
                        break
                assert closed[-1] == 1 and live.server.gate._held == 0
                with pytest.raises(Declined, match="403 Refused"):
                    async with WireClient(key("stranger"), client_settings()) as other:
                        async for _ in other.complete(prompt(key("stranger"), miner), live.axon):
                            pass

    run(check())
