"""`raytensor gateway`: OpenAI's own client, a real server, a chain, and miners that are served over the wire."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import openai
import pytest

from raytensor import cli, config
from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.bulk_submitter import BulkSubmitter
from raytensor.chain.intents import ServeAxon
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.commands.request_signer import ProcessSigner
from raytensor.config.gateway import Routing
from raytensor.config.wire import AccessPolicy, Server
from raytensor.devnet.launch import EmbeddedChain
from raytensor.errors import ConfigError
from raytensor.jobs.gateway.keys import Key, KeyFile, OverQuota, Usage
from raytensor.jobs.gateway.routing import Router
from raytensor.jobs.gateway.server import GatewayServer
from raytensor.jobs.gateway.work import ChainWatch, save_usage
from raytensor.types import Failure, Reason
from raytensor.wire.server import WireServer

ROOT = Path(__file__).parents[2]
CALLER = DevKey("//gateway//caller")
MINERS = [DevKey(f"//gateway//miner{number}") for number in range(3)]
NOON_S = 1_800_014_400.0  # noon of a day of UTC: no window of a quota ends during a test


class ServedMiners:
    """Three servers. They answer three words; the first one hangs on "hang" and breaks off on "break"."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.servers = [self.call(self._start(number)) for number in range(len(MINERS))]
        self.hung = threading.Event()  # the first miner was asked a prompt on which it hangs

    def call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def stop(self, number: int) -> None:
        self.call(self.servers[number][0].stop(0.1))

    async def _start(self, number: int) -> tuple[WireServer, int]:
        async def ask(task):
            return Failure(task.task_id, task.hotkey, Reason.SILENT, "prompts only")

        async def complete(prompt):
            if number == 0 and "hang" in prompt.text:
                self.hung.set()
                await asyncio.Event().wait()
            yield "one "
            if number == 0 and "break" in prompt.text:
                raise RuntimeError("broken")
            for word in ("two ", "three "):
                yield word

        settings = Server(host="127.0.0.2", port=0, policy=AccessPolicy(allow=[CALLER.ss58]))
        server = WireServer(MINERS[number].ss58, ask, settings, complete=complete)
        return server, (await server.start())[1]


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """(endpoint, netuid, miners, signer)."""
    signer = ProcessSigner(CALLER)
    folder = tmp_path_factory.mktemp("chain")
    chain = EmbeddedChain(folder / "state", 0.25, folder / "log")
    miners = ServedMiners()
    with ChainClient(chain.endpoint) as client:
        keys = [("owner", DevKey("//gateway//owner")), ("miner", CALLER), *(("miner", key) for key in MINERS)]
        neurons = [Neuron(key.uri, role, key, DevKey(key.uri + "//cold")) for role, key in keys]
        netuid = make_subnet(client, SubnetSpec(neurons=neurons, tempo=100)).netuid
        step = BulkSubmitter(client, 60.0)
        for key, (_, port) in zip(MINERS, miners.servers, strict=True):
            step.add(key.open(), ServeAxon(signer=key.ss58, netuid=netuid, ip="127.0.0.2", port=port).call())
        step.run()
    yield chain.endpoint, netuid, miners, signer
    for number in range(len(MINERS)):
        miners.stop(number)
    miners.loop.call_soon_threadsafe(miners.loop.stop)
    chain.close()
    signer.close()


class Served:
    """A gateway that listens, and a key for it."""

    def __init__(self, net, folder, **routing: object) -> None:
        endpoint, self.netuid, self.miners, signer = net
        self.model = f"subnet-{self.netuid}"
        self.file = KeyFile(folder / "keys.json")
        self.key = self.file.add("alice")
        typed = [f"netuids=[{self.netuid}]", f"chain.network={endpoint}", f"keys={self.file.path}", "port=0"]
        typed += ["asking.allow_local_addresses=true", "limits.max_body_bytes=4096", "limits.max_tokens=200"]
        cfg = config.compose("gateway", typed)
        cfg.routing = dataclasses.replace(cfg.routing, **routing)
        self.server = GatewayServer(cfg, signer, folder / "usage.json", clock=lambda: NOON_S)

    def client(self, key: str | None = None) -> openai.OpenAI:
        return openai.OpenAI(api_key=key or self.key, base_url=self.server.url, max_retries=0)

    def metric(self, line: str) -> float:
        with urllib.request.urlopen(self.server.url.removesuffix("/v1") + "/metrics") as answer:
            found = [row for row in answer.read().decode().splitlines() if row.startswith(line + " ")]
        return float(found[0].split()[-1]) if found else 0.0

    def __enter__(self) -> Served:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def gate(net, tmp_path_factory):
    """A gateway that never hedges."""
    with Served(net, tmp_path_factory.mktemp("gate"), max_parallel=1) as served:
        yield served


