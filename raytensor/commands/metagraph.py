"""`raytensor metagraph`: the neurons of a subnet at one block, or over its epochs."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from raytensor.chain.reads.follower import Follower, Reads
from raytensor.chain.reads.history import epochs, folder_of, keep_epoch
from raytensor.chain.reads.metagraph import read_metagraph, write_parquet
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output
from raytensor.errors import ChainError, ChainUnavailable, ConfigError
from raytensor.types import Metagraph

SORTS = {"uid": None, "stake": "stake_alpha_rao", "incentive": "incentive", "dividends": "dividends"}
SORTS |= {"emission": "emission_alpha_rao", "updated": "last_update"}
COLUMNS = ("stake_alpha_rao", "validator_permit", "active", "last_update", "block_at_registration", "incentive")
COLUMNS += ("dividends", "consensus", "validator_trust", "emission_alpha_rao")
EPOCH_COLUMNS = ("block", "last_epoch_block", "num_neurons", "stake_alpha_rao", "emission_alpha_rao")
ABOUT = """\
Lists the neurons of a subnet, all read at one block. Incentive, dividends and emission are those of the last epoch;
stake, weights and the block of the last weights are current. Updated: blocks since the last weights.
"""
EXAMPLES = """\
  raytensor metagraph 1
  raytensor metagraph 1 --sort incentive --top 10
  raytensor metagraph 1 --out metagraph.parquet      every column and all weights
  raytensor metagraph 1 --follow history             one file per epoch, until Ctrl-C
  raytensor metagraph 1 --history history            list the epochs in such a folder
  raytensor metagraph 1 --json | jq '.neurons[] | select(.validator_permit)'
