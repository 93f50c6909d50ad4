"""The `raytensor query` command: asks the best miners of a subnet to go on with a text.

In: a subnet, a prompt. Out: the network's answer (each next token drawn from the miners' distributions, mixed by their
incentive), each miner's own answer, who answered, in how long, at what weight. Miners are asked as validators ask them,
by signed HTTP at the address that the metagraph names. With --stream the best miner's own words come as it says them.
The key signs in a process of its own; this one, which reads what miners send, has none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raytensor import config
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import KeyRef
from raytensor.commands import options, output
from raytensor.config.wire import PROTOCOLS, Client
from raytensor.data import corpus, tokenizer
from raytensor.errors import ConfigError, RayTensorError, WireError
from raytensor.mechanisms.losses import distributions
from raytensor.mechanisms.mixture import mix
from raytensor.pool.forked_worker import ForkedWorker
from raytensor.types import Failure, Metagraph, Response, Task
from raytensor.wire.client import WireClient
from raytensor.wire.codec import Prompt
from raytensor.wire.notary import Notary

ABOUT = """\
Asks the best miners of a subnet that answer next-token questions to go on with a text, by signed HTTP at the addresses
in the metagraph. Prints the mixed answer (each token from all miners, weighted by their incentive) and the single ones.
Miners decide whom they serve: most want a hotkey that is registered, with a validator permit.
"""
EXAMPLES = """\
  raytensor query --run runs/demo --prompt "The list is" --wallet.hotkey //raytensor//0//validator//0//hot
  raytensor query --netuid 1 --prompt "The list is" -w mywallet -H myhotkey --tokenizer tokenizer.json
  raytensor query --netuid 1 --prompt "The list is" --top 3 --tokens 64 --json
  raytensor query --netuid 1 --prompt "The list is" --stream      the best miner's own words, as they come
