"""The documents: README leads to the index, the index to every page, and every link to a file that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SECTIONS = ["1. Introduction", "2. Skills required", "3. Usage", "4. API reference", "5. How it works"]


def links(page: Path) -> list[str]:
    return [link for link in LINK.findall(page.read_text()) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for link in links(page):
        assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_index_has_the_five_sections_and_every_page():
    text = (DOCS / "README.md").read_text()
    places = [text.index(f"**{section}**") for section in SECTIONS]
    assert places == sorted(places)
    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} == set(links(DOCS / "README.md"))


def test_readme_links_the_index():
    assert "docs/README.md" in links(ROOT / "README.md")


@pytest.mark.parametrize("page", sorted(DOCS.glob("usage_*.md")), ids=lambda page: page.name)
def test_a_usage_page_begins_with_what_one_gets_and_a_command(page):
    lines = page.read_text().splitlines()
    assert lines[0].startswith("# Usage: ") and lines[2].startswith("You get ")
    assert any(line.startswith(("    raytensor ", "    ray ", "```")) for line in lines[:16])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_pages_name_are_there(page):
    for name in re.findall(r"`(raytensor/[\w/]+\.py|jobs/[\w/]+\.py|tests/[\w/]+\.py)`", page.read_text()):
        assert (ROOT / name).exists(), f"{page.name}: {name}"