"""


def metagraph_main(argv: Sequence[str]) -> int:
    """`raytensor metagraph NETUID`. Returns the exit status."""
    parser = options.parser("metagraph", ABOUT, EXAMPLES)
    parser.add_argument("netuid", metavar="NETUID", type=options.netuid, help="the subnet")
    parser.add_argument("--mechanism", type=options.mecid, default=0, metavar="N", help="its mechanism (default 0)")
    text = "uid in ascending order, any other in descending order (default uid)"
    parser.add_argument("--sort", choices=SORTS, default="uid", help=text)
    parser.add_argument("--top", type=options.count, metavar="N", help="only the first N")
    parser.add_argument("--out", metavar="FILE.parquet", help="write a Parquet file, print no table")
    text = "write a Parquet file for each epoch, until Ctrl-C or --epochs"
    parser.add_argument("--follow", metavar="FOLDER", help=text)
    parser.add_argument("--epochs", type=options.count, metavar="N", help="with --follow: end after N files")
    text = "list the epochs that --follow has written; reads no chain"
    parser.add_argument("--history", metavar="FOLDER", help=text)
    options.add_output(parser)
    options.add_network(parser)
    return output.run("metagraph", parser, argv, _metagraph)


def _metagraph(args: argparse.Namespace) -> None:
    if args.history is not None:
        return _show_history(args)
    if args.follow is not None:
        return _follow(args)
    with ChainClient(options.network(args), args.timeout) as client:
        graph = read_metagraph(client, args.netuid, mecid=args.mechanism, with_weights=args.out is not None)
    if args.out is not None:
        if not Path(args.out).expanduser().parent.is_dir():
            raise ConfigError(f"--out {args.out}: there is no such folder")
        write_parquet(graph, Path(args.out).expanduser())
    names = ("netuid", "block", "block_hash", "tempo", "last_epoch_block", "alpha_price_rao")
    head = {**{name: getattr(graph, name) for name in names}, "num_neurons": len(graph.hotkeys)}
    head["next_epoch_block"] = graph.next_epoch_block if graph.netuid else None  # the root subnet has no epochs
    rows = _rows(graph)
    if column := SORTS[args.sort]:
        rows.sort(key=lambda row: -row[column])
    rows = rows[: args.top]
    if args.json:
        output.show_json({**head, "file": args.out, "neurons": rows})
        return
    left = output.blocks_until(head["next_epoch_block"], graph.block)
    num = len(graph.hotkeys)
    print(f"subnet {graph.netuid} at block {graph.block}: {num} neurons, next epoch in {left} blocks")
    if args.out is not None:
        print(f"written to {args.out}")
        return
    cells = {
        "uid": lambda r: r["uid"],
        "hotkey": lambda r: output.short(r["hotkey"]),
        "stake, alpha": lambda r: output.tao(r["stake_alpha_rao"]),
        "incentive": lambda r: f"{r['incentive'] / 65535:.4f}",
        "dividends": lambda r: f"{r['dividends'] / 65535:.4f}",
        "emission, alpha": lambda r: output.tao(r["emission_alpha_rao"]),
        "permit": lambda r: "yes" if r["validator_permit"] else "",
        "updated": lambda r: graph.block - r["last_update"],
        "axon": lambda r: r["axon"],
    }
    print(output.columns(rows, cells, left=(1, 8)))


def _show_history(args: argparse.Namespace) -> None:
    found = epochs(Path(args.history).expanduser(), args.netuid, args.mechanism)[-(args.top or 0) :]
    rows = [{"file": str(e.path), **{name: getattr(e, name) for name in EPOCH_COLUMNS}} for e in found]
    if args.json:
        output.show_json({"netuid": args.netuid, "epochs": rows})
        return
    cells = {
        "block": lambda r: r["block"],
        "epoch of block": lambda r: r["last_epoch_block"],
        "neurons": lambda r: r["num_neurons"],
        "stake, alpha": lambda r: output.tao(r["stake_alpha_rao"]),
        "emission, alpha": lambda r: output.tao(r["emission_alpha_rao"]),
        "file": lambda r: Path(r["file"]).name,
    }
    print(output.columns(rows, cells, left=(5,)))


def _follow(args: argparse.Namespace) -> None:
    """Write a file per epoch until Ctrl-C or `--epochs`. A chain that does not answer is reported once."""
    folder = Path(args.follow).expanduser()
    where = folder_of(folder, args.netuid, args.mechanism)
    print(f"writing a file per epoch of subnet {args.netuid} to {where}; Ctrl-C stops")
    follower = Follower(options.network(args), [args.netuid], Reads(mecid=args.mechanism), timeout_s=args.timeout)
    follower.start()
    newest, count, reported, started = -1, 0, "", time.monotonic()
    try:
        while args.epochs is None or count < args.epochs:
            time.sleep(0.2)
            graph, trouble = follower.seen(args.netuid).metagraph, follower.seen(args.netuid).trouble
            cause = follower.silence[1]
            if graph is None and trouble:
                raise ChainError(trouble)
            if graph is None and time.monotonic() - started > args.timeout:
                raise ChainUnavailable(f"no metagraph of subnet {args.netuid} within {args.timeout:g} s: {cause}")
            if graph is not None and graph.last_epoch_block != newest:
                newest, count = graph.last_epoch_block, count + 1
                keep_epoch(folder, graph, args.mechanism)
                text = f"block {graph.block}: {len(graph.hotkeys)} neurons after the epoch of block {newest}"
                print(f"{text}, next epoch in {graph.next_epoch_block - graph.block} blocks", flush=True)
            if graph is not None and cause and not reported:
                print(f"the chain does not answer: {cause}", flush=True)
            reported = cause
    except KeyboardInterrupt:
        print(f"{count} files written")
    finally:
        follower.close()


def _rows(graph: Metagraph) -> list[dict]:
    plain = {name: getattr(graph, name).tolist() for name in COLUMNS}
    rows = []
    for uid, (hotkey, coldkey, axon) in enumerate(zip(graph.hotkeys, graph.coldkeys, graph.axons, strict=True)):
        head = {"uid": uid, "hotkey": hotkey, "coldkey": coldkey, "axon": axon}
        rows.append({**head, **{name: plain[name][uid] for name in COLUMNS}})
    return rows
