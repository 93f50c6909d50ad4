"""A server of somebody else, with a JSON protocol of its own, asked by settings alone: `asking.http`."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import numpy as np
import pytest
from aiohttp import web
from wirekit import key

from raytensor import config
from raytensor.config.wire import Client, Freshness, HttpForm
from raytensor.errors import ConfigError
from raytensor.payload import Array, Bytes, Fields, Number, Schema, Text
from raytensor.types import Failure, Reason, Response, Task
from raytensor.wire import auth
from raytensor.wire.client import WireClient
from raytensor.wire.http_form import refuse_unfit

VALIDATOR, MINER = key("validator"), key("miner")
SCHEMA = Schema(
    question=Fields(
        prompt=Text(100),
        seed=Number(0, 99, whole=True),
        picture=Array("float32", ((1, 4), 2)),
        raw=Bytes(16, optional=True),
    ),
    answer=Fields(text=Text(50), scores=Array("float32", ((1, 8),)), note=Text(20, optional=True)),
)
FORM = HttpForm(
    path="/v1/generate",
    method="PUT",
    body={
        "inputs": [{"role": "user", "content": "Continue: {prompt}"}],
        "options": {"seed": "{seed}", "image": "{picture}", "raw": "{raw}", "stream": False},
        "id": "{task_id}",
    },
    answer={"text": "choices.0.message", "scores": "usage.scores", "note": "usage.note"},
)
GOOD = {"choices": [{"message": "a list"}], "usage": {"scores": [0.5, 1]}, "more": None}


def question(**payload) -> Task:
    values = {"prompt": "The list is", "seed": 7, "picture": np.array([[1, 2.5]], np.float32)} | payload
    return Task(
        task_id="t-1",
        round=3,
        netuid=5,
        validator=VALIDATOR.ss58,
        hotkey=MINER.ss58,
        tokens=np.zeros((0, 0), np.int32),
        lengths=np.zeros(0, np.int32),
        top_k=1,
        deadline_s=20.0,
        kind="generate",
        payload=SCHEMA.question.read(values),
        answer=SCHEMA.answer,
    )


def asked(answer, task: Task = question(), form: HttpForm = FORM):
    """What a server that answers so was asked, and the outcome for us. answer: an object, or a whole web.Response."""
    seen = []

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        claim = auth.read_claim(headers, receiver=MINER.ss58, now_ns=time.time_ns(), fresh=Freshness())
        caller = auth.prove(claim, method=request.method, path=request.path, body=body)
        seen.append((request.method, request.path, caller.hotkey, json.loads(body)))
        return answer if isinstance(answer, web.Response) else web.json_response(answer)

    async def play():
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        try:
            async with WireClient(VALIDATOR, Client(http=form, allow_local_addresses=True, tries=1)) as client:
                return await client.ask(task, f"127.0.0.1:{port}")
        finally:
            await runner.cleanup()

    return asyncio.run(play()), seen


def test_a_question_goes_out_and_its_answer_comes_back_in_the_subnets_own_form():
    answer, seen = asked(GOOD)
    expected = {
        "inputs": [{"role": "user", "content": "Continue: The list is"}],
        "options": {"seed": 7, "image": [[1.0, 2.5]], "stream": False},  # `raw` was left out
        "id": "t-1",
    }
    assert seen == [("PUT", "/v1/generate", VALIDATOR.ss58, expected)], "signed for exactly this request"
    assert isinstance(answer, Response) and (answer.task_id, answer.hotkey) == ("t-1", MINER.ss58)
    assert answer.payload["text"] == "a list" and "note" not in answer.payload
    assert answer.payload["scores"].dtype == np.float32 and answer.payload["scores"].tolist() == [0.5, 1.0]
    assert asked(GOOD, question(raw=b"\0\1"))[1][0][3]["options"]["raw"] == "AAE="


@pytest.mark.parametrize(
    "answer, words",
    [
        ({}, "nothing at choices.0.message"),
        (GOOD | {"choices": []}, "nothing at choices.0.message"),
        (GOOD | {"choices": "text"}, "nothing at choices.0.message"),
        (GOOD | {"choices": [{"message": 5}]}, "text: must be text"),
        (GOOD | {"choices": [{"message": "x" * 51}]}, "0 to 50 characters"),
        (GOOD | {"usage": {"scores": [[1]]}}, "scores: "),
        (GOOD | {"usage": {"scores": []}}, "scores: dimension 0 must be 1 to 8"),
        (GOOD | {"usage": {"scores": [1], "note": 3}}, "note: must be text"),
        (GOOD | {"more": "x" * 70_000}, "bytes"),
        (web.Response(text="[1]", content_type="application/json"), "must be a JSON object"),
        (web.Response(text="{", content_type="application/json"), "is not JSON"),
        (web.Response(text=json.dumps(GOOD), content_type="text/html"), "not application/json"),
    ],
)
def test_an_answer_outside_of_its_declaration_is_malformed(answer, words):
    outcome, _ = asked(answer)
    assert isinstance(outcome, Failure) and outcome.reason is Reason.MALFORMED and words in outcome.detail


def test_values_within_a_text_are_json_and_numbers_that_json_lacks_are_not_sent():
    form = replace(FORM, body={"text": "Of {seed}: {picture}, {kind}, {raw}."}, answer=FORM.answer)
    assert asked(GOOD, form=form)[1][0][3] == {"text": "Of 7: [[1.0,2.5]], generate, ."}
    schema = Fields(picture=Array("float32", (2,), finite=False))
    task = replace(question(), payload=schema.read({"picture": np.array([1, np.nan], np.float32)}))
    outcome, seen = asked(GOOD, task, replace(FORM, body={"p": "{picture}"}))
    assert isinstance(outcome, Failure) and "picture: JSON has no NaN" in outcome.detail and seen == []
    outcome, _ = asked(GOOD, form=replace(FORM, answer=FORM.answer | {"text": "choices.-1.message"}))
    assert isinstance(outcome, Failure) and "nothing at choices.-1.message" in outcome.detail


def test_a_refusal_is_told_in_the_servers_words():
    outcome, _ = asked(web.json_response({"detail": "no credit"}, status=402))
    assert isinstance(outcome, Failure) and outcome.reason is Reason.ERROR and "no credit" in outcome.detail


def test_what_a_form_can_not_carry_is_refused_before_anything_starts():
    refuse_unfit(FORM, {"generate": SCHEMA})
    refuse_unfit(HttpForm(), {})
    for form, schemas, words in [
        (FORM, {}, "no payload"),
        (replace(FORM, body={"x": ["{nobody}"]}), {"generate": SCHEMA}, "no field 'nobody'"),
        (replace(FORM, answer={"text": "a"}), {"generate": SCHEMA}, "wrong: 'scores'"),
        (replace(FORM, answer=FORM.answer | {"x": "a"}), {"generate": SCHEMA}, "wrong: 'x'"),
        (FORM, {"generate": Schema(SCHEMA.question, None)}, "is a file"),
    ]:
        with pytest.raises(ConfigError, match=words):
            refuse_unfit(form, schemas)
    typed = ["netuids=[1]", "hotkeys=[//Alice]", "chain.network=local"]
    for setting, words in [
        ("path=v1", "must be a path"),
        ("method=GET", "POST"),
        ("answer={text: [1]}", "its place as text"),
        ("answer={text: a}", "path"),
    ]:
        with pytest.raises(ConfigError, match=words):
            config.compose("validate", [*typed, f"asking.http.{setting}"])
    body = 'asking.http.body={q: "{prompt}", list: [1, {n: "{seed}"}]}'
    cfg = config.compose("validate", [*typed, "asking.http.path=/ask", body, "asking.http.answer={text: a.0}"])
    assert cfg.asking.http.body == {"q": "{prompt}", "list": [1, {"n": "{seed}"}]}
    assert cfg.asking.http.answer == {"text": "a.0"}
