"""`raytensor validate` on many subnets with many hotkeys: nothing refused, nobody charged, weights in every tempo.

    python jobs/bench/validate_scale.py                                                      about three minutes
    python jobs/bench/validate_scale.py --subnets 64 --miners 64 --hotkeys 4 --tempo 360 --minutes 30

An embedded chain, one process that serves every miner over signed HTTP, and the job as a user types it, each a process
of its own. The miners check every signature, clock and nonce as those of strangers do, and answer at once, so any
failure is the load's and any charge for it is wrong. Measured from the first weights on the chain:

- refusals that the miners counted, by reason, and failures that the validator recorded, by reason;
- (subnet, hotkey) pairs that missed a tempo: their newest weights are older than one tempo and `--slack-blocks`;
- CPU time of the job's processes (without the chain and the miners) for each question, from /proc;
- resident memory of the same processes: growth from the first third of the samples to the last, medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from raytensor import config
from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.bulk_submitter import BulkSubmitter
from raytensor.chain.calls import Call
from raytensor.chain.intents import ServeAxon
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.config.wire import AccessPolicy, Server
from raytensor.data.text import prepare
from raytensor.devnet.launch import EmbeddedChain
from raytensor.types import Response, Task
from raytensor.wire.server import WireServer

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.2"  # the chain refuses 127.0.0.1
MARK = "RAYTENSOR_SCALE_BENCH"  # in the environment of every process of the job
RAO = 10**9
MAX_DOCUMENTS = 200
START_S = 900.0


def next_token_table(cache: str) -> tuple[np.ndarray, np.ndarray]:
    """(int32 [V, V], float32 [V, V]): next tokens by falling probability after each token, and their probabilities.

    Counts of pairs in the training text, smoothed by the frequencies of tokens: better than those frequencies alone,
    which an answer must beat to be paid.
    """
    text = prepare(config.Data(tokenizer="bytes", max_documents=MAX_DOCUMENTS), Path(cache), lambda words: None)
    train, size = text.train.astype(np.int64), text.vocab_size
    pairs = np.bincount(train[:-1] * size + train[1:], minlength=size * size).reshape(size, size)
    alone = (np.bincount(train, minlength=size) + 1.0) / (len(train) + size)
    table = (pairs + 5 * alone) / (pairs.sum(1, keepdims=True) + 5)
    ids = np.argsort(-table, axis=1, kind="stable").astype(np.int32)
    return ids, (0.999 * np.take_along_axis(table, ids, 1)).astype(np.float32)


async def serve(cache: str, validators: list[str], miners: list[str]) -> None:
    """Serve every miner on one port, print the port, and the refusals so far for each line of the standard input."""
    ids, probs = next_token_table(cache)

    async def ask(task: Task) -> Response:
        last = task.tokens[np.arange(len(task.lengths)), task.lengths - 1]
        return Response(task.task_id, task.hotkey, ids[last, : task.top_k], probs[last, : task.top_k])

    server = WireServer(miners, ask, Server(host=HOST, port=0, policy=AccessPolicy(allow=validators)))
    print((await server.start())[1], flush=True)
    read = asyncio.get_running_loop().run_in_executor
    while await read(None, sys.stdin.readline):
        print(json.dumps(server.gate.totals()), flush=True)
    await server.stop(0.5)


def build(client: ChainClient, args: argparse.Namespace, keys: list[DevKey]) -> dict[int, list[DevKey]]:
    """Create the subnets: netuid -> its miners."""
    # Else the price of a subnet doubles with each one, and Alice can't pay for many.
    price = {
        "sudo_set_network_min_lock_cost": {"lock_cost": 100 * RAO},
        "sudo_set_lock_reduction_interval": {"interval": 1},
    }
    calls = [Call("AdminUtils", name, values) for name, values in price.items()]
    client.send(
        Call("Sudo", "sudo", {"call": Call("Utility", "batch_all", {"calls": calls})}), DevKey("//Alice").open()
    )
    step = BulkSubmitter(client, 60.0)
    for key in keys:
        funds = {"dest": DevKey(f"{key.uri}//cold").ss58, "value": 200 * args.subnets * RAO}
        step.add(DevKey("//Alice").open(), Call("Balances", "transfer_keep_alive", funds))
    step.run()
    found: dict[int, list[DevKey]] = {}
    for number in range(args.subnets):
        miners = [DevKey(f"//scale//{number}//miner//{n}") for n in range(args.miners)]
        owner = DevKey(f"//scale//{number}//owner")
        roles = [(owner, "owner", 0), *((key, "validator", 100 * RAO) for key in keys)]
        roles += [(key, "miner", 0) for key in miners]
        neurons = [Neuron(key.uri, role, key, DevKey(f"{key.uri}//cold"), stake) for key, role, stake in roles]
        settings = {"sudo_set_serving_rate_limit": 0}
        netuid = make_subnet(client, SubnetSpec(neurons, tempo=args.tempo, hyperparameters=settings)).netuid
        found[netuid] = miners
        print(f"\rsubnet {number + 1} of {args.subnets}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def publish(client: ChainClient, miners: dict[int, list[DevKey]], port: int) -> None:
    step = BulkSubmitter(client, 60.0)
    for netuid, keys in miners.items():
        for key in keys:
            step.add(key.open(), ServeAxon(signer=key.ss58, netuid=netuid, ip=HOST, port=port).call())
    step.run()


def processes(mark: str) -> dict[int, tuple[float, int]]:
    """{pid: (CPU seconds, resident bytes)} of the processes that have `mark` in their environment."""
    found, wanted = {}, f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted not in (entry / "environ").read_bytes():
                continue
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            pages = int((entry / "statm").read_text().split()[1])
        except OSError:  # it ended meanwhile, or it is another user's
            continue
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        found[int(entry.name)] = cpu_s, pages * os.sysconf("SC_PAGE_SIZE")
    return found


class Events:
    """The events of the job, read once each."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def new(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._at += len(line)
                yield json.loads(line)


