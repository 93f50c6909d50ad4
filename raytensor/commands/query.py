"""`raytensor query`: ask the best miners of a subnet to continue a text.

In: a subnet, a prompt. Out: the network's answer (each next token is drawn from the miners' distributions, weighted by
incentive), each miner's own answer, its duration and its weight. Miners are asked as validators ask them: by signed
HTTP, at the addresses in the metagraph. With --stream, one miner's own text is printed as it arrives.
The key signs in a process of its own; this process, which reads the miners' answers, never opens it.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from tokenizers import Tokenizer

from raytensor import config
from raytensor.arguments import integer, number
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output, query_miners
from raytensor.commands.query_miners import MinerAnswer, Query, QueryFailed
from raytensor.commands.request_signer import ProcessSigner
from raytensor.config.wire import PROTOCOLS, Client
from raytensor.data import tokenizer
from raytensor.data.text import load_tokenizer
from raytensor.errors import ChainUnavailable, ConfigError
from raytensor.telemetry.event_log import read_events
from raytensor.telemetry.events import NetworkUp, Stopped
from raytensor.telemetry.redact import redacted_keys
from raytensor.types import Metagraph
from raytensor.wire.client import WireClient

ABOUT = """\
Asks the best miners of a subnet that answers next-token tasks to continue a text, by signed HTTP at the addresses in
the metagraph. Prints the mixed answer (each token from all miners, weighted by incentive) and each miner's own answer.
Miners decide whom they serve: most require a registered hotkey with a validator permit.
"""
EXAMPLES = """\
  raytensor query --run runs/demo --prompt "The list is" --wallet.hotkey //raytensor//0//validator//0//hot
  raytensor query --netuid 1 --prompt "The list is" -w mywallet -H myhotkey --tokenizer tokenizer.json
  raytensor query --netuid 1 --prompt "The list is" --top 3 --tokens 64 --json
  raytensor query --netuid 1 --prompt "The list is" --stream      the best miner's own text, as it arrives