"""


class QueryFailed(RayTensorError):
    """Nobody answered; says who was asked, and why not."""


@dataclass
class Answered:
    """What one miner gave. ms: median time of an answer; told: why it stopped answering, "" if it did not."""

    uid: int
    hotkey: str
    weight: float
    axon: str
    ids: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    told: str = ""

    @property
    def ms(self) -> float | None:
        return round(1000 * float(np.median(self.times_s)), 1) if self.times_s else None


def query_main(argv: Sequence[str]) -> int:
    """`raytensor query ...`: returns the exit status."""
    parser = options.parser("query", ABOUT, EXAMPLES)
    parser.add_argument("--netuid", type=options.netuid, metavar="N", help="the subnet (default: that of --run)")
    parser.add_argument("--prompt", required=True, metavar="TEXT")
    parser.add_argument("--run", metavar="FOLDER", help="folder of a `raytensor run`: its chain, subnet and tokenizer")
    parser.add_argument(
        "--tokenizer",
        default=None,
        metavar="bytes|FILE",
        help="what the subnet's tokens mean: bytes, or a tokenizer.json (default: that of --run, else bytes)",
    )
    parser.add_argument("--top", type=int, default=5, metavar="K", help="ask the K best miners that serve (default 5)")
    parser.add_argument(
        "--miner", action="append", metavar="UID|HOTKEY", help="ask this one; may be given several times"
    )
    parser.add_argument("--tokens", type=int, default=24, metavar="N", help="of the answer, at most (default 24)")
    parser.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="last tokens that a miner is shown (default: what the miners of --run see, else 24)",
    )
    parser.add_argument(
        "--top-k", type=int, default=64, metavar="N", help="next tokens that a miner names (default 64)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0 takes the likeliest token each time (default 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
    parser.add_argument("--stream", action="store_true", help="print the best miner's own words as they come")
    parser.add_argument(
        "--deadline", type=options.seconds, default=20.0, metavar="SECONDS", help="for each answer (default 20)"
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, default="btauth")
    parser.add_argument(
        "--allow-local",
        action="store_true",
        help="ask addresses of this machine and of private networks, too (--run implies it)",
    )
    options.add_output(parser)
    options.add_network(parser)
    options.add_wallet(parser)
    return output.run("query", parser, argv, _query)


def _query(args: argparse.Namespace) -> int:
    for name, least in (("top", 1), ("tokens", 1), ("context", 1), ("top_k", 1), ("temperature", 0)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(args, name)}: at least {least}")
    if not args.prompt:
        raise ConfigError("--prompt: must not be empty")
    key = options.hotkey_ref(args)
    signer = ProcessSigner(key)  # forked before there is anything else in this process
    try:
        run = _run_folder(args.run) if args.run else {}
        netuid = args.netuid if args.netuid is not None else run.get("netuid")
        if netuid is None:
            raise ConfigError("--netuid N is missing (or --run FOLDER)")
        endpoints = [run["endpoint"]] if "endpoint" in run and not args.network else options.network(args)
        with ChainClient(endpoints, args.timeout) as client:
            metagraph = read_metagraph(client, netuid, with_weights=False)
        args.context = args.context or run.get("context", config.Query().context)
        asked = choose(metagraph, args.top, args.miner, own=key.ss58)
        settings = Client(
            protocol=args.protocol, allow_local_addresses=args.allow_local or bool(args.run), deadline_mads=0.0
        )
        if args.stream:
            return asyncio.run(_stream(args, netuid, signer, settings, asked))
        coder = _coder(args, run)
        mixed = asyncio.run(_continue(args, netuid, signer, settings, metagraph, asked, coder))
    finally:
        signer.close()
    _show(args, metagraph, asked, coder, mixed)
    return 0


def choose(metagraph: Metagraph, top: int, named: Sequence[str] | None = None, own: str = "") -> list[Answered]:
    """Whom to ask: those named, else the `top` best paid that serve an address. Raises `QueryFailed` when nobody does."""
    rows = [
        Answered(uid, hotkey, int(metagraph.incentive[uid]) / 65535, metagraph.axons[uid])
        for uid, hotkey in enumerate(metagraph.hotkeys)
    ]
    where = f"subnet {metagraph.netuid} at block {metagraph.block}"
    if named:
        found = []
        for name in named:
            uid = int(name) if name.isascii() and name.isdigit() else metagraph.uid(name)
            if uid is None or uid >= len(rows):
                raise ConfigError(f"--miner {name}: is not on {where}")
            found.append(rows[uid])
        return found
    serving = [row for row in rows if row.axon and row.hotkey != own]
    if not serving:
        raise QueryFailed(f"nobody serves on {where}: none of its {len(rows)} neurons has published an address")
    return sorted(serving, key=lambda row: (-row.weight, row.uid))[:top]


async def _continue(
    args: argparse.Namespace,
    netuid: int,
    signer: ProcessSigner,
    settings: Client,
    metagraph: Metagraph,
    asked: list[Answered],
    coder: tokenizer.Tokenizer,
) -> list[int]:
    """The mixed answer, token by token; each miner's own goes on in the same requests."""
    (prompt,) = coder.encode([args.prompt])
    mixed: list[int] = []
    draw = np.random.default_rng(args.seed)
    weights = {one.hotkey: one.weight for one in asked}
    axons = {one.hotkey: one.axon for one in asked}
    session = uuid.uuid4().hex[:12]
    async with WireClient(signer, settings) as client:
        for step in range(args.tokens):
            alive = [one for one in asked if not one.told]
            tasks = [
                _task(
                    args, netuid, signer.ss58, one, prompt, mixed, f"query/{session}/{step}/{one.uid}", coder.vocab_size
                )
                for one in alive
            ]
            sent, answers = time.monotonic(), {}
            async for answer in client.ask_each(tasks, axons):
                answers[answer.hotkey] = answer
                next(one for one in alive if one.hotkey == answer.hotkey).times_s.append(time.monotonic() - sent)
            told = []
            for one in alive:
                answer = answers[one.hotkey]
                wrong = _wrong(answer, coder.vocab_size)
                if wrong:
                    one.told = wrong
                    one.times_s.pop()
                    continue
                assert isinstance(answer, Response)
                told.append(Response(answer.task_id, answer.hotkey, answer.ids[:1], answer.probs[:1]))
                one.ids.append(
                    _pick(distributions(answer.ids[1:], answer.probs[1:], coder.vocab_size)[0], args.temperature, draw)
                )
            if not told:
                if mixed:
                    return mixed  # what there is; the table says why it ended
                reasons = "\n".join(
                    f"  uid {one.uid} {one.hotkey} at {one.axon or 'no address'}: {one.told}" for one in asked
                )
                raise QueryFailed(f"none of the {len(asked)} miners that were asked answered:\n{reasons}")
            mixed.append(_pick(mix(told, weights, coder.vocab_size)[0], args.temperature, draw))
            if mixed[-1] == tokenizer.END:
                break
    return mixed


