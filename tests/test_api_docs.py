"""docs/api.md is what jobs/api_docs.py writes, and says signature, types, fields and errors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def load():
    spec = importlib.util.spec_from_file_location("api_docs", ROOT / "jobs" / "api_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date():
    assert (ROOT / "docs" / "api.md").read_text() == load().page(), "run python jobs/api_docs.py"


def test_the_reference_says_types_fields_and_errors():
    text = load().page()
    assert len(text.splitlines()) < 2400
    assert "**`Failure(item_id: str, hotkey: str, reason: Reason, detail: str = '')`** (dataclass)" in text
    assert "`epoch(inputs: EpochInput, *, implementation: str='fast', threads: int | None=None) -> EpochOutput`" in text
    assert "  - `stake_frac`: uint64: the stake weight as an I64F64" in text
    assert "Raises ConfigError." in text and "Raises ChainUnavailable" in text
    for title in load().GROUPS:
        assert f"## {title}\n\n### `raytensor." in text