def test_openais_client_reads_models_and_answers(gate):
    client = gate.client()
    assert [one.id for one in client.models.list()] == [gate.model]
    answer = client.completions.create(model=gate.model, prompt="count", max_tokens=50)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("one two three ", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 14)
    said = [{"role": "user", "content": "count"}]
    chat = client.chat.completions.create(model=gate.model, messages=said, max_tokens=7)
    assert (chat.choices[0].message.content, chat.choices[0].finish_reason) == ("one two", "length")
    assert gate.metric(f'raytensor_gateway_requests_total{{model="{gate.model}",status="200"}}') >= 2


def test_a_stream_comes_in_the_pieces_of_the_miner(gate):
    client, said = gate.client(), [{"role": "user", "content": "count"}]
    more = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model=gate.model, messages=said, **more))
    assert [one.choices[0].delta.content for one in chunks if one.choices] == ["", "one ", "two ", "three ", None]
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].usage.completion_tokens == 14
    pieces = [one.choices[0].text for one in client.completions.create(model=gate.model, prompt="count", stream=True)]
    assert "".join(pieces) == "one two three "


def test_refusals_have_openais_shape_and_name_the_field(gate):
    with pytest.raises(openai.AuthenticationError) as caught:
        gate.client("rt-wrong").models.list()
    assert caught.value.code == "invalid_api_key" and caught.value.body["type"] == "authentication_error"
    client = gate.client()
    for settings, field in (
        ({"max_tokens": 201}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"stop": ["x"]}, "stop"),
        ({"n": 2}, "n"),
        ({"prompt": ""}, "prompt"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(**{"model": gate.model, "prompt": "count", **settings})
        assert caught.value.param == field and field in caught.value.message
    with pytest.raises(openai.NotFoundError, match=gate.model):
        client.completions.create(model="gpt-9", prompt="count")
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model=gate.model, input="x")
    assert caught.value.code == "not_found"
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(model=gate.model, prompt="x" * 5000)
    assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")


def test_a_quota_ends_a_key_and_a_removed_key_ends_at_once(gate):
    key = gate.file.add("bob", tokens_per_day=60)
    client = gate.client(key)
    client.completions.create(model=gate.model, prompt="count", max_tokens=50)  # reserves 55, uses 19
    client.completions.create(model=gate.model, prompt="count", max_tokens=30)  # 38 in all
    with pytest.raises(openai.RateLimitError) as caught:
        client.completions.create(model=gate.model, prompt="count", max_tokens=30)
    assert caught.value.code == "rate_limit_exceeded" and "60 tokens per day, 22 left" in caught.value.message
    assert int(caught.value.response.headers["retry-after"]) == 43_201
    gate.file.remove("bob")
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_an_answer_that_breaks_off_is_begun_anew_but_not_in_a_stream(net, tmp_path):
    with Served(net, tmp_path, max_parallel=1) as gate:
        answer = gate.client().completions.create(model=gate.model, prompt="break")
        assert answer.choices[0].text == "one two three "
        assert gate.metric("raytensor_gateway_broken_answers_total") == 1
    (tmp_path / "again").mkdir()
    with Served(net, tmp_path / "again", max_parallel=1) as gate:
        with pytest.raises(openai.APIError, match="broke off"):
            list(gate.client().completions.create(model=gate.model, prompt="break", stream=True))


def test_a_slow_miner_gets_a_rival(net, tmp_path):
    with Served(net, tmp_path, hedge_initial_s=0.05) as gate:
        raw = gate.client().completions.with_raw_response.create(model=gate.model, prompt="hang")
        assert gate.miners.hung.is_set(), "the first miner was asked first"
        assert raw.headers["x-raytensor-miner"] in {key.ss58 for key in MINERS[1:]}
        assert raw.parse().choices[0].text == "one two three "
        assert gate.metric(f'raytensor_gateway_hedges_total{{model="{gate.model}"}}') >= 1
    used = json.loads((tmp_path / "usage.json").read_text())
    assert used["alice"]["total"][1:] == [1, 4 + 14]


def test_the_job_serves_until_it_is_stopped(net, tmp_path):
    endpoint, netuid = net[:2]
    key = KeyFile(tmp_path / "keys.json").add("alice")
    typed = [f"netuids=[{netuid}]", f"hotkey={CALLER.uri}", f"chain.network={endpoint}", f"paths.runs={tmp_path}"]
    typed += [f"keys={tmp_path / 'keys.json'}", "port=0", "asking.allow_local_addresses=true", "--json"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("BT_")} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "raytensor", "gateway", *typed]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        texts = (json.loads(line).get("text", "") for line in process.stdout)
        ready = next(text for text in texts if text.startswith("ready at "))
        body = json.dumps({"model": f"subnet-{netuid}", "prompt": "count", "max_tokens": 24}).encode()
        headers = {"Authorization": f"Bearer {key}"}
        request = urllib.request.Request(f"{ready.split()[2]}/completions", body, headers)
        with urllib.request.urlopen(request) as answer:
            told = answer.read().decode()
        assert json.loads(told)["choices"][0]["text"] == "one two three "
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait(30)
    assert json.loads((tmp_path / "gateway/usage.json").read_text())["alice"]["total"][1:] == [1, 19]