def _task(
    args: argparse.Namespace,
    netuid: int,
    caller: str,
    one: Answered,
    prompt: np.ndarray,
    mixed: list[int],
    task_id: str,
    vocab_size: int,
) -> Task:
    """Two contexts: the end of the mixed answer so far, and of the miner's own."""
    rows = [[*prompt.tolist(), *mixed][-args.context :], [*prompt.tolist(), *one.ids][-args.context :]]
    lengths = np.array([max(1, len(row)) for row in rows], np.int32)
    tokens = np.zeros((2, int(lengths.max())), np.int32)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
    return Task(task_id, 0, netuid, caller, one.hotkey, tokens, lengths, min(args.top_k, vocab_size), args.deadline)


def _wrong(answer: Any, vocab_size: int) -> str:
    """Why an answer can't be used, "" if it can."""
    if isinstance(answer, Failure):
        return f"{answer.reason.value}: {answer.detail}" if answer.detail else answer.reason.value
    ids, probs = answer.ids, answer.probs
    good = (
        ids.ndim == 2
        and len(ids) == 2
        and ids.shape[1] >= 1
        and ids.min() >= 0
        and np.isfinite(probs).all()
        and (probs >= 0).all()
    )
    if not good or probs.sum(axis=1).max() > 1.001:
        return "malformed: no distribution over next tokens"
    return (
        ""
        if ids.max() < vocab_size
        else f"malformed: names tokens beyond {vocab_size}: another tokenizer? give --tokenizer"
    )


def _pick(distribution: np.ndarray, temperature: float, draw: np.random.Generator) -> int:
    if temperature == 0:
        return int(distribution.argmax())
    powered = np.exp(np.log(np.maximum(distribution, 1e-30)) / temperature)
    return int(draw.choice(len(powered), p=powered / powered.sum()))


async def _stream(
    args: argparse.Namespace, netuid: int, signer: ProcessSigner, settings: Client, asked: list[Answered]
) -> int:
    """The words of the first miner that talks, best paid first."""
    async with WireClient(signer, settings) as client:
        for one in asked:
            prompt = Prompt(
                uuid.uuid4().hex,
                netuid,
                signer.ss58,
                one.hotkey,
                args.prompt,
                args.tokens,
                args.temperature,
                args.seed,
                args.deadline,
            )
            started, text = time.monotonic(), ""
            try:
                async for piece in client.complete(prompt, one.axon):
                    text += piece
                    if not args.json:
                        print("".join(c for c in piece if c.isprintable() or c in "\n\t"), end="", flush=True)
            except WireError as error:
                one.told = str(error)
                if text:
                    print()
                    raise QueryFailed(f"uid {one.uid} broke off after {len(text)} letters: {error}") from error
                continue
            took_s = time.monotonic() - started
            if args.json:
                output.show_json(
                    {
                        "netuid": netuid,
                        "prompt": args.prompt,
                        "uid": one.uid,
                        "hotkey": one.hotkey,
                        "weight": one.weight,
                        "text": text,
                        "seconds": round(took_s, 3),
                    }
                )
            else:
                print(f"\n[uid {one.uid} {output.short(one.hotkey)}, weight {one.weight:.4f}, {took_s:.1f} s]")
            return 0
    reasons = "\n".join(f"  uid {one.uid} {one.hotkey} at {one.axon or 'no address'}: {one.told}" for one in asked)
    raise QueryFailed(f"none of the {len(asked)} miners that were asked talks:\n{reasons}")


