"""A request ends at its deadline, however the peer keeps the socket busy, and an answer is told as what it is."""

import time

import pytest
from raw_server import Drip, Error, Raw, RawServer, header, node_like

from raytensor.chain.rpc import transport
from raytensor.chain.rpc.connection import Connection, RpcError
from raytensor.errors import ChainUnavailable, FateUnknown

TIMEOUT_S = 0.8
# A connection and a request each have the time-out, and the endpoint is tried twice; doubled for a busy machine.
LIMIT_S = 2 * 4 * TIMEOUT_S


def answering(**special):
    return lambda method, params: special.get(method, node_like(method, params))


def ended_in(ask) -> float:
    started = time.monotonic()
    ask()
    return time.monotonic() - started


def test_an_answer_that_drips_ends_at_the_deadline():
    with RawServer(answering(system_chain=Drip(0.2))) as server, Connection(server.endpoint, TIMEOUT_S) as asked:

        def ask():
            with pytest.raises(ChainUnavailable, match="no answer within 0.8 s"):
                asked.rpc("system_chain")

        assert ended_in(ask) < LIMIT_S
        assert server.requests["system_chain"] == 2


def test_a_submission_whose_answer_drips_has_an_unknown_fate_at_the_deadline():
    special = answering(author_submitExtrinsic=Drip(0.2))
    with RawServer(special) as server, Connection(server.endpoint, TIMEOUT_S) as asked:

        def ask():
            with pytest.raises(FateUnknown):
                asked.rpc("author_submitExtrinsic", ["0x00"])

        assert ended_in(ask) < LIMIT_S
        assert server.requests["author_submitExtrinsic"] == 1


def test_a_handshake_that_drips_ends_at_the_deadline():
    with RawServer(drip_handshake_s=0.2) as server:

        def ask():
            with pytest.raises(ChainUnavailable):
                Connection(server.endpoint, TIMEOUT_S).rpc("system_chain")

        assert ended_in(ask) < LIMIT_S


def test_notifications_do_not_extend_the_deadline_of_a_request():
    with RawServer() as server, Connection(server.endpoint, TIMEOUT_S) as asked:
        asked.rpc("system_chain")

        def flood(method, params):
            end = time.monotonic() + 60
            while method == "system_name" and server.requests["system_name"] < 2 and time.monotonic() < end:
                server.push(header(8))
                time.sleep(0.05)
            return node_like(method, params)

        server.answer = flood

        def ask():
            asked.rpc("system_name")

        assert ended_in(ask) < LIMIT_S


@pytest.mark.parametrize("size", [300_000, 3_000_000])
def test_a_message_above_the_largest_is_refused_by_its_size(monkeypatch, size):
    monkeypatch.setattr(transport, "MAX_MESSAGE", 200_000)
    with RawServer(answering(system_chain="x" * size, system_name="y" * 100_000)) as server:
        with Connection(server.endpoint, 20.0) as asked:
            with pytest.raises(ChainUnavailable, match="a message of more than 200,000 bytes"):
                asked.rpc("system_chain")
            for _ in range(4):  # the limit is per message
                assert asked.rpc("system_name") == "y" * 100_000


@pytest.mark.parametrize("code", [-32603, 4003])
def test_a_missing_function_is_an_answer(code):
    absent = Error(code, "Client error: Execution failed", "Function to start was not found")
    with RawServer(answering(state_call=absent)) as server, RawServer() as other:
        with Connection([server.endpoint, other.endpoint], 20.0) as asked:
            for _ in range(4):  # nor does it count against the endpoint
                with pytest.raises(RpcError, match="Function to start was not found") as caught:
                    asked.rpc("state_call", ["SwapRuntimeApi_current_alpha_price", "0x"])
                assert caught.value.no_function
            assert server.requests["state_call"] == 4 and other.requests["state_call"] == 0


def test_an_internal_error_is_told_as_one_if_no_endpoint_does_better():
    broken = answering(state_call=Error(-32603, "Internal error"))
    with RawServer(broken) as server, RawServer() as other:
        with Connection([server.endpoint, other.endpoint], 20.0) as asked:
            assert asked.rpc("state_call") == "0x00" and asked.endpoint == other.endpoint
        with Connection(server.endpoint, 20.0) as alone, pytest.raises(RpcError, match="Internal error"):
            alone.rpc("state_call")


@pytest.mark.parametrize(
    "payload", [b"[" * 100_000, b'{"id":3,"error":"no"}', b'{"id":3}', b"nonsense", b'{"id":3,"error":null}']
)
def test_a_malformed_answer_to_a_submission_is_an_unknown_fate(payload):
    with RawServer(answering(author_submitExtrinsic=Raw(payload))) as server:
        with Connection(server.endpoint, 20.0) as asked, pytest.raises(FateUnknown):
            asked.rpc("author_submitExtrinsic", ["0x00"])
        assert server.requests["author_submitExtrinsic"] == 1


def test_an_error_without_an_id_is_the_answer():
    payload = b'{"jsonrpc":"2.0","error":{"code":-32007,"message":"Request is too big"},"id":null}'
    with RawServer(answering(state_queryStorageAt=Raw(payload))) as server, Connection(server.endpoint, 20.0) as asked:
        with pytest.raises(RpcError, match="too big"):
            asked.rpc("state_queryStorageAt", [[]])