def test_dead_miners_are_passed_over_until_none_is_left(net, tmp_path):
    miners, again = net[2], tmp_path / "again"
    again.mkdir()
    miners.stop(0)
    with Served(net, tmp_path, max_parallel=1) as gate:
        raw = gate.client().completions.with_raw_response.create(model=gate.model, prompt="count")
        assert raw.headers["x-raytensor-miner"] in {key.ss58 for key in MINERS[1:]}
    for number in (1, 2):
        miners.stop(number)
    with Served(net, again, max_parallel=1) as gate:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as caught:
                gate.client().completions.create(model=gate.model, prompt="count", stream=stream)
            assert (caught.value.status_code, caught.value.code) == (503, "no_miner_answered")
            assert caught.value.body["type"] == "server_error" and "connect" in caught.value.message
        assert gate.metric("raytensor_gateway_in_flight") == 0


# ------------------------------------------------------------------------------------------------------- pure parts


def test_keys_are_stored_as_hashes_and_printed_once(tmp_path, capsys):
    path = tmp_path / "new" / "keys.json"
    more = ["--file", str(path)]
    assert cli.main(["gateway", "keys", "add", "alice", "--tokens-per-day", "9", *more]) == 0
    key = capsys.readouterr().out.split()[0]
    assert key not in path.read_text() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyFile(path).find(key).tokens_per_day == 9 and KeyFile(path).find(key + "x") is None
    assert cli.main(["gateway", "keys", "add", "alice", *more]) == 2
    assert cli.main(["gateway", "keys", "list", *more]) == 0
    assert "alice" in capsys.readouterr().out
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        KeyFile(path).find(key)


def test_quotas_count_by_window_and_survive_the_process(tmp_path):
    now = [NOON_S]
    usage, key = Usage(tmp_path / "usage.json", lambda: now[0]), Key("a", "", requests_per_minute=2, tokens_per_day=100)
    usage.reserve(key, 60)
    with pytest.raises(OverQuota, match="100 tokens per day, 40 left"):
        usage.reserve(key, 41)
    usage.settle(key, 60, 10)
    usage.reserve(key, 41)
    with pytest.raises(OverQuota, match="2 requests per minute"):
        usage.reserve(key, 1)
    now[0] += 60
    usage.reserve(key, 1)
    usage.save()
    again = Usage(tmp_path / "usage.json", lambda: now[0])
    assert again.of("a") == {"minute": (1, 1), "day": (3, 52), "total": (3, 52)}
    now[0] += 86_400
    assert again.of("a") == {"minute": (0, 0), "day": (0, 0), "total": (3, 52)}


def test_hedges_follow_the_measured_quantile():
    router = Router(Routing(hedge_quantile=0.5, hedge_min_s=0.1, hedge_initial_s=7.0), "", allow_local=True)
    for took_s in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0):
        router.asked("5Miner")
        router.answered(1, "5Miner", took_s)
    assert router.hedge_after_s(1) == 7.0, "too few are measured"
    router.asked("5Miner")
    router.answered(1, "5Miner", 8.0)
    assert router.hedge_after_s(1) == 4.5 and router.hedge_after_s(2) == 7.0


def test_a_chain_that_stops_to_answer_is_told_once_and_its_end_too():
    shown = []
    chain = ChainWatch(shown.append)
    for silent_s in (0.0, 30.0, 61.0, 70.0, 0.0, 0.0):
        chain.look(silent_s, "connection refused")
    assert [event.text for event in shown] == [
        "the chain has not answered for 61 s: connection refused",
        "the chain answers again",
    ]


def test_usage_that_can_not_be_written_is_told_once_and_ends_nothing(tmp_path):
    """Before, a full disk ended the gateway within five seconds."""
    (tmp_path / "folder").mkdir()
    usage, shown, trouble = Usage(tmp_path / "folder" / "usage.json", lambda: 0.0), [], ""
    (tmp_path / "folder").rmdir()
    (tmp_path / "folder").write_text("a file in the folder's place")
    key = Key("alice", "hash")
    usage.reserve(key, 3)
    for _ in range(3):
        trouble = save_usage(usage, trouble, shown.append)
        assert trouble
    assert len(shown) == 1 and shown[0].text.startswith("the usage can't be written: ")
    (tmp_path / "folder").unlink()
    (tmp_path / "folder").mkdir()
    assert save_usage(usage, trouble, shown.append) == "" and len(shown) == 1
    assert "alice" in (tmp_path / "folder" / "usage.json").read_text()
