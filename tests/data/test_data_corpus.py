"""The corpus: streams from real sources, split by content, refusals with the fix."""

from __future__ import annotations

import ast
import json
import re
import sys
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raytensor.config import Data
from raytensor.data import corpus, stdlib
from raytensor.data.stdlib import stdlib_documents
from raytensor.errors import ConfigError, DataError

TEXTS = [f"document number {i} says something of its own about item {i * i}" for i in range(200)]


def both(cfg: Data) -> tuple[list[str], list[str]]:
    return list(corpus.documents(cfg, heldout=False)), list(corpus.documents(cfg, heldout=True))


def test_the_embedded_corpus_is_english_and_never_imports_what_it_reads():
    already = set(sys.modules)
    stdlib._documents.cache_clear()
    found = list(stdlib_documents())
    # `import this` prints, `import antigravity` opens a browser: sources are parsed, not imported.
    assert not ({"this", "antigravity", "idlelib", "turtle", "tkinter"} & (set(sys.modules) - already))
    assert sum(map(len, found)) > 1_500_000
    assert any("Return a list of words" in text or "list" in text for text in found)
    words = re.findall(r"[a-z]+", " ".join(found[::50]).lower())
    assert words.count("the") / len(words) > 0.03  # English prose: "the" is its commonest word
    assert all(one is other for one, other in zip(stdlib_documents(), found, strict=True)), "read once"


def test_of_the_embedded_corpus_only_what_is_asked_for_is_read(monkeypatch):
    stdlib._documents.cache_clear()
    read, parse = [], ast.parse
    monkeypatch.setattr(stdlib.ast, "parse", lambda source: read.append(source) or parse(source))
    assert len([*islice(stdlib_documents(), 20)]) == 20 and len(read) == 1
    assert len([*islice(stdlib_documents(), 200)]) == 200 and len(read) < 40


def test_train_and_heldout_never_share_a_document():
    train, heldout = both(Data())
    assert not set(train) & set(heldout)
    assert len(train) + len(heldout) == len([text for text in stdlib_documents() if text.strip()])
    assert 0.08 < len(heldout) / (len(train) + len(heldout)) < 0.12


def test_equal_documents_fall_on_the_same_side(tmp_path):
    rows = [{"text": text} for text in TEXTS * 3]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train, heldout = both(Data(source="json", files=str(tmp_path), heldout_share=0.3))
    assert len(train) + len(heldout) == 600
    assert not set(train) & set(heldout)
    assert set(train) | set(heldout) == set(TEXTS)


def test_the_share_is_the_hash_as_a_fraction():
    assert all(not corpus.is_heldout(text, 0.0) and corpus.is_heldout(text, 1.0) for text in TEXTS)
    # A larger share only adds: whoever was held out at 0.2 still is at 0.4.
    at = {share: {text for text in TEXTS if corpus.is_heldout(text, share)} for share in (0.2, 0.4)}
    assert at[0.2] < at[0.4]
    assert corpus.is_heldout("abc", 0.1) is False and corpus.is_heldout("abc", 0.9) is True


def test_local_sources_give_the_same_documents(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"body": text}) for text in TEXTS))
    pq.write_table(pa.table({"body": TEXTS}), tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("\n\n".join(TEXTS))
    (tmp_path / "notes.bak").write_text("not a text file")
    json_docs = both(Data(source="json", files=str(tmp_path), column="body"))
    parquet_docs = both(Data(source="parquet", files=str(tmp_path / "*.parquet"), column="body"))
    text_docs = both(Data(source="text", files=str(tmp_path)))
    assert json_docs == parquet_docs
    assert [[text.strip() for text in side] for side in text_docs] == list(json_docs)


def test_a_limit_on_documents(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    train, heldout = both(Data(source="json", files=str(tmp_path), max_documents=50))
    assert sorted(train + heldout) == sorted(TEXTS[:50])


def test_the_fingerprint_follows_settings_and_files(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("\n\n".join(TEXTS))
    cfg = Data(source="text", files=str(tmp_path))
    first = corpus.fingerprint(cfg)
    assert corpus.fingerprint(cfg) == first
    assert corpus.fingerprint(Data(source="text", files=str(tmp_path), heldout_share=0.2)) != first
    file.write_text("\n\n".join(TEXTS[:-1]))
    assert corpus.fingerprint(cfg) != first


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"source": "text"}, "data.files is not set"),
        ({"source": "text", "files": "{tmp}/none/*.txt"}, "no file matches"),
        ({"source": "json", "files": "{tmp}", "column": "body"}, "the source has the columns text"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_fix(tmp_path, settings, words):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x"}))
    settings = {key: value.format(tmp=tmp_path) for key, value in settings.items()}
    with pytest.raises(ConfigError, match=re.escape(words)):
        list(corpus.documents(Data(**settings), heldout=False))


def test_a_hub_name_without_a_network_says_what_to_do():
    with pytest.raises(DataError, match="data.source=stdlib needs none of them"):
        list(corpus.documents(Data(source="raytensor/no-such-dataset"), heldout=False))


def test_a_deleted_working_directory_is_named(tmp_path, monkeypatch):
    """The operating system's error then has no file name: "[Errno 2] No such file or directory"."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(DataError) as caught:
        list(corpus.documents(Data(), heldout=False))
    assert str(caught.value) == "data.source='stdlib' can't be read: the working directory of this process was deleted"


def test_a_library_that_can_not_be_read_names_file_and_fix(tmp_path, monkeypatch):
    (tmp_path / "a.py").symlink_to("a.py")  # a loop: even root can't read it
    monkeypatch.setattr(stdlib.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    stdlib._documents.cache_clear()
    with pytest.raises(DataError, match=rf"{tmp_path}/a.py: Too many levels.*\n  fix: data.source=text"):
        list(stdlib_documents())
    (tmp_path / "a.py").unlink()
    with pytest.raises(DataError, match=f"under {tmp_path} can't be read: there are none"):
        list(stdlib_documents())
