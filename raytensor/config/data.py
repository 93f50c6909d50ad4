"""The settings of the text that models train on, and which models bring a tokenizer of their own."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from raytensor.config.checks import Section, setting

ARCHITECTURES = ("llama", "mistral", "qwen2", "gpt2")
MODEL_SIZES = ("1M", "5M", "20M", "124M", "350M", "1.2B", "8B")


def is_preset(model: str) -> bool:
    """Whether a model is named by its size: no folder, and no hub name."""
    architecture, _, size = model.rpartition("-")
    return size in MODEL_SIZES and architecture in ("", *ARCHITECTURES)


@dataclass
class Data(Section):
    # Source of the text: "stdlib" (the documentation and docstrings of Python's standard library, no download), or what
    # `datasets.load_dataset` takes: "text", "json", "parquet" for local files, or a hub dataset: NAME or NAME@REVISION.
    source: str = "stdlib"
    # Files of a local source: a file, a folder or a glob pattern.
    files: str | None = None
    # Configuration name of a hub dataset.
    subset: str | None = None
    # Split of the source that is read.
    split: str = "train"
    # Column that holds the text.
    column: str = "text"
    # Largest number of documents to read; null reads all.
    max_documents: int | None = None
    # Share of the documents that is held out: it is never trained on, and validators ask about no other text.
    heldout_share: float = setting(0.1, above=0, below=1)
    # "auto": the tokenizer of the model where one from a folder or the hub is trained, else "bpe". "bpe" trains a
    # byte-pair tokenizer on the training part and caches it; "bytes" uses the 256 byte values. Any other text is a
    # folder with a tokenizer.json, or a hub name.
    tokenizer: str = setting("auto", path="model")
    # Size of the vocabulary of "bpe".
    vocab_size: int = setting(1024, least=257)
    # Folders of `raytensor data prepare`, read instead of a source; they hold the tokenizer, which is taken for "auto".
    prepared: list[str] = setting(make=list)
    # Share of the training sequences from each folder of `prepared`, in order; empty: in proportion to their tokens.
    weights: list[float] = setting(make=list)
    # Cut `train`'s sequences at the ends of documents: attention and positions start anew with each document.
    document_masks: bool = False

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if len(set(self.prepared)) < len(self.prepared):
            yield "prepared", "names a folder twice; give it a larger weight in data.weights"
        if self.weights and len(self.weights) != len(self.prepared):
            yield "weights", f"must have a weight for each of the {len(self.prepared)} folders of data.prepared"


def settle_tokenizer(data: Data, models: Iterable[str | None]) -> None:
    """Models without a tokenizer of their own take "bpe" for "auto"; others are looked at when the job starts. Prepared
    folders bring the tokenizer that they were made with."""
    data.prepared = [str(Path(folder).expanduser().absolute()) for folder in data.prepared]
    if data.tokenizer == "auto" and data.prepared:
        data.tokenizer = str(Path(data.prepared[0], "tokenizer"))
    if data.tokenizer == "auto" and all(model is None or is_preset(model) for model in models):
        data.tokenizer = "bpe"