def _show(
    args: argparse.Namespace, metagraph: Metagraph, asked: list[Answered], coder: tokenizer.Tokenizer, mixed: list[int]
) -> None:
    text = coder.decode(mixed)
    if args.json:
        output.show_json(
            {
                "netuid": metagraph.netuid,
                "block": metagraph.block,
                "prompt": args.prompt,
                "mixed": text,
                "answers": [
                    {
                        "uid": one.uid,
                        "hotkey": one.hotkey,
                        "axon": one.axon,
                        "weight": one.weight,
                        "text": coder.decode(one.ids) if one.ids else None,
                        "tokens": len(one.ids),
                        "median_ms": one.ms,
                        "error": one.told or None,
                    }
                    for one in asked
                ],
            }
        )
        return
    print(f"{args.prompt}{text}\n")
    cells = [
        (
            one.uid,
            output.short(one.hotkey),
            f"{one.weight:.4f}",
            "-" if one.ms is None else f"{one.ms:.0f}",
            len(one.ids),
            json.dumps(coder.decode(one.ids), ensure_ascii=False) if one.ids else "",
            one.told,
        )
        for one in asked
    ]
    print(output.table(("uid", "hotkey", "weight", "ms", "tokens", "its own answer", ""), cells, left=(1, 5, 6)))


def _run_folder(folder: str) -> dict[str, Any]:
    """Endpoint, netuid and `data` section of a run."""
    from omegaconf import OmegaConf

    from raytensor.telemetry.event_log import read_events
    from raytensor.telemetry.events import NetworkUp

    path = Path(folder).expanduser()
    if not (path / "config.yaml").is_file():
        raise ConfigError(f"--run {folder}: holds no run (config.yaml is missing)")
    up = [event for event in read_events(path / "events.jsonl") if isinstance(event, NetworkUp)]
    if not up:
        raise ConfigError(f"--run {folder}: its network is not up (yet)")
    cfg = OmegaConf.load(path / "config.yaml")
    data = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config.Data), cfg.data))
    return {
        "endpoint": up[-1].endpoint,
        "netuid": up[-1].netuid,
        "data": data,
        "cache": Path(cfg.paths.cache),
        "context": int(cfg.miners.seq_len),
    }


def _coder(args: argparse.Namespace, run: Mapping[str, Any]) -> tokenizer.Tokenizer:
    if args.tokenizer is None and "data" in run:
        data = run["data"]
        return tokenizer.load(
            data.tokenizer,
            data.vocab_size,
            corpus.fingerprint(data),
            lambda: corpus.documents(data, heldout=False),
            run["cache"],
        )
    if args.tokenizer in (None, "bytes"):
        return tokenizer.ByteTokenizer()
    from tokenizers import Tokenizer

    try:
        return tokenizer.BpeTokenizer(Tokenizer.from_file(str(Path(args.tokenizer).expanduser())))
    except Exception as error:  # the library raises its own bare Exception
        raise ConfigError(f"--tokenizer {args.tokenizer}: is no tokenizer.json that can be read: {error}") from error


class ProcessSigner:
    """A `Signer` whose key is opened, and signs, in a child process; it signs requests of the wire only."""

    blocking = True

    def __init__(self, key: KeyRef) -> None:
        self.ss58 = key.ss58
        self._lock = threading.Lock()
        self._child = ForkedWorker(_LazyNotary(self.ss58, key), limit_s=30.0)
        self.crypto_type: int = self._child.call("scheme")

    def sign(self, message: bytes) -> bytes:
        with self._lock:
            return self._child.call("sign", message)

    def close(self) -> None:
        self._child.close()


class _LazyNotary:
    """Opens the key at the first call, which is in the child."""

    def __init__(self, ss58: str, key: KeyRef) -> None:
        self._ss58, self._key = ss58, key
        self._notary: Notary | None = None

    def scheme(self) -> int:
        return self._open().schemes()[self._ss58]

    def sign(self, message: bytes) -> bytes:
        return self._open().sign(self._ss58, message)

    def _open(self) -> Notary:
        if self._notary is None:
            self._notary = Notary({self._ss58: self._key})
        return self._notary
