"""`raytensor mine` killed with kill -9 at random moments under load: no request answered twice, no training lost.

    python jobs/bench/mine_kills.py --kills 20       about fifteen minutes on two cores
    python jobs/bench/mine_kills.py --kills 2        says that it runs

A miner with two hotkeys trains, saves and is asked by signed HTTP, on an embedded chain. At a random moment the job is
killed; Ray ends its actors; it is started again with the same arguments. After each start:

- every request that was sent before the kill, answered or not, is sent again as it was, byte for byte: none may be
  answered, so that none has two answers;
- training goes on from the newest checkpoint that was complete at the kill, or a later one;
- the addresses on the chain are those of the first start and were not published again; the uids are the same.

Seconds without an answer are from the kill to the first answer to a new request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import aiohttp
import numpy as np
import ray

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.devnet.launch import EmbeddedChain
from raytensor.miners import checkpoints
from raytensor.types import Task
from raytensor.wire.auth import NonceSource
from raytensor.wire.dialects import DIALECTS

ROOT = Path(__file__).resolve().parents[2]
MINERS = [DevKey(f"//kills//miner{number}") for number in (0, 1)]
VALIDATOR = DevKey("//kills//validator")
START_S = 300.0
KEPT_REQUESTS = 200  # of those before a kill, that are sent again after it


class Job:
    """`raytensor mine` as a process; a thread reads its events."""

    def __init__(self, args: list[str], env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "raytensor", "mine", "--json", *args]
        self._process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._events.append(json.loads(line))
                self._changed.notify_all()

    def until(self, kind: str, text: str = "") -> dict[str, Any]:
        """The first event of a kind with this text in it. Raises `TimeoutError`."""

        def found() -> dict[str, Any] | None:
            fit = (event for event in self._events if event["kind"] == kind and text in json.dumps(event))
            return next(fit, None)

        with self._changed:
            if not self._changed.wait_for(lambda: found() is not None, START_S):
                raise TimeoutError(f"no {kind} {text} within {START_S:g} s; the last events: {self._events[-3:]}")
            return found() or {}

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(60)


class Load(threading.Thread):
    """Asks both hotkeys at a steady rate with requests that it keeps as they were sent.

    requests  (headers, body) of the newest. answers: when an answer came, monotonic seconds. statuses: of all, 0 where
              there was no server.
    """

    def __init__(self, url: str, per_s: float, netuid: int) -> None:
        super().__init__(daemon=True)
        self._url, self._per_s, self._netuid = url, per_s, netuid
        self._dialect, self._signer = DIALECTS["btauth"](), VALIDATOR.open()
        self._nonces, self._stopped = NonceSource(time.time_ns), threading.Event()
        self.requests: deque[tuple[dict[str, str], bytes]] = deque(maxlen=KEPT_REQUESTS)
        self.answers: list[float] = []
        self.statuses: Counter[int] = Counter()

    def run(self) -> None:
        asyncio.run(self._ask_all())

    def stop(self) -> None:
        self._stopped.set()
        self.join(timeout=60)

    def again(self) -> list[int]:
        """Statuses of the kept requests, sent again as they are."""
        requests = list(self.requests)
        self.requests.clear()

        async def every() -> list[int]:
            async with aiohttp.ClientSession() as session:
                return [await self._post(session, *request) for request in requests]

        return asyncio.run(every())

    async def _ask_all(self) -> None:
        async with aiohttp.ClientSession() as session:
            running: set[asyncio.Task[None]] = set()
            number = 0
            while not self._stopped.is_set():
                running.add(task := asyncio.create_task(self._one(session, number)))
                task.add_done_callback(running.discard)
                number += 1
                await asyncio.sleep(1 / self._per_s)
            await asyncio.gather(*running)

    async def _one(self, session: aiohttp.ClientSession, number: int) -> None:
        receiver = MINERS[number % 2].ss58
        tokens, lengths = np.full((1, 8), number % 200, np.int32), np.full(1, 8, np.int32)
        task = Task(f"q{number}", 0, self._netuid, VALIDATOR.ss58, receiver, tokens, lengths, 8, 10.0)
        draft = self._dialect.draft(task, "safetensors")
        headers = self._dialect.sign(self._signer, draft, receiver, self._nonces())
        request = (headers | {"Content-Type": draft.content_type}, draft.body)
        self.requests.append(request)
        status = await self._post(session, *request)
        self.statuses[status] += 1
        if status == 200:
            self.answers.append(time.monotonic())

    async def _post(self, session: aiohttp.ClientSession, headers: dict[str, str], body: bytes) -> int:
        """The status; 0 when there is no server."""
        try:
            limit = aiohttp.ClientTimeout(total=15)
            async with session.post(f"{self._url}/ask", data=body, headers=headers, timeout=limit) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0


def registration(client: ChainClient, netuid: int) -> list[Any]:
    """What the chain has of both hotkeys: uid, and the axon with the block at which it was published."""
    keys = [(name, [netuid, key.ss58]) for key in MINERS for name in ("Uids", "Axons")]
    return client.query_many([("SubtensorModule", name, about) for name, about in keys])


def play(args: argparse.Namespace, client: ChainClient, endpoint: str, netuid: int, folder: Path) -> dict[str, Any]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "BT_", "RAYTENSOR_"))}
    address = ray.get_runtime_context().gcs_address
    env |= {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1", "RAY_ADDRESS": address}
    settings = [f"chain.network={endpoint}", f"netuids=[{netuid}]", f"paths.runs={folder / 'runs'}", "data=bytes"]
    settings += [f"paths.cache={folder / 'cache'}", "data.max_documents=200", "miners.warmup_rounds=0"]
    settings += ["miners.profiles=[{hidden: 32, layers: 1, heads: 2, steps: 8, batch_size: 4}]", "miners.seq_len=16"]
    settings += [f"hotkeys=[{MINERS[0].uri},{MINERS[1].uri}]", "miners.wire.ip=127.0.0.2", "pause_s=0.1"]
    settings += ["mechanism.query.context=16", "miners.heldout_rows=16", "miners.checkpoint_every=1"]
    settings += ["miners.cpus_per_host=0.2", "miners.num_hosts=1", f"miners.wire.policy.allow=[{VALIDATOR.ss58}]"]
    job = Job([*settings, "miners.wire.port=0"], env)
    axon = job.until("miner_up")["addresses"][MINERS[0].ss58]
    job.until("receipt_seen", "serve_axon")
    settings.append(f"miners.wire.port={axon.rpartition(':')[2]}")
    draw, load = random.Random(args.seed), Load(f"http://{axon}", args.per_s, netuid)
    before = registration(client, netuid)
    found: dict[str, Any] = {"twice": 0, "again": 0, "lost_rounds": 0, "changed": 0, "silent_s": [], "answered": 0}
    saved_in = folder / "runs/miner/checkpoints"
    load.start()
    for number in range(args.kills):
        job.until("miner_round")
        time.sleep(draw.uniform(0.0, args.most_s))
        job.kill()
        killed_at = time.monotonic()
        newest = min(checkpoints.complete(saved_in, key.ss58)[:1] or [0] for key in MINERS)[0]
        requests = list(load.requests)
        job = Job(settings, env)
        job.until("miner_up")
        resumed = re.findall(r"of round (\d+)", json.dumps(job.until("phase", "the miners continue")))[0]
        while not load.answers or load.answers[-1] < killed_at:  # the job has a limit, and so has `until`
            job.until("miner_up")
            time.sleep(0.05)
        first = next(at for at in load.answers if at > killed_at)
        load.requests = deque(requests, maxlen=KEPT_REQUESTS)
        statuses = load.again()
        found["twice"] += statuses.count(200)
        found["again"] += len(statuses) - statuses.count(0)
        found["lost_rounds"] += max(0, newest - int(resumed))
        found["changed"] += registration(client, netuid) != before
        found["silent_s"].append(first - killed_at)
        what = (
            f"round {newest} saved, {resumed} resumed, {len(statuses)} requests again: {statuses.count(200)} answered"
        )
        print(f"kill {number + 1}: {what}, {first - killed_at:.1f} s without an answer", flush=True)
    load.stop()
    job.kill()
    found["answered"] = len(load.answers)
    print(f"requests by status: {dict(load.statuses)}")
    graph = read_metagraph(client, netuid)
    axons = dict(zip(graph.hotkeys, graph.axons, strict=True))
    found["changed"] += any(axons[key.ss58] != axon for key in MINERS)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--per-s", type=float, default=20.0, help="requests a second")
    parser.add_argument("--most-s", type=float, default=4.0, help="from the first trained round to a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chain = EmbeddedChain(folder / "state", 0.25, folder / "log")
        try:
            with ChainClient(chain.endpoint) as client:
                keys = [("owner", DevKey("//kills//owner")), *(("miner", key) for key in MINERS)]
                neurons = [Neuron(key.uri, role, key, DevKey(key.uri + "//cold")) for role, key in keys]
                netuid = make_subnet(client, SubnetSpec(neurons=neurons, tempo=10)).netuid
                found = play(args, client, chain.endpoint, netuid, folder)
        finally:
            chain.close()
            ray.shutdown()
    silent_s = statistics.median(found["silent_s"])
    rows = [("kills", args.kills, None), ("answered", found["answered"], None), ("sent_again", found["again"], None)]
    rows += [("answered_twice", found["twice"], 0), ("rounds_lost_of_checkpoints", found["lost_rounds"], 0)]
    rows += [
        ("axon_or_registration_changed", found["changed"], 0),
        ("median_s_without_answer", round(silent_s, 1), None),
    ]
    goals = [{"name": n, "value": v, "unit": "", "goal": g, "ok": g is None or v == g} for n, v, g in rows]
    print()
    for row in goals:
        print(
            f"  {row['name']:<30} {row['value']:>10} {'' if row['goal'] is None else 'ok' if row['ok'] else 'MISSED'}"
        )
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(json.dumps({"bench": "mine_kills", "machine": machine, "goals": goals}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
