"""`raytensor data`: tokenize a corpus once into memory-mapped shards, show what a prepared folder holds, verify it.

In: the settings of the `data` section, a folder. Out: the folder, see `raytensor.data.shards`. Waits for: Ray.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raytensor import cluster, config
from raytensor.arguments import integer
from raytensor.commands import options, output
from raytensor.data import corpus, prepare, shards
from raytensor.data.shards import Manifest, Split
from raytensor.errors import ConfigError

ABOUT = """\
Tokenizes a corpus once, over Ray Data on all CPUs, into a folder of memory-mapped shards. `raytensor train` and the
other jobs read it with data.prepared=[DIR]: they start at once, whatever the size of the corpus, train in shuffled
order, and no step waits for a tokenizer.
"""
EXAMPLES = """\
  raytensor data prepare prepared/mine data.source=text data.files=texts
  raytensor data prepare prepared/web data.source=HuggingFaceFW/fineweb data.subset=sample-10BT data.tokenizer=gpt2
  raytensor data show prepared/web
  raytensor data verify prepared/web
  raytensor train "data.prepared=[prepared/mine,prepared/web]" "data.weights=[0.3,0.7]"
"""
PREPARE = """\
Tokenizes a corpus into DIR. The settings are those of the `data` section: source, files, subset, split, column,
tokenizer, vocab_size, heldout_share (`raytensor train --help` explains each), and cluster.address=auto for a cluster,
whose nodes must all see DIR. A command that was stopped or killed goes on where it was when it is given again.
"""


def data_main(argv: Sequence[str]) -> int:
    """`raytensor data ...`: returns the exit status."""
    parser = options.parser("data", ABOUT, EXAMPLES)
    to = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    lines = "".join(f"{line}\n" for line in EXAMPLES.splitlines() if "data prepare" in line)
    one = to.add_parser("prepare", help="tokenize a corpus into a folder", description=PREPARE, examples=lines)
    _add_folder(one)
    one.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of the corpus, as data.source=text")
    text = "MiB of text in a shard (default 32); smaller ones share a small corpus over more CPUs"
    one.add_argument("--shard-mib", type=integer(1, 4096), default=32, metavar="N", help=text)
    one.add_argument("--restart", action="store_true", help="remove what this command wrote to DIR, and begin anew")
    one.set_defaults(act=_prepare)
    one = options.action(
        to, "data", "show", "print what a prepared folder holds", "prepared/web", "prepared/web --json"
    )
    _add_folder(one)
    one.set_defaults(act=_show)
    one = options.action(to, "data", "verify", "compare every byte of a prepared folder with its hash", "prepared/web")
    _add_folder(one)
    one.set_defaults(act=_verify)
    return output.run("data", parser, argv, lambda args: args.act(args))


def _add_folder(to: argparse.ArgumentParser) -> None:
    to.add_argument("folder", type=Path, metavar="DIR", help="the prepared folder")
    output_of = "print one JSON object instead of text"
    to.add_argument("--json", action="store_true", help=output_of)


def _prepare(args: argparse.Namespace) -> None:
    folder = args.folder.expanduser().absolute()
    if odd := [text for text in args.settings if not text.startswith(("data.", "data=", "cluster.", "paths."))]:
        raise ConfigError(f"{odd[0]!r} is no setting of the corpus; it starts with data., cluster. or paths.")
    cfg = config.compose("train", args.settings)
    if cfg.data.prepared:
        raise ConfigError("data.prepared names folders that are prepared already; name a data.source to prepare")
    corpus.refuse_missing(cfg.data)
    if args.restart:
        prepare.restart(folder)
    say = (lambda line: None) if args.json else lambda line: print(f"  {line}", flush=True)
    say(f"starting Ray, reading {cfg.data.source}")
    cluster.connect(cfg.cluster)
    try:
        manifest = prepare.prepare(cfg.data, folder, cfg.paths.cache, block_bytes=args.shard_mib * 2**20, say=say)
    finally:
        cluster.disconnect()
    _print(args, folder, manifest)
    if not args.json:
        print(f'train on it: raytensor train "data.prepared=[{args.folder}]"')


def _show(args: argparse.Namespace) -> None:
    folder = args.folder.expanduser().absolute()
    manifest = shards.read_manifest(folder)
    for part in ("train", "heldout"):
        Split(folder, manifest, part).refuse_cut()  # refuses files that are missing or cut off
    _print(args, folder, manifest)


def _verify(args: argparse.Namespace) -> None:
    folder = args.folder.expanduser().absolute()
    manifest = shards.read_manifest(folder)
    found = [record for part in ("train", "heldout") for record in Split(folder, manifest, part).verify()]
    size = sum(record.size for record in found)
    output.show(args, {"shards": len(found), "bytes": size}, f"{len(found):,} shards, {size:,} bytes: all are whole")


def _print(args: argparse.Namespace, folder: Path, manifest: Manifest) -> None:
    facts: dict[str, Any] = {"folder": str(folder), "source": manifest.source, "tokenizer": manifest.tokenizer}
    facts |= {"vocab_size": manifest.vocab_size, "digest": manifest.digest()}
    lines = []
    for part, records in (("train", manifest.train), ("heldout", manifest.heldout)):
        keys = ("num_tokens", "num_documents", "text_bytes", "size")
        facts[part] = {"shards": len(records)} | {key: sum(getattr(one, key) for one in records) for key in keys}
        one = facts[part]
        lines.append(
            f"{part:<8} {one['num_tokens']:>16,} tokens  {one['num_documents']:>12,} documents  {len(records):,} shards"
        )
    where = f"{folder}: {manifest.source['source']}, vocabulary {manifest.vocab_size:,}, tokenizer {manifest.tokenizer}"
    output.show(args, facts, "\n".join([where, *lines]))
