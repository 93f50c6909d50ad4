"""Protocols beside our own: the same refusals, whatever protocol the request speaks. Nothing unsigned gets through."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib
import json
import time
from functools import partial

import aiohttp
import numpy as np
import pytest
import sr25519
from wirekit import answer, key, metagraph, server_settings, task

from raytensor.chain import ss58
from raytensor.config.wire import PROTOCOLS, Freshness
from raytensor.types import Response
from raytensor.wire.axon_v10 import FIELDS
from raytensor.wire.dialects import DIALECTS
from raytensor.wire.errors import PayloadError, StaleRequest
from raytensor.wire.server import WireServer

HOTKEY_HEADER = {
    "btauth": "X-Bittensor-Hotkey",
    "epistula": "Epistula-Signed-By",
    "axon_v10": "bt_header_dendrite_hotkey",
}
SIGNATURE_HEADER = {
    "btauth": "X-Bittensor-Signature",
    "epistula": "Epistula-Request-Signature",
    "axon_v10": "bt_header_dendrite_signature",
}
RECEIVER_HEADER = {
    "btauth": "X-Bittensor-Receiver",
    "epistula": "Epistula-Signed-For",
    "axon_v10": "bt_header_axon_hotkey",
}


async def posts(miner, validator, settings, requests):
    """(status, error name) of each request, sent one after the other to one server; made when it listens."""
    told = []
    server = WireServer(miner.ss58, answer, settings)
    host, port = await server.start()
    server.update(metagraph([validator.ss58]))
    async with aiohttp.ClientSession() as http:
        for path, headers, body in [make() for make in requests]:
            async with http.post(f"http://{host}:{port}{path}", data=body, headers=headers) as reply:
                message = {} if reply.status == 200 else await reply.json(content_type=None)
                told.append((reply.status, message.get("error", "")))
    await server.stop()
    return told


@pytest.mark.parametrize("body_format", ["safetensors", "json"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refusals(protocol, body_format, validator, miner):
    dialect, stranger = DIALECTS[protocol](), key("stranger")

    def request(signer=validator, receiver=miner.ss58, age_s=0.0, drop=None, put=None, body=None):
        question = task(signer.ss58, miner.ss58)
        draft = dialect.draft(question, body_format)
        headers = dialect.sign(signer, draft, receiver, time.time_ns() - int(age_s * 1e9))
        headers["Content-Type"] = draft.content_type
        headers.pop(drop, None)
        return draft.path, headers | (put or {}), draft.body if body is None else body

    longer = dialect.draft(task(validator.ss58, miner.ss58, rows=9), body_format).body
    good = functools.cache(request)
    cases = [
        (good, (200, "")),
        (good, (401, "ReplayedRequest")),
        (partial(request, drop=SIGNATURE_HEADER[protocol]), (401, "MalformedAuth")),
        (partial(request, put={SIGNATURE_HEADER[protocol]: ""}), (401, "MalformedAuth")),
        (partial(request, drop=RECEIVER_HEADER[protocol]), (401, "WrongReceiver")),
        (partial(request, receiver=stranger.ss58), (401, "WrongReceiver")),
        (partial(request, receiver=stranger.ss58, put={RECEIVER_HEADER[protocol]: miner.ss58}), (401, "BadSignature")),
        (partial(request, signer=stranger, put={HOTKEY_HEADER[protocol]: validator.ss58}), (401, "BadSignature")),
        (partial(request, age_s=61), (401, "StaleRequest")),
        (partial(request, age_s=-1), (401, "StaleRequest")),
        (partial(request, body=longer), (401, "BadSignature")),
        (partial(request, signer=stranger), (403, "Refused")),
        (request, (200, "")),
    ]
    settings = server_settings(protocols=[protocol])
    told = asyncio.run(asyncio.wait_for(posts(miner, validator, settings, [sent for sent, _ in cases]), 30))
    assert told == [expected for _, expected in cases]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_that_is_not_configured_is_not_spoken(protocol, validator, miner):
    dialect = DIALECTS[protocol]()

    def request():
        draft = dialect.draft(task(validator.ss58, miner.ss58), "json")
        headers = dialect.sign(validator, draft, miner.ss58, time.time_ns())
        return draft.path, headers | {"Content-Type": draft.content_type}, draft.body

    others = [name for name in PROTOCOLS if name != protocol]
    told = asyncio.run(posts(miner, validator, server_settings(protocols=others), [request]))
    assert told in ([(401, "MalformedAuth")], [(404, "NotFound")])


def test_epistula_signs_its_four_parts(validator, miner):
    dialect = DIALECTS["epistula"]()
    draft = dialect.draft(task(validator.ss58, miner.ss58), "json")
    headers = dialect.sign(validator, draft, miner.ss58, 1_700_000_000_123_456_789)
    message = f"{hashlib.sha256(draft.body).hexdigest()}.{headers['Epistula-Uuid']}.1700000000123.{miner.ss58}"
    signature = bytes.fromhex(headers["Epistula-Request-Signature"][2:])
    assert sr25519.verify(signature, message.encode(), ss58.decode(validator.ss58))


def test_v10_covers_every_field_and_takes_whole_seconds(validator, miner):
    """Each hashed field, altered after signing, breaks the request; a whole number of seconds is the float it means."""
    dialect = DIALECTS["axon_v10"]()
    question = task(validator.ss58, miner.ss58, deadline_s=12.0)

    def request(change):
        draft = dialect.draft(question, "json")
        fields = json.loads(draft.body)
        change(fields)
        headers = dialect.sign(validator, draft, miner.ss58, time.time_ns())
        return draft.path, headers | {"Content-Type": "application/json"}, json.dumps(fields).encode()

    altered = {"task_id": "x", "round": 9, "netuid": 2, "tokens": [[1]], "lengths": [1], "top_k": 1, "deadline_s": 13.0}
    assert set(altered) == set(FIELDS)
    sent = [partial(request, lambda fields, new={name: value}: fields.update(new)) for name, value in altered.items()]
    sent += [partial(request, lambda fields, name=name: fields.pop(name)) for name in FIELDS]
    sent.append(partial(request, lambda fields: fields.update(deadline_s=12, more="ignored")))
    told = asyncio.run(posts(miner, validator, server_settings(protocols=["axon_v10"]), sent))
    assert told == [(401, "BadSignature")] * 14 + [(200, "")]


@pytest.mark.parametrize(
    "age_s, timeout, ok",
    [
        (9, "0", True),
        (11, "0", False),
        (13, "12.0", True),
        (13, "2.0", False),
        (17, "12.0", False),
        (57, "1e9", True),
        (61, "1e9", False),
        (61, "inf", False),
        (9, "nan", True),
        (11, "nan", False),
        (11, "x", False),
        (11, "-5", False),
    ],
)
def test_v10s_window_grows_with_the_time_out_but_not_beyond_the_stores_memory(age_s, timeout, ok, validator, miner):
    dialect, now_ns = DIALECTS["axon_v10"](), time.time_ns()
    draft = dialect.draft(task(validator.ss58, miner.ss58), "json")
    headers = dialect.sign(validator, draft, miner.ss58, now_ns - age_s * 10**9) | {"timeout": timeout}
    if ok:
        assert dialect.read(headers, miner.ss58, now_ns, Freshness()).hotkey == validator.ss58
    else:
        with pytest.raises(StaleRequest):
            dialect.read(headers, miner.ss58, now_ns, Freshness())


def test_a_v10_answer_is_equal_to_the_bit_and_holds_no_nan(validator, miner):
    dialect, asked = DIALECTS["axon_v10"](), task(validator.ss58, miner.ss58, rows=2)
    probs = np.array([[0.1, 1e-30, 0.3], [1 / 3, 2.5e-7, 0.2]], np.float32)
    made = Response(asked.task_id, miner.ss58, np.array([[5, 2, 0], [1, 7, 3]], np.int32), probs, 0.25)
    _, body = dialect.encode_response(None, {}, asked, made)
    read = dialect.decode_response({}, body, asked)
    assert (read.ids == made.ids).all() and read.probs.tobytes() == probs.tobytes() and read.elapsed_s == 0.25
    with pytest.raises(PayloadError, match="probs: JSON has no NaN"):
        dialect.encode_response(None, {}, asked, dataclasses.replace(made, probs=probs * np.float32("nan")))