"""


@dataclass(frozen=True)
class RunFolder:
    """What a query needs of a `raytensor run`. reason: why the run stopped, None while it runs."""

    folder: str
    endpoint: str
    netuid: int
    data: config.Data
    cache: Path
    context: int
    reason: str | None


def query_main(argv: Sequence[str]) -> int:
    """`raytensor query ...`. Returns the exit status."""
    return output.run("query", _parser(), argv, _query)


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("query", ABOUT, EXAMPLES)
    add = parser.add_argument
    add("--netuid", type=options.netuid, metavar="N", help="the subnet (default: that of --run)")
    add("--prompt", required=True, metavar="TEXT", help="the text to continue")
    add("--run", metavar="FOLDER", help="folder of a `raytensor run`: its chain, subnet and tokenizer")
    text = "bytes, or a tokenizer.json with the subnet's tokens (default: that of --run, else bytes)"
    add("--tokenizer", metavar="bytes|FILE", help=text)
    add("--top", type=options.count, default=5, metavar="K", help="ask the K miners with most incentive (default 5)")
    add("--miner", action="append", metavar="UID|HOTKEY", help="ask this miner; may be repeated")
    add("--tokens", type=integer(1, 65536), default=24, metavar="N", help="length of the answer, at most (default 24)")
    text = "last tokens that a miner is shown (default: the context of the miners of --run, else 24)"
    add("--context", type=integer(1, 65536), metavar="N", help=text)
    add("--top-k", type=integer(1, 4096), default=64, metavar="N", help="next tokens that a miner names (default 64)")
    text = "0 takes the likeliest token each time (default 0)"
    add("--temperature", type=number(0, 100), default=0.0, metavar="T", help=text)
    add("--seed", type=integer(0, 2**53), default=0, metavar="N", help="seed of the sampling (default 0)")
    add("--stream", action="store_true", help="print the best miner's own text as it arrives")
    add("--deadline", type=options.seconds, default=20.0, metavar="SECONDS", help="limit for each answer (default 20)")
    add("--protocol", choices=PROTOCOLS, default="btauth", help="wire protocol of the miners (default btauth)")
    add("--allow-local", action="store_true", help="also ask addresses of private networks (implied by --run)")
    options.add_chain_and_wallet(parser)
    return parser


def _query(args: argparse.Namespace) -> int:
    if not args.prompt:
        raise ConfigError("--prompt: must not be empty")
    key = options.hotkey_ref(args)
    signer = ProcessSigner(key)  # forked before this process has threads or connections
    try:
        run = _run_folder(args.run) if args.run else None
        netuid = args.netuid if args.netuid is not None else run.netuid if run else None
        if netuid is None:
            raise ConfigError("--netuid N is missing (or --run FOLDER)")
        metagraph = _metagraph(args, run, netuid)
        miners = query_miners.choose(metagraph, args.top, args.miner, own=key.ss58)
        allow_local = args.allow_local or run is not None
        query_miners.refuse_unreachable(miners, allow_local=allow_local)
        context = args.context or (run.context if run else config.Query().context)
        sampling = (args.top_k, args.temperature, args.seed, args.deadline)
        query = Query(netuid, key.ss58, args.prompt, args.tokens, context, *sampling)
        settings = Client(protocol=args.protocol, allow_local_addresses=allow_local, deadline_mads=0.0)
        if args.stream:
            asyncio.run(_stream(signer, settings, query, miners, as_json=args.json))
            return 0
        coder = _coder(args.tokenizer, run)
        text = coder.decode(asyncio.run(_continue(signer, settings, query, miners, coder)))
    finally:
        signer.close()
    if args.json:
        head = {"netuid": metagraph.netuid, "block": metagraph.block, "prompt": query.prompt, "mixed": text}
        output.show_json({**head, "answers": [_as_json(one, coder) for one in miners]})
    else:
        _show(f"{query.prompt}{text}\n", miners, coder)
    return 0


def _metagraph(args: argparse.Namespace, run: RunFolder | None, netuid: int) -> Metagraph:
    of_run = run is not None and not args.network
    try:
        with ChainClient([run.endpoint] if run and of_run else options.network(args), args.timeout) as client:
            return read_metagraph(client, netuid, with_weights=False)
    except ChainUnavailable as error:
        if run is None or not of_run:
            raise
        ended = "is not running" if run.reason is None else f"has ended ({run.reason})"
        message = f"--run {run.folder}: the run {ended}, and its chain at {run.endpoint} with it"
        raise QueryFailed(f"{message}; a run can be queried while it runs") from error


async def _continue(
    signer: ProcessSigner, settings: Client, query: Query, miners: list[MinerAnswer], coder: tokenizer.Tokenizer
) -> list[int]:
    async with WireClient(signer, settings) as client:
        return await query_miners.continue_text(client, query, miners, coder)


async def _stream(
    signer: ProcessSigner, settings: Client, query: Query, miners: list[MinerAnswer], *, as_json: bool
) -> None:
    started_at, text, one = time.monotonic(), "", miners[0]
    try:
        async with WireClient(signer, settings) as client:
            async for speaker, piece in query_miners.stream_text(client, query, miners):
                one, text = speaker, text + piece
                if not as_json:
                    print("".join(c for c in piece if c.isprintable() or c in "\n\t"), end="", flush=True)
    except QueryFailed:
        if text and not as_json:
            print()
        raise
    took_s = time.monotonic() - started_at
    if as_json:
        found = {"netuid": query.netuid, "prompt": query.prompt, "uid": one.uid, "hotkey": one.hotkey}
        output.show_json({**found, "weight": one.weight, "text": text, "seconds": round(took_s, 3)})
    else:
        print(f"\n[uid {one.uid} {output.short(one.hotkey)}, weight {one.weight:.4f}, {took_s:.1f} s]")


def _as_json(one: MinerAnswer, coder: tokenizer.Tokenizer) -> dict:
    found = {"uid": one.uid, "hotkey": one.hotkey, "axon": one.axon, "weight": one.weight}
    found |= {"text": coder.decode(one.ids) if one.ids else None, "tokens": len(one.ids)}
    return found | {"median_ms": one.median_ms, "error": one.error or None}


def _show(continued: str, miners: list[MinerAnswer], coder: tokenizer.Tokenizer) -> None:
    print(continued)
    cells = {
        "uid": lambda one: one.uid,
        "hotkey": lambda one: output.short(one.hotkey),
        "weight": lambda one: f"{one.weight:.4f}",
        "ms": lambda one: "-" if one.median_ms is None else f"{one.median_ms:.0f}",
        "tokens": lambda one: len(one.ids),
        "its own answer": lambda one: json.dumps(coder.decode(one.ids), ensure_ascii=False) if one.ids else "",
        "": lambda one: one.error,
    }
    print(output.columns(miners, cells, left=(1, 5, 6)))


def _run_folder(folder: str) -> RunFolder:
    """The run of a folder. Raises ConfigError if it holds none, or one whose chain has not started."""
    path = Path(folder).expanduser()
    if not (path / "config.yaml").is_file():
        raise ConfigError(f"--run {folder}: is not the folder of a run (it has no config.yaml)")
    events = read_events(path / "events.jsonl")
    up = [event for event in events if isinstance(event, NetworkUp)]
    if not up:
        raise ConfigError(f"--run {folder}: its network has not started yet")
    cfg = OmegaConf.load(path / "config.yaml")
    if keys := redacted_keys({"network": up[-1].endpoint, "data": OmegaConf.to_container(cfg.data)}):
        raise ConfigError(
            f"--run {folder}: {', '.join(keys)} is redacted in its files and can't be read back\n"
            "  fix: leave out --run; give --network, --netuid and --tokenizer"
        )
    data = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config.Data), cfg.data))
    assert isinstance(data, config.Data)
    last = events[-1]
    reason = last.reason if isinstance(last, Stopped) else None
    context, cache = int(cfg.miners.seq_len), Path(cfg.paths.cache)
    return RunFolder(folder, up[-1].endpoint, up[-1].netuid, data, cache, context, reason)


def _coder(name: str | None, run: RunFolder | None) -> tokenizer.Tokenizer:
    """The tokenizer of --tokenizer, else of the run, else bytes."""
    if name is None and run is not None:
        return load_tokenizer(run.data, run.cache)
    return read_tokenizer(name or "bytes")


def read_tokenizer(name: str) -> tokenizer.Tokenizer:
    """`bytes`, or that of a tokenizer.json. Raises ConfigError for a file that can't be read."""
    if name == "bytes":
        return tokenizer.ByteTokenizer()
    try:
        return tokenizer.BpeTokenizer(Tokenizer.from_file(str(Path(name).expanduser())))
    except Exception as error:  # the library raises plain Exception
        raise ConfigError(f"--tokenizer {name}: not a readable tokenizer.json ({error})") from error
