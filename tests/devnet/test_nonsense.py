"""Nonsense on the wire: each gets the error of a real node, and the node serves on."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time

import pytest
from fuzzing import JUNK, UNASKED, Fuzz
from signing import ALICE, BOB, compact, prefixed, signed, to_hex, transfer_call
from websocket import ABNF, WebSocketException, create_connection


@pytest.fixture
def client(devnet, raw):
    made = raw(devnet)
    yield made
    # whatever was sent, a new client is served
    assert raw(devnet).call("system_chain") == "Bittensor"


@pytest.mark.parametrize(
    "text, code",
    [
        ("", -32700),
        ("{", -32700),
        ("nonsense", -32700),
        ("\x00\x01", -32700),
        ("[" * 100_000, -32700),
        ("[]", -32600),
        ("1", -32600),
        ('"x"', -32600),
        ("null", -32600),
        ('{"id":1}', -32600),
        ('{"id":1,"jsonrpc":"2.0","method":5}', -32600),
        ('{"id":1,"jsonrpc":"2.0","method":"system_chain","params":"x"}', -32600),
        ('{"id":{"a":1},"jsonrpc":"2.0","method":"system_chain"}', -32600),
        ('{"id":1,"jsonrpc":"2.0","method":"no_such_method"}', -32601),
        ('{"id":1,"jsonrpc":"2.0","method":"state_getStorage","params":["zz"]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"state_getStorage","params":[5]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"state_getStorage"}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"state_getStorage","params":["0x","0x","0x"]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"state_getStorage","params":{"nokey":1}}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"chain_getBlockHash","params":["x"]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"chain_getBlockHash","params":[-1]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"chain_getBlockHash","params":[true]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"state_getKeysPaged","params":["0x","many"]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"system_accountNextIndex","params":["5xyz"]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"state_call","params":["Core_version","0x00"]}', 4003),
        ('{"id":1,"jsonrpc":"2.0","method":"state_call","params":["AccountNonceApi_account_nonce","0x00"]}', 4003),
        ('{"id":1,"jsonrpc":"2.0","method":"dev_newBlock","params":[{"count":0}]}', -32602),
        ('{"id":1,"jsonrpc":"2.0","method":"dev_setStorage","params":[[["0x00","0x00"]]]}', -32602),
    ],
)
def test_bad_requests(client, text, code):
    client.send(text)
    assert client.receive()["error"]["code"] == code


def test_notifications_get_no_answer_and_bad_batch_items_get_theirs(client):
    client.send('{"jsonrpc":"2.0","method":"system_chain"}')
    client.send('[{"jsonrpc":"2.0","method":"system_chain"},5,{"jsonrpc":"2.0","id":"a","method":"system_name"}]')
    replies = client.receive()
    assert [reply.get("id") for reply in replies] == [None, "a"] and replies[0]["error"]["code"] == -32600


def test_a_batch_beyond_the_limit_is_refused_whole(client):
    client.send("[" + ",".join(['{"jsonrpc":"2.0","id":1,"method":"system_chain"}'] * 10_001) + "]")
    assert client.receive()["error"]["code"] == -32010


GENESIS = b"\1" * 32
GOOD = signed(transfer_call(BOB.public_key, 1), ALICE, 0, GENESIS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        GOOD[:-1],
        GOOD[:40],
        GOOD + b"\0",
        compact(1 << 40) + GOOD,
        prefixed(b"\x85" + bytes(150)),
        prefixed(b"\x84" + b"\5" + bytes(150)),
        prefixed(b"\x84\0" + bytes(32) + b"\3" + bytes(100)),
        signed(b"\xfe\xfe", ALICE, 0, GENESIS),
        signed(b"\5\xfe", ALICE, 0, GENESIS),
        signed(b"\5\3\0", ALICE, 0, GENESIS),
        signed(b"\x0b\0" * 20 + b"\0", ALICE, 0, GENESIS),
        signed((b"\x0b\0\4" * 12) + b"\0\0\0", ALICE, 0, GENESIS),  # batches nested twelve deep
        signed(transfer_call(BOB.public_key, 1), ALICE, 0, GENESIS, era=b"\x00\xff"),
    ],
    ids=lambda data: f"{len(data)} bytes {data[:4].hex()}",
)
def test_extrinsics_that_do_not_decode(client, data):
    reply = client.request("author_submitExtrinsic", [to_hex(data)])
    assert reply["error"]["code"] == 1001 and "invalid format" in reply["error"]["message"]


def test_a_watch_that_is_refused_leaves_no_subscription(client):
    reply = client.request("author_submitAndWatchExtrinsic", [to_hex(GOOD)])
    assert reply["error"] == {"code": 1010, "message": "Invalid Transaction", "data": "Transaction has a bad signature"}
    assert client.request("author_submitAndWatchExtrinsic", [to_hex(b"\0")])["error"]["code"] == 1001
    assert client.call("author_unwatchExtrinsic", ["none"]) is False


def test_big_frames(client):
    client.send('"' + "a" * 10_000_000 + '"')
    assert client.receive()["error"]["code"] == -32600
    client.send('"' + "a" * 16_000_000 + '"')
    assert client.receive()["error"] == {
        "code": -32007,
        "message": "Request is too big",
        "data": "Exceeded max limit of 15728640",
    }
    assert client.call("system_chain") == "Bittensor"


def test_a_frame_beyond_every_limit_ends_the_connection(devnet):
    connection = create_connection(devnet.endpoint, timeout=60)
    with pytest.raises((WebSocketException, ConnectionError, OSError)):
        connection.send("a" * 40_000_000)
        while connection.recv_data()[0] != ABNF.OPCODE_CLOSE:
            pass
        raise ConnectionError("closed by the node, as it should")


def test_binary_frames_and_broken_handshakes(client, devnet):
    client.socket.send_binary(b'{"id":7,"jsonrpc":"2.0","method":"system_chain"}')
    assert client.receive()["result"] == "Bittensor"
    host, port = devnet.endpoint.removeprefix("ws://").split(":")
    for junk in (
        b"\x16\x03\x01\x00\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 5000,
        b"POST / HTTP/1.1\r\nContent-Length: 9",
    ):
        with socket.create_connection((host, int(port)), timeout=60) as plain:
            plain.sendall(junk)


def test_a_thousand_open_sockets(manual, raw):
    """Half of them say nothing, half have asked for heads, and get the next one."""
    host, port = manual.endpoint.removeprefix("ws://").split(":")
    silent, listening = [], []
    try:
        for _ in range(500):
            silent.append(socket.create_connection((host, int(port)), timeout=60))
            listening.append(create_connection(manual.endpoint, timeout=60))
            listening[-1].send('{"jsonrpc":"2.0","id":1,"method":"chain_subscribeNewHeads"}')
        for client in listening:
            assert "result" in json.loads(client.recv())
            assert json.loads(client.recv())["params"]["result"]["number"] == "0x0"
        raw(manual).call("dev_newBlock")
        for client in listening:
            assert json.loads(client.recv())["params"]["result"]["number"] == "0x1"
    finally:
        for one in (*silent, *listening):
            one.close()
    assert raw(manual).call("system_chain") == "Bittensor"


def test_a_slow_reader_does_not_hold_up_others(devnet, raw):
    slow = create_connection(devnet.endpoint, timeout=60)
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "state_getMetadata"})
    for _ in range(600):  # about 60 MB of replies that nobody reads
        slow.send(request)
    quick = raw(devnet)
    started = time.monotonic()
    assert quick.call("system_chain") == "Bittensor"
    assert time.monotonic() - started < 60
    slow.close()


NUM_INPUTS = int(os.environ.get("RAYTENSOR_FUZZ", "100000"))


@pytest.mark.parametrize("seed", range(4))
def test_fuzzed_requests_always_get_a_json_rpc_answer(seed):
    """100,000 inputs in all (RAYTENSOR_FUZZ: more), straight into the dispatcher of a node, with blocks between."""
    fuzz = Fuzz(seed)
    asyncio.run(fuzz.run(NUM_INPUTS // 4))
    assert fuzz.included > NUM_INPUTS // 800, "hardly anything was carried out"


def test_fuzzed_requests_through_a_socket(instant, raw):
    """The same inputs through a real port, many on their way at once."""
    fuzz, client = Fuzz(99), raw(instant)
    for _ in range(20):
        for text in fuzz.requests(100):
            client.send(text)
        client.send('{"jsonrpc":"2.0","id":"done","method":"system_chain"}')
        while not (isinstance(reply := client.receive(), dict) and reply.get("id") == "done"):
            for one in reply if isinstance(reply, list) else [reply]:
                assert one["jsonrpc"] == "2.0" and one.get("error", {}).get("code") != -32603
        assert reply["result"] == "Bittensor"


def test_every_method_refuses_parameters_of_the_wrong_kind(instant, raw):
    """Nothing but results, or the errors of a real node, whatever is given to whichever parameter."""
    client = raw(instant)
    for name in client.call("rpc_methods")["methods"]:
        if name in UNASKED:
            continue
        for value in JUNK[:-2]:
            for params in ([value], [value, value], ["0x", value], ["0x", 1, value]):
                reply = client.request(name, params)
                code = reply.get("error", {}).get("code", 0)
                assert code in (0, -32602, 1001, 4002, 4003, 9001), (name, params, reply)
    assert client.call("system_chain") == "Bittensor"
