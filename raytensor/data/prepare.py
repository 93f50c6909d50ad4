"""Tokenizes a corpus into a prepared folder (see `shards`), over Ray Data on all CPUs.

    parts of the source -> blocks of whole documents -> one train and one held-out shard each -> manifest

In: the `data` section, a folder that all nodes see. Out: a `Manifest`. A part is some files of the source; its blocks
hold `block_bytes` of text. Shards depend on the source and the settings only, never on the number of CPUs.
A shard is written whole, then its record. A command that was killed goes on with the blocks that have no record.
Bounds: blocks in memory are Ray Data's matter. Knows nothing of the command line.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import ray
import ray.data
from ray.exceptions import RayError

from raytensor import disk
from raytensor.config import Data
from raytensor.data import corpus, shards, tokenizer
from raytensor.data.shards import Manifest, Record
from raytensor.data.text import load_tokenizer
from raytensor.errors import ClusterError, ConfigError, DataError, RayTensorError, cause_of

PLAN, STATE = "plan.json", "state"
MAX_PARTS = 1024
CPUS_PER_READER = 8  # one process reads about as much as eight tokenize
ENCODED = 256  # documents that are encoded together
SOURCE = ("source", "files", "subset", "split", "column", "max_documents", "heldout_share")


class Progress:
    """What has been done: blocks, tokens, and tokens per second of this command."""

    def __init__(self, say: Callable[[str], None], every_s: float = 5.0) -> None:
        self._say, self._every_s = say, every_s
        self._began = self._said = time.monotonic()
        self.num_blocks = self.num_tokens = 0

    def add(self, num_tokens: int) -> None:
        self.num_blocks, self.num_tokens = self.num_blocks + 1, self.num_tokens + num_tokens
        if time.monotonic() - self._said >= self._every_s:
            self._said = time.monotonic()
            self._say(self.line())

    def line(self) -> str:
        per_s = self.num_tokens / max(1e-9, time.monotonic() - self._began)
        return f"{self.num_blocks:,} blocks, {self.num_tokens:,} tokens, {per_s:,.0f} tokens/s"


def prepare(cfg: Data, folder: Path, cache: str, *, block_bytes: int, say: Callable[[str], None]) -> Manifest:
    """Tokenize the corpus of `cfg` into `folder`. Ray is connected. Returns the manifest; at once where it exists.

    say  called with a line for each step.

    Raises `ConfigError` for a folder that holds something else, `DataError` for a source that can't be read.
    """
    if cfg.source in corpus.LOCAL:
        cfg = replace(cfg, files=str(Path(cfg.files or "").expanduser().absolute()) if cfg.files else cfg.files)
    coder = load_tokenizer(cfg, cache)
    num_parts = _num_parts(cfg)
    plan = {"format": shards.FORMAT, "corpus": corpus.fingerprint(cfg), "tokenizer": coder.digest()}
    plan |= {"num_parts": num_parts, "block_bytes": block_bytes, "source": {key: getattr(cfg, key) for key in SOURCE}}
    _begin(folder, plan)
    if (folder / shards.MANIFEST).exists():
        say("the folder is complete already")
        return shards.read_manifest(folder)
    (folder / shards.TOKENIZER).mkdir(exist_ok=True)
    coder.save(folder / shards.TOKENIZER)
    progress = Progress(say)
    done = sum(1 for _ in (folder / STATE).glob("*-*.json"))
    say(f"{num_parts:,} parts" + (f"; {done:,} blocks were done before" if done else ""))
    for num_tokens in _stream(cfg, folder, coder, plan):
        progress.add(num_tokens)
    say(progress.line())
    manifest = _collect(folder, plan, coder)
    manifest.save(folder)
    shutil.rmtree(folder / STATE)
    return manifest


def restart(folder: Path) -> None:
    """Remove what `prepare` has written to a folder, and nothing else."""
    for path in [*folder.glob("*.tokens"), *(folder / name for name in (shards.MANIFEST, PLAN))]:
        path.unlink(missing_ok=True)
    for name in (STATE, shards.TOKENIZER):
        shutil.rmtree(folder / name, ignore_errors=True)


def _begin(folder: Path, plan: dict[str, Any]) -> None:
    """Make the folder, or check that it was begun with this plan."""
    path = folder / PLAN
    if path.exists():
        try:
            begun = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(f"{path} can't be read; fix: --restart prepares the folder anew") from error
        if (folder / shards.MANIFEST).exists():
            plan = plan | {"format": begun.get("format")}  # what is complete is read as it is
        if begun != plan:
            changed = ", ".join(sorted(key for key in plan if begun.get(key) != plan[key]))
            fix = "the same settings, another folder, or --restart"
            raise ConfigError(f"{folder} was prepared from something else (differs: {changed}); fix: {fix}")
        disk.remove_unfinished(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and was not written by this command; fix: name a new folder")
    (folder / STATE).mkdir(parents=True, exist_ok=True)
    disk.write_text(path, json.dumps(plan, indent=1))


def _num_parts(cfg: Data) -> int:
    """Parts of the source that are read side by side: its files, or shards of a hub dataset."""
    if cfg.max_documents is not None:
        return 1  # the first documents are those of the whole source
    return max(1, min(MAX_PARTS, int(corpus.stream(cfg).num_shards)))


def _stream(cfg: Data, folder: Path, coder: tokenizer.Tokenizer, plan: dict[str, Any]) -> Iterator[int]:
    """Run the pipeline; gives the number of tokens of each block that was written."""
    context = ray.data.DataContext.get_current()
    before = context.target_max_block_size, context.enable_progress_bars
    context.target_max_block_size, context.enable_progress_bars = 1, False  # a row of `_read` is a unit of work
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    cpus = int(ray.cluster_resources().get("CPU", 1))
    job = {"cfg": cfg, "folder": str(folder), "num_parts": plan["num_parts"], "block_bytes": plan["block_bytes"]}
    coding = {"folder": str(folder), "share": cfg.heldout_share, "packed": ray.put(coder.packed())}
    try:
        work = ray.data.range(plan["num_parts"], override_num_blocks=plan["num_parts"])
        common = {"batch_format": "pyarrow", "zero_copy_batch": True}
        # Other resources than those of the tasks that encode: Ray Data would make one task of both.
        readers = {"num_cpus": 0, "compute": ray.data.TaskPoolStrategy(size=max(1, cpus // CPUS_PER_READER))}
        work = work.map_batches(_read, batch_size=1, fn_kwargs=job, **common, **readers)
        encode: Any = _encode  # Ray Data's type of a function has no keywords
        work = work.map_batches(encode, batch_size=1, fn_kwargs=coding, num_cpus=1, **common)
        batch: Any
        for batch in work.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from batch["num_tokens"].to_pylist()
    except RayError as error:
        raise _refusal(error) from error
    finally:
        context.target_max_block_size, context.enable_progress_bars = before


def _read(batch: pyarrow.Table, **job: Any) -> Iterator[pyarrow.Table]:
    """The blocks of a part that have no record yet. Runs in a Ray task."""
    cfg, folder = job["cfg"], Path(job["folder"])
    for part in batch["id"].to_pylist():
        count = folder / STATE / f"{part:05d}.count"
        if count.exists() and all(_is_done(folder, part, number) for number in range(int(count.read_text()))):
            continue
        source = corpus.stream(cfg)
        if job["num_parts"] > 1:
            source = source.shard(job["num_parts"], part)
        number = -1
        texts = (row["text"] for row in corpus.rows(cfg, source))
        for number, block in enumerate(_blocks(texts, job["block_bytes"])):
            if not _is_done(folder, part, number):
                column = pyarrow.array([block], pyarrow.large_list(pyarrow.large_binary()))
                yield pyarrow.table({"part": [part], "number": [number], "texts": column})
        disk.write_text(count, str(number + 1))


def _blocks(texts: Iterable[Any], block_bytes: int) -> Iterator[list[bytes]]:
    """Documents without empty ones, in blocks of at least `block_bytes`; the last is smaller."""
    block, size = [], 0
    for text in texts:
        if isinstance(text, str) and text.strip():
            block.append(text.encode("utf-8", "surrogatepass"))
            size += len(block[-1])
            if size >= block_bytes:
                yield block
                block, size = [], 0
    if block:
        yield block


def _encode(batch: pyarrow.Table, *, folder: str, share: float, packed: Any) -> pyarrow.Table:
    """Write the shards of a block, then its record. Runs in a Ray task."""
    coder = _coder(packed)
    total = 0
    for row in batch.to_pylist():
        texts = [text.decode("utf-8", "surrogatepass") for text in row["texts"]]
        heldout = [corpus.is_heldout(text, share) for text in texts]
        found: dict[str, Record | None] = {}
        for name, wanted in (("train", False), ("heldout", True)):
            mine = [text for text, is_held in zip(texts, heldout, strict=True) if is_held == wanted]
            path = f"{name}-{row['part']:05d}-{row['number']:05d}.tokens"
            found[name] = _write(Path(folder), path, mine, coder) if mine else None
        disk.write_text(
            _record_path(Path(folder), row["part"], row["number"]),
            json.dumps({name: asdict(record) if record else None for name, record in found.items()}),
        )
        total += sum(record.num_tokens for record in found.values() if record)
    return pyarrow.table({"num_tokens": [total]})


def _write(folder: Path, name: str, texts: list[str], coder: tokenizer.Tokenizer) -> Record:
    end = np.array([coder.end], np.int32)
    groups = (texts[at : at + ENCODED] for at in range(0, len(texts), ENCODED))
    documents = [np.concatenate([ids, end]) for group in groups for ids in coder.encode(group)]
    text_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return shards.write(folder, name, documents, text_bytes, coder.vocab_size)


_CODERS: dict[Any, tokenizer.Tokenizer] = {}


def _coder(packed: Any) -> tokenizer.Tokenizer:
    """The tokenizer in this worker, made once: a large vocabulary takes a second."""
    if packed not in _CODERS:
        _CODERS.clear()
        _CODERS[packed] = tokenizer.unpack(ray.get(packed))
    return _CODERS[packed]


def _record_path(folder: Path, part: int, number: int) -> Path:
    return folder / STATE / f"{part:05d}-{number:05d}.json"


def _records(folder: Path, part: int, number: int) -> list[Record | None] | None:
    """The train and the held-out shard of a block; None where it is not done."""
    try:
        found = json.loads(_record_path(folder, part, number).read_bytes())
        return [shards.record_of(found[name]) for name in ("train", "heldout")]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_done(folder: Path, part: int, number: int) -> bool:
    found = _records(folder, part, number)
    return found is not None and all(record is None or shards.is_whole(folder, record) for record in found)


def _collect(folder: Path, plan: dict[str, Any], coder: tokenizer.Tokenizer) -> Manifest:
    """The manifest of the blocks, in the order of the source."""
    found: tuple[list[Record], list[Record]] = ([], [])
    for part in range(plan["num_parts"]):
        for number in range(int((folder / STATE / f"{part:05d}.count").read_text())):
            records = _records(folder, part, number)
            assert records is not None, (part, number)
            for kept, record in zip(found, records, strict=True):
                kept.extend([record] if record else [])
    train, heldout = found
    if not train:
        raise DataError(f"data.source={plan['source']['source']!r} holds no text to train on; fix: give more text")
    about = (plan["tokenizer"], coder.vocab_size, coder.end, plan["source"])
    return Manifest(*about, tuple(train), tuple(heldout))


def _refusal(error: BaseException) -> RayTensorError:
    """Our own error that ended a task, or one line with the cause."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, RayTensorError) and not isinstance(inner, RayError):  # Ray's copy has a traceback as text
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    more = "the same command goes on where it was"
    return ClusterError(f"the work on Ray ended: {cause_of(error)}\n  more: {more}")
