"""Local files: literal paths, and content that cannot be read is told in a line with the file, the line and the fix."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest

from raytensor.config import Data
from raytensor.data import corpus, files
from raytensor.errors import ConfigError, DataError

GOOD = b"".join(json.dumps({"text": f"document {i} about nothing"}).encode() + b"\n" for i in range(50))
CASES = [
    ("a.txt", "good text\n\ncafé au lait\n\nmore".encode("latin1"), "line 3 is not UTF-8 (byte 0xe9); fix: convert it"),
    ("a.txt", "hello there".encode("utf-16"), "it is UTF-16, not UTF-8; fix: convert it"),
    ("a.txt", b"", "holds no text: every file is empty"),
    ("a.jsonl", GOOD + '{"text": "café"}\n'.encode("latin1"), "line 51 is not UTF-8 (byte 0xe9)"),
    ("a.jsonl", GOOD + b'{"text": "cut of', "line 51 is not JSON (Unterminated string starting at)"),
    ("a.jsonl", b'{"text": "cut of', "line 1 is not JSON"),
    ("a.jsonl", GOOD + b"[1, 2]\n", "line 51: it is no JSON object: [1, 2]"),
    ("a.jsonl", GOOD + b'{"text": "half \\ud83d of it"}\n', "line 51: 'text' holds half of a surrogate pair"),
    ("a.jsonl", b"", "holds no text: every file is empty"),
    ("a.jsonl", b"\n\n", "holds no text: every file is empty"),
    ("a.parquet", b"nope", "Parquet file size is 4 bytes"),
]
SOURCES = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@pytest.mark.parametrize("check", [corpus.refuse_missing, lambda cfg: list(corpus.documents(cfg, heldout=False))])
@pytest.mark.parametrize("name, content, words", CASES)
def test_what_can_not_be_read_is_one_line_with_file_and_fix(tmp_path, name, content, words, check):
    """Before anything starts, and where a source is read without that check."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        check(Data(source=SOURCES[path.suffix], files=str(path)))
    said = str(caught.value)
    assert words in said and str(path) in said and "\n" not in said


def test_files_with_blank_lines_only_are_empty(tmp_path):
    (tmp_path / "a.txt").write_bytes(b" \n\n\t\n")
    with pytest.raises(DataError, match="holds no text: every file is empty"):
        corpus.refuse_missing(Data(source="text", files=str(tmp_path)))


def test_a_number_in_place_of_a_text_is_found_before_the_start(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(GOOD + b'{"text": 5}\n')
    with pytest.raises(DataError, match="line 51: 'text' is no text: 5; fix: repair or remove the line"):
        corpus.refuse_missing(Data(source="json", files=str(tmp_path)))


def test_what_can_be_read_passes(tmp_path):
    (tmp_path / "bom.txt").write_bytes("\ufeffhello\r\n\r\n😀 world".encode())
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "one.jsonl").write_bytes(GOOD + b'{"text": null}\n{"other": "x"}\n\n')
    (tmp_path / "two.json").write_text(json.dumps([{"text": "a"}, {"text": "b"}], indent=1))
    (tmp_path / "three.json").write_text(json.dumps({"text": "a one"}, indent=1))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"]}), tmp_path / "a.parquet")
    for source in ("text", "json", "parquet"):
        cfg = Data(source=source, files=str(tmp_path), heldout_share=1e-9)
        corpus.refuse_missing(cfg)
        assert list(corpus.documents(cfg, heldout=False))


def test_a_column_is_looked_for(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"body": ["a"], "size": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="the source has the columns body, size"):
        corpus.refuse_missing(Data(source="parquet", files=str(tmp_path)))
    with pytest.raises(DataError, match="the column 'size' is int64, not text"):
        corpus.refuse_missing(Data(source="parquet", files=str(tmp_path), column="size"))
    corpus.refuse_missing(Data(source="parquet", files=str(tmp_path), column="body"))


def test_a_check_before_the_start_is_bounded(tmp_path):
    """What lies beyond the bound is found where it is read."""
    (tmp_path / "a.jsonl").write_bytes(GOOD * 3 + b"{cut")
    cfg = Data(source="json", files=str(tmp_path))
    files.refuse_unreadable(cfg, 1000)
    with pytest.raises(DataError, match="line 151 is not JSON"):
        files.refuse_unreadable(cfg)


@pytest.mark.parametrize("name", ["a[1].txt", "q?.txt", "s*.txt", "#h.txt", "h%20é.txt", "{x}.txt", "a b.txt"])
def test_literal_paths_are_literal(tmp_path, name):
    """Beside a file that the name would match as a pattern."""
    for other in ("a1.txt", "qq.txt", "sss.txt", "x.txt"):
        (tmp_path / other).write_text("another text")
    (tmp_path / name).write_text("the right text")
    cfg = Data(source="text", files=str(tmp_path / name), heldout_share=1e-9)
    assert list(corpus.documents(cfg, heldout=False)) == ["the right text"]


@pytest.mark.parametrize("pattern", ["", "/*.txt", "/**/*.txt"])
def test_a_folder_whose_name_is_like_a_pattern(tmp_path, pattern):
    for folder in ("part[1]", "part1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a[1].txt").write_text(f"text of {folder}")
    cfg = Data(source="text", files=f"{tmp_path}/part[1]{pattern}", heldout_share=1e-9)
    assert list(corpus.documents(cfg, heldout=False)) == ["text of part[1]"]
    both = Data(source="text", files=f"{tmp_path}/part*/a*.txt", heldout_share=1e-9)
    assert sorted(corpus.documents(both, heldout=False)) == ["text of part1", "text of part[1]"]


def test_a_name_that_datasets_would_read_as_an_address_is_refused(tmp_path):
    (tmp_path / "x::y.txt").write_text("text")
    with pytest.raises(ConfigError, match="rename the file"):
        corpus.refuse_missing(Data(source="text", files=str(tmp_path)))