def start_job(args: argparse.Namespace, endpoint: str, netuids: list[int], keys: list[DevKey], folder: Path, mark: str):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "BT_", "RAYTENSOR_"))}
    env |= {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", MARK: mark}
    settings = ["name=v", f"paths.runs={folder / 'runs'}", f"paths.cache={folder / 'cache'}", "data=bytes"]
    settings += [
        f"data.max_documents={MAX_DOCUMENTS}",
        f"chain.network={endpoint}",
        "asking.allow_local_addresses=true",
    ]
    settings += [f"hotkeys=[{','.join(key.uri for key in keys)}]", f"netuids=[{','.join(map(str, netuids))}]"]
    settings += [f"chain.margin_blocks={args.tempo // 4}", f"chain.rounds_per_tempo={args.rounds_per_tempo}"]
    command = [sys.executable, "-m", "raytensor", "validate", "--json", *settings, *args.settings]
    log = (folder / "validate.log").open("wb")
    return subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)


def watch(args: argparse.Namespace, job: Any, client: ChainClient, pairs: set[Any], events: Events, mark: str) -> Any:
    """Watch the job for `args.minutes` from the first weights of all pairs, and return the figures."""
    newest: dict[tuple[int, str], int] = {}
    failures, late, samples, questions = Counter(), set(), [], 0
    began, first = time.monotonic(), None
    cpu: dict[int, tuple[float, float]] = {}  # pid -> CPU seconds at its first sample, at its newest
    while first is None or time.monotonic() - first < 60 * args.minutes:
        assert job.poll() is None, f"the job ended with {job.returncode}"
        assert first is not None or time.monotonic() - began < START_S, f"no weights of all within {START_S:g} s"
        for event in events.new():
            if event["kind"] == "round_done":
                failures.update(event["failures"])
                questions += event["asked"] if first is not None else 0
            elif event["kind"] == "receipt_seen" and event["fate"] == "included":
                newest[event["netuid"], event["signer"]] = event["block"]
        if first is None and set(newest) >= pairs:
            first = time.monotonic()
        if first is not None:
            head, found = client.head().number, processes(mark)
            late |= {pair for pair in pairs if head - newest[pair] > args.tempo + 1 + args.slack_blocks}
            cpu |= {pid: (cpu.get(pid, (now, now))[0], now) for pid, (now, _) in found.items()}
            samples.append(sum(memory for _, memory in found.values()))
        time.sleep(1.0)
    third = max(1, len(samples) // 3)
    grown = statistics.median(samples[-third:]) / statistics.median(samples[:third]) - 1
    cpu_ms = 1000 * sum(last - begin for begin, last in cpu.values()) / max(1, questions)
    return questions, failures, late, cpu_ms, statistics.median(samples), grown


def stop_job(job: Any) -> None:
    job.send_signal(signal.SIGINT)
    try:
        job.wait(120)
    except subprocess.TimeoutExpired:
        job.kill()


def play(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    keys = [DevKey(f"//scale//validator//{n}") for n in range(args.hotkeys)]
    with ExitStack() as stack:
        chain = EmbeddedChain(folder / "chain", args.block_s, folder / "chain.log")
        stack.callback(chain.close)
        client = stack.enter_context(ChainClient(chain.endpoint, 60.0))
        miners = build(client, args, keys)
        everyone = [key.ss58 for keys_ in miners.values() for key in keys_]
        (folder / "served.json").write_text(json.dumps([str(folder / "cache"), [key.ss58 for key in keys], everyone]))
        command = [sys.executable, __file__, "--serve", str(folder / "served.json")]
        served = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert served.stdin is not None and served.stdout is not None
        stack.callback(served.wait, 60)
        stack.callback(served.stdin.close)
        publish(client, miners, int(served.stdout.readline()))
        mark = uuid.uuid4().hex
        job = start_job(args, chain.endpoint, list(miners), keys, folder, mark)
        stack.callback(stop_job, job)
        events = Events(folder / "runs/v/events.jsonl")
        pairs = {(netuid, key.ss58) for netuid in miners for key in keys}
        try:
            questions, failures, late, cpu_ms, memory, grown = watch(args, job, client, pairs, events, mark)
        except (AssertionError, TimeoutError):
            print((folder / "validate.log").read_text()[-3000:], file=sys.stderr)
            raise
        served.stdin.write("\n")
        served.stdin.flush()
        totals = json.loads(served.stdout.readline())
    print(f"requests at the miners: {totals}; failures at the validator: {dict(failures)}; late: {sorted(late)[:5]}")
    refused = sum(count for outcome, count in totals.items() if outcome != "ok")
    rows = [("questions", questions, "", None), ("refused_by_miners", refused, "requests", 0)]
    rows += [("honest_miners_charged", sum(failures.values()), "questions", 0)]
    rows += [("pairs_without_weights_in_a_tempo", len(late), f"of {len(pairs)}", 0)]
    rows += [("cpu_per_question", round(cpu_ms, 2), "ms", None), ("memory", round(memory / 2**20), "MiB", None)]
    rows += [("memory_growth", round(grown, 3), "of the first third's median", 0.05)]
    return [{"name": n, "value": v, "unit": u, "goal": g, "ok": g is None or v <= g} for n, v, u, g in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("subnets", 4), ("miners", 8), ("hotkeys", 2), ("tempo", 60), ("rounds-per-tempo", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--slack-blocks", type=int, default=20, help="weights may be this much later than a tempo")
    parser.add_argument("--block-s", type=float, default=0.25, help="seconds between blocks")
    parser.add_argument("--minutes", type=float, default=1.0, help="after the first weights of all")
    parser.add_argument("--serve", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="more settings of `raytensor validate`")
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(*json.loads(Path(args.serve).read_text())))
        return 0
    with tempfile.TemporaryDirectory() as name:
        goals = play(args, Path(name))
    print(f"\n{args.subnets} subnets x {args.miners} miners x {args.hotkeys} hotkeys, tempo {args.tempo}")
    for row in goals:
        told = "" if row["goal"] is None else "ok" if row["ok"] else "MISSED"
        print(f"  {row['name']:<34} {row['value']:>10} {row['unit']:<28} {told}")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(json.dumps({"bench": "validate_scale", "machine": machine, "goals": goals}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
