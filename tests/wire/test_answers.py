"""What comes back over the wire: the bits of the in-process answer, streams, declined and failed answers."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib

import numpy as np
import pytest
from wirekit import Live, answer, client_settings, key, run, server_settings, task, until

from raytensor.config.wire import AnswerBounds
from raytensor.types import Failure, Reason, Response, Submission
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


@pytest.mark.parametrize("body", ["safetensors", "json"])
@pytest.mark.parametrize("kind", ["phrase", "completion"])
def test_phrases_travel_as_they_are(kind, body, validator, miner):
    async def phrases(question):
        assert (question.kind, question.horizon) == (kind, 5)
        draw = np.random.default_rng(1)
        ids = draw.integers(-1, 1024, (len(question.lengths), 3, 4)).astype(np.int32)
        return Response(question.task_id, question.hotkey, ids, draw.random(ids.shape[:2], np.float32) / 3)

    async def check():
        async with Live(validator, miner, phrases) as live, WireClient(validator, client_settings(body=body)) as client:
            question = dataclasses.replace(task(validator.ss58, miner.ss58), kind=kind, horizon=5)
            near, far = await phrases(question), await client.ask(question, live.axon)
            assert isinstance(far, Response), far
            assert (
                far.ids.tobytes() == near.ids.tobytes()
                and far.ids.shape == near.ids.shape
                and far.ids.dtype == near.ids.dtype
            )
            assert far.probs.tobytes() == near.probs.tobytes()
            short = await client.ask(dataclasses.replace(question, task_id="short", top_k=2), live.axon)
            assert short.reason is Reason.MALFORMED and "2" in short.detail

    run(check())


@pytest.mark.parametrize("body", ["safetensors", "json"])
def test_a_file_travels_whole_and_its_digest_is_made_of_what_came(body, validator, miner, tmp_path):
    data = np.random.default_rng(2).bytes(300_000)
    (tmp_path / "model.safetensors").write_bytes(data)
    digest = hashlib.blake2b(data, digest_size=32).hexdigest()

    async def hand_in(question):
        path = tmp_path / ("gone" if question.round == 2 else "model.safetensors")
        return Submission(question.task_id, question.hotkey, "claimed", path=str(path))

    async def check():
        settings = server_settings(protocols=["btauth", "axon_v10"])
        async with Live(validator, miner, hand_in, settings) as live:
            question = task(validator.ss58, miner.ss58)
            nothing = {"tokens": np.zeros((0, 0), np.int32), "lengths": np.zeros(0, np.int32)}
            asked = dataclasses.replace(question, kind="file", **nothing)
            async with WireClient(validator, client_settings(body=body)) as client:
                got = await client.ask(asked, live.axon)
                assert got == Submission(asked.task_id, miner.ss58, digest, payload=data)
                gone = await client.ask(dataclasses.replace(asked, round=2), live.axon)
                assert gone.reason is Reason.ERROR and "can't be read" in gone.detail
                wrong = await client.ask(question, live.axon)  # a file is no answer to a question for tokens
                assert wrong.reason is Reason.MALFORMED
            async with WireClient(validator, client_settings(protocol="axon_v10")) as client:
                refused = await client.ask(asked, live.axon)
                assert refused.reason is Reason.ERROR and "not 'file'" in refused.detail

    run(check())


def test_a_file_has_a_bound_of_its_own_and_few_are_under_way_at_once(validator, miner):
    """A file that is larger than any answer may be is no fault of its miner; one beyond the bound for files is."""
    running = peak = 0

    async def hand_in(question):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.02)
        running -= 1
        return Submission(
            question.task_id, question.hotkey, "", payload=b"x" * (20_000 if question.round == 1 else 40_001)
        )

    async def check():
        async with Live(validator, miner, hand_in) as live:
            nothing = {"tokens": np.zeros((0, 0), np.int32), "lengths": np.zeros(0, np.int32)}
            asked = dataclasses.replace(task(validator.ss58, miner.ss58), kind="file", **nothing)
            files = [dataclasses.replace(asked, task_id=f"file-{n}", round=1) for n in range(12)]
            settings = client_settings(
                max_files_in_flight=3,
                max_connections_per_endpoint=64,
                deadline_mads=0.0,
                bounds=AnswerBounds(max_answer_bytes=10_000, max_file_bytes=40_000),
            )
            async with WireClient(validator, settings) as client:
                got = [outcome async for outcome in client.ask_each(files, {miner.ss58: live.axon})]
                assert {outcome.task_id for outcome in got if len(outcome.payload) == 20_000} == {
                    file.task_id for file in files
                }
                assert peak == 3
                large = await client.ask(dataclasses.replace(asked, round=2), live.axon)
                assert large.reason is Reason.MALFORMED and "40000" in large.detail

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
        settings = server_settings(answer_timeout_s=2.0)
        async with Live(validator, miner, ask, settings) as live, WireClient(validator, client_settings()) as client:
            question = task(validator.ss58, miner.ss58)
            outcomes = [await client.ask(dataclasses.replace(question, round=n), live.axon) for n in (1, 2, 3)]
            assert [outcome.reason for outcome in outcomes] == [Reason.SILENT, Reason.ERROR, Reason.TIMEOUT]
            assert "asleep" in outcomes[0].detail and "secret" not in outcomes[1].detail
            assert live.server.gate.in_flight == 0

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
                assert (
                    outcome.reason is Reason.ERROR and "500" in outcome.detail and "can't be encoded" in outcome.detail
                )

    run(check())


def test_concurrency_is_bounded_and_the_rest_is_told(validator, miner):
    running, peak, told = 0, 0, asyncio.Event()

    async def ask(question):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await told.wait()  # nobody has an answer before all that are too many were told so
        running -= 1
        return await answer(question)

    async def check():
        settings = server_settings(max_concurrent=4, max_queued=8)
        async with Live(validator, miner, ask, settings) as live:
            asked = [asyncio.create_task(live.post(*live.request())) for _ in range(30)]
            await until(lambda: sum(one.done() for one in asked) == 18)
            told.set()
            statuses = sorted(status for status, _ in await asyncio.gather(*asked))
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
            outcome = await client.ask(task(validator.ss58, miner.ss58, deadline_s=2.0), live.axon)
            assert outcome.reason is Reason.TIMEOUT
            await ended.wait()
            await until(lambda: live.server.gate.in_flight == 0)

    run(check())


WORDS = ["Once ", "upon ", "a ", "time\n", "ünïcode 🎲"]


def prompt(validator, miner, **changes):
    return Prompt("p1", 1, validator.ss58, miner.ss58, "Tell me", **({"deadline_s": 30.0} | changes))


def test_completions_stream(validator, miner):
    closed, read = [], asyncio.Semaphore()

    async def complete(question):
        try:
            for word in WORDS if question.seed == 0 else iter(lambda: "more ", None):
                await (read.acquire() if question.seed == 0 else asyncio.sleep(0.02))
                yield word  # the next one once the caller has read this one: pieces that wait for others never come
            if question.max_tokens == 7:
                raise RuntimeError("secret detail")
            if question.max_tokens == 8:
                await asyncio.sleep(30)
        finally:
            closed.append(question.seed)

    async def check():
        settings = server_settings(protocols=["btauth", "epistula"], stream_pause_s=2.0)
        async with Live(validator, miner, settings=settings, complete=complete) as live:
            for protocol in ("btauth", "epistula"):
                async with WireClient(validator, client_settings(protocol=protocol)) as client:
                    arrived = []
                    async for piece in client.complete(prompt(validator, miner), live.axon):
                        arrived.append(piece)
                        read.release()
                    assert arrived == WORDS
            async with WireClient(validator, client_settings()) as client:
                for max_tokens, words in ((7, "failed while it answered"), (8, "did not finish in time")):
                    with pytest.raises(Declined, match=words):
                        async for _ in client.complete(prompt(validator, miner, max_tokens=max_tokens), live.axon):
                            read.release()
                endless = client.complete(prompt(validator, miner, seed=1, deadline_s=60), live.axon)
                assert await anext(endless) == "more "
                await endless.aclose()
                await until(lambda: 1 in closed and live.server.gate.in_flight == 0)
                assert closed[-1] == 1
                with pytest.raises(Declined, match="403 Refused"):
                    async with WireClient(key("stranger"), client_settings()) as other:
                        async for _ in other.complete(prompt(key("stranger"), miner), live.axon):
                            pass

    run(check())
