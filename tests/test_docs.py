"""The documents: README leads to the index, the index to every page, and every link to a file that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*TOP, *sorted(DOCS.glob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PLACEHOLDER = re.compile(r"NAME|TOPIC|PALLET")
SECTIONS = ["1. Introduction", "2. Skills required", "3. Usage", "4. API reference", "5. How it works"]


def links(page: Path) -> list[str]:
    return [link for link in LINK.findall(page.read_text()) if "://" not in link]


def is_there(name: str) -> bool:
    """Whether a path of the repository or of the package exists, or has a placeholder for a name."""
    return bool(PLACEHOLDER.search(name)) or any((folder / name).exists() for folder in (ROOT, ROOT / "raytensor"))


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
    for name in re.findall(r"`((?:raytensor|jobs|tests|conf|examples)/[\w/]+\.\w+)`", page.read_text()):
        assert is_there(name), f"{page.name}: {name}"


def rows(page: Path, header: str) -> list[list[str]]:
    """The cells of each row of every table whose header begins with `header`."""
    found, inside = [], False
    for line in page.read_text().splitlines():
        inside = line.startswith(header) or (inside and line.startswith("|"))
        if inside and not line.startswith((header, "|---")):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_files_to_open_for_a_change_are_there_and_at_most_two():
    table = rows(ROOT / "CONTRIBUTING.md", "| change | open |")
    assert len(table) == 20
    for change, opened, _ in table:
        for name in re.findall(r"`([\w/]+\.\w+)`", opened):
            assert is_there(name), f"{change}: {name}"


def test_the_walk_names_files_that_are_there_each_once():
    for header, most in (("| from `Task` to `Weights`", 15), ("| from `Weights` to `Receipt`", 12)):
        walk = [re.match(r"(\d+)\. `([\w/]+\.py)`$", cells[0]) for cells in rows(DOCS / "how_it_works.md", header)]
        assert all(walk) and max(int(step[1]) for step in walk) == most
        names = [step[2] for step in walk]
        assert len(set(names)) == len(names) and all((ROOT / "raytensor" / name).exists() for name in names)
