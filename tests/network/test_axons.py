"""Miners of a run on the wire: found by the axons on the chain, asked by signed HTTP, the answers those of the run."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raytensor import config
from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.writer import ChainWriter
from raytensor.config import MinerProfile
from raytensor.config.wire import Client
from raytensor.data.text import Text, unigram
from raytensor.devnet.launch import EmbeddedChain
from raytensor.jobs.mine.axons import AxonPublisher
from raytensor.jobs.mine.front import Front
from raytensor.miners.fleet import Fleet
from raytensor.types import Failure, Response, Submission, Task
from raytensor.wire.client import WireClient
from raytensor.wire.codec import Prompt

V = 256
LISTEN = "127.0.0.2"  # loopback, and an address that the chain takes
OWNER, VALIDATOR, STRANGER = (DevKey(f"//axons//{name}") for name in ("owner", "validator", "stranger"))
MINERS = [DevKey(f"//axons//miner{i}") for i in (0, 1)]


@pytest.fixture(scope="module")
def subnet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    chain = EmbeddedChain(folder / "state", 0.2, folder / "log")
    with ChainClient(chain.endpoint) as client:
        keys = [("owner", OWNER), ("validator", VALIDATOR), ("miner", MINERS[0]), ("miner", MINERS[1])]
        neurons = [
            Neuron(key.uri, role, key, DevKey(key.uri + "//cold"), stake_rao=10**11 if role == "validator" else 0)
            for role, key in keys
        ]
        netuid = make_subnet(
            client, SubnetSpec(neurons=neurons, tempo=5, hyperparameters={"sudo_set_serving_rate_limit": 100_000})
        ).netuid
        yield chain.endpoint, netuid, client
    chain.close()


def task(netuid: int, caller: DevKey, hotkey: str, number: int = 0) -> Task:
    draw = np.random.default_rng(number)
    tokens, lengths = draw.integers(0, V, (6, 12)).astype(np.int32), draw.integers(4, 13, 6).astype(np.int32)
    return Task(f"{number}/{hotkey}", 1, netuid, caller.ss58, hotkey, tokens, lengths, 10, 20.0)


def ask(caller: DevKey, tasks, metagraph) -> list:
    async def go():
        async with WireClient(caller.open(), Client(allow_local_addresses=True)) as client:
            return await client.ask_all(tasks, metagraph)

    return asyncio.run(asyncio.wait_for(go(), 60))


def test_a_validator_elsewhere_finds_and_asks_the_miners(ray_session, subnet, tmp_path):
    endpoint, netuid, client = subnet
    draw = np.random.default_rng(0)
    train, heldout = draw.integers(0, V, 4_000).astype(np.uint16), draw.integers(0, V, 1_000).astype(np.uint16)
    text = Text(train, heldout, np.array([0, 4_000]), np.array([0, 1_000]), unigram(train, V), V, 1.0)
    small = MinerProfile(hidden=32, layers=1, heads=2, steps=2, batch_size=4)
    wire = config.MinersWire(enabled=True, host=LISTEN, ip=LISTEN, port=0)
    miners = config.Miners(
        num_miners=2,
        profiles=[small, MinerProfile(behaviour="silent")],
        seq_len=16,
        warmup_rounds=0,
        heldout_rows=16,
        cpus_per_host=0.2,
        wire=wire,
        files=str(tmp_path / "files"),
    )
    cfg = config.RunConfig(
        mechanism=config.Mechanism(files=True),
        miners=miners,
        chain=config.Chain(tempo=5, block_time_s=0.2),
        data=config.Data(tokenizer="bytes"),
    )
    hotkeys = [key.ss58 for key in MINERS]
    fleet = Fleet(cfg, hotkeys, text, num_hosts=1, folder=tmp_path)
    front, said = None, []
    try:
        pids = fleet.wait_ready(240.0)
        writer = ChainWriter(endpoint, {key.ss58: key for key in MINERS}, tmp_path / "journal.sqlite")
        front = Front(cfg, fleet, hotkeys)
        door = AxonPublisher(
            front, endpoint, [netuid], lambda netuid: read_metagraph(client, netuid), writer.submit, said.append
        )
        end = time.monotonic() + 60
        while not any("axons are on the chain" in line for line in said) and time.monotonic() < end:
            door.look()  # as its thread does
        writer.close()
        metagraph = read_metagraph(client, netuid)
        axons = dict(zip(metagraph.hotkeys, metagraph.axons, strict=True))
        assert {hotkey: axons[hotkey] for hotkey in hotkeys} == front.addresses and "axons are on the chain" in said[-1]
        fleet.train(1)
        end = (
            time.monotonic() + 120
        )  # the validator's permit comes with an epoch, and reaches the door with its next look
        question = task(netuid, VALIDATOR, hotkeys[0])
        (answer,) = ask(VALIDATOR, [question], metagraph)
        while isinstance(answer, Failure) and time.monotonic() < end:
            time.sleep(0.5)
            door.look()  # as its thread does
            (answer,) = ask(VALIDATOR, [question], metagraph)
        assert isinstance(answer, Response), answer
        (inside,) = fleet.ask([question])
        np.testing.assert_array_equal(answer.ids, inside.ids)
        np.testing.assert_array_equal(answer.probs, inside.probs)
        (silent,) = ask(VALIDATOR, [task(netuid, VALIDATOR, hotkeys[1])], metagraph)
        (stranger,) = ask(STRANGER, [task(netuid, STRANGER, hotkeys[0])], metagraph)
        assert "no answer" in silent.detail and "not registered" in stranger.detail

        # The file that the miner committed to, and no other.
        asked = replace(
            question,
            task_id="file",
            kind="file",
            tokens=np.zeros((1, 1), np.int32),
            lengths=np.ones(1, np.int32),
            digest=fleet.files[hotkeys[0]],
        )
        (file, none) = ask(VALIDATOR, [asked, replace(asked, task_id="none", digest="0" * 64)], metagraph)
        (within,) = fleet.ask([asked])
        assert (
            isinstance(file, Submission)
            and file.digest == asked.digest
            and file.payload == Path(within.path).read_bytes()
        )
        assert isinstance(none, Failure) and "no answer" in none.detail

        strange = replace(task(netuid, VALIDATOR, hotkeys[0], 5), tokens=np.full((6, 12), V, np.int32))
        (refused,) = ask(VALIDATOR, [strange], metagraph)
        assert f"outside 0 .. {V - 1}" in refused.detail

        # In words: the same distribution, one question a token.
        async def words() -> str:
            async with WireClient(VALIDATOR.open(), Client(allow_local_addresses=True)) as caller:
                prompt = Prompt("p", netuid, VALIDATOR.ss58, hotkeys[0], "\x01\x02\x03\x04", max_tokens=5)
                return "".join([piece async for piece in caller.complete(prompt, axons[hotkeys[0]])])

        expected, seen = [], [1, 2, 3, 4]
        for number in range(5):
            more = Task(
                f"w{number}",
                1,
                netuid,
                VALIDATOR.ss58,
                hotkeys[0],
                np.array([seen], np.int32),
                np.array([len(seen)], np.int32),
                10,
                20.0,
            )
            (found,) = fleet.ask([more])
            expected.append(int(found.ids[0, 0]))
            if expected[-1] == 0:
                break
            seen.append(expected[-1])
        assert asyncio.run(asyncio.wait_for(words(), 60)) == "".join(chr(token) for token in expected if token)

        assert fleet.checkpoint(1)
        os.kill(pids["miner host 0"], signal.SIGKILL)
        fleet.train(2)
        assert all(not isinstance(found, Failure) for found in fleet.ask([question]))
        (again,) = ask(VALIDATOR, [task(netuid, VALIDATOR, hotkeys[0], 3)], metagraph)
        assert isinstance(again, Response)

        # Another port: the chain's rate limit has not passed, and an address that nobody reaches is not published.
        other = Front(cfg, fleet, hotkeys)
        later: list[str] = []

        def submit(intents):
            raise AssertionError(f"{intents} should not be submitted")

        moved = AxonPublisher(other, endpoint, [netuid], lambda netuid: metagraph, submit, later.append)
        end = time.monotonic() + 60
        while not any("rate limit" in line for line in later) and time.monotonic() < end:
            moved.look()
        assert moved.differing(netuid) == hotkeys and "axons are published from block" in later[-1]
        other.close()
        gone = AxonPublisher(other, endpoint, [netuid], lambda netuid: metagraph, submit, later.append)
        gone.look()
        assert "does not answer" in gone.unreachable and later[-1].startswith("the axons are not published: ")
    finally:
        if front is not None:
            front.close()
        fleet.close()
