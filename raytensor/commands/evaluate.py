"""`raytensor evaluate`: the loss of a model on held-out text, with its standard error.

In: a run folder of `raytensor train`, a folder in the format of transformers, or a hub name; text. Out: a table with a
row for each text, or one JSON object. Tasks of lm-eval are an option (`pip install 'raytensor[eval]'`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from raytensor import config
from raytensor.arguments import Parser
from raytensor.commands import output
from raytensor.config.train import TrainConfig
from raytensor.errors import ConfigError

ABOUT = """\
Measures a model on text that it was not trained on: the mean loss over all tokens of fixed sequences, its standard
error and the perplexity. A run folder of `raytensor train` is measured on its own held-out text, and any model on any
files. Losses per token of models with different tokenizers can't be compared. KEY=VALUE are settings of
`raytensor train`: data.*, training.seq_len, training.heldout_rows (sequences per text).
"""
USAGE = "raytensor evaluate MODEL [--set NAME=FILES ...] [--tasks NAME,...] [--json] [KEY=VALUE ...]"
EXAMPLES = """\
  raytensor evaluate runs/small                                    on the held-out part of its own corpus
  raytensor evaluate runs/small --set wiki=/texts/*.txt --set code=/texts/code.jsonl      on named sets of files as well
  raytensor evaluate openai-community/gpt2 training.seq_len=1024 training.heldout_rows=256
  raytensor evaluate runs/small --tasks hellaswag,arc_easy         by lm-eval: pip install 'raytensor[eval]'
"""
HELDOUT = "held-out"
# Settings of a run that say what its held-out text is. The tokenizer is the model's own.
OF_TRAINING = ("seq_len", "heldout_rows")
OF_DATA = ("source", "files", "subset", "split", "column", "heldout_share", "max_documents")
FORMATS = {".txt": "text", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def evaluate_main(argv: Sequence[str]) -> int:
    """`raytensor evaluate MODEL ...`: returns the exit status."""
    args, typed = _parser().parse_with_settings(argv)
    model, settings = locate(args.model, typed)
    settings = [f"training.model={model}", *settings]
    texts: dict[str, TrainConfig] = {HELDOUT: config.compose("train", settings)}
    for name, files in map(_named, args.sets):
        if name in texts:
            raise ConfigError(f"--set {name}={files}: the name {name!r} is taken; give each set a name of its own")
        texts[name] = config.compose("train", [*settings, *_of_files(files)])
    tasks = [task for task in args.tasks.split(",") if task]
    from raytensor.commands import evaluate_model  # imports torch, which `--help` and mistakes do not need

    rows = evaluate_model.rows(texts, whole=[name for name in texts if name != HELDOUT])
    scores = evaluate_model.run_tasks(model, tasks) if tasks else {}
    if args.json:
        output.show_json({"model": model, "texts": rows, "tasks": scores})
        return 0
    heads = ("text", "loss, nats/token", "standard error", "perplexity", "tokens")
    cells = [
        (row["text"], f"{row['loss']:.4f}", f"{row['error']:.4f}", f"{row['perplexity']:.2f}", f"{row['tokens']:,}")
        for row in rows
    ]
    print(output.table(heads, cells))
    for task, numbers in scores.items():
        print(f"{task}: " + ", ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
    return 0


def locate(model: str, settings: Sequence[str]) -> tuple[str, list[str]]:
    """(the model's folder or name, settings): those of a run of `raytensor train` go before the typed ones.

    Raises `ConfigError` for a run folder without an export, or whose configuration can't be read.
    """
    folder = Path(model).expanduser()
    file, export = folder / "config.yaml", folder / "export"
    if not file.is_file():
        return model, list(settings)
    if not export.is_dir():
        raise ConfigError(f"{folder} has no model to evaluate: a run of `raytensor train` writes export/ when it ends")
    try:
        saved: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        own = [f"seed={saved['seed']}"]
        for section, names in (("data", OF_DATA), ("training", OF_TRAINING)):
            own += [
                f"{section}.{name}={saved[section][name]}" for name in names if saved[section].get(name) is not None
            ]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{file} is no configuration of `raytensor train` ({error!r}); name {export}") from error
    return str(export), [*own, *settings]


def _parser() -> Parser:
    to = Parser("raytensor evaluate", usage=USAGE, description=ABOUT, examples=EXAMPLES)
    to.add_argument("model", metavar="MODEL", help="a run folder of `raytensor train`, a model's folder, or a hub name")
    text = "also measure on all text of these files (.txt, .jsonl, .parquet; a file or a glob pattern), under this name"
    to.add_argument("--set", dest="sets", metavar="NAME=FILES", action="append", default=[], help=text)
    to.add_argument("--tasks", metavar="NAME,...", default="", help="also run these tasks of lm-eval")
    to.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return to


def _named(text: str) -> tuple[str, str]:
    name, equals, files = text.partition("=")
    if not (name and equals and files):
        raise ConfigError(f"--set {text}: type NAME=FILES, as --set wiki=/texts/*.txt")
    return name, files


def _of_files(files: str) -> list[str]:
    """The settings of a set of files; the ending says how they are read."""
    ending = Path(files).suffix
    if ending not in FORMATS:
        raise ConfigError(f"--set {files}: the files must end in {', '.join(FORMATS)}")
    quoted = "'" + files.replace("'", "\\'") + "'"
    return [f"data.source={FORMATS[ending]}", f"data.files={quoted}", "data.column=text", "data.max_documents=null"]
