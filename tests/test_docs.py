"""The documents: README leads to the index, the index to every page; links, files and settings of pages exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from raytensor import config
from raytensor.config import old_flags

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*TOP, *sorted(DOCS.glob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]
GUIDES = [page for page in sorted(DOCS.glob("*.md")) if page.stem not in ("README", "api", "devnet_coverage", "skills")]
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


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_a_page_begins_with_what_one_gets_and_a_command(page):
    lines = page.read_text().splitlines()
    assert lines[0].startswith("# ") and lines[2].startswith("This page ")
    assert any(line.startswith(("    raytensor ", "    ray ", "    python ", "```")) for line in lines[:16])
    assert not re.search(r"^[A-Z_]{4,}$", page.read_text(), re.MULTILINE), "a placeholder is left"


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """(job, settings) of the long commands in the code of a page that are written in full."""
    found = re.findall(
        r"^    .*?raytensor (run|train|sweep|validate|mine)\b(.*)$", page.read_text().replace("\\\n", " "), re.M
    )
    parts = ((job, re.split(r"\s#|\s{3,}(?=\w+ )", rest)[0]) for job, rest in found)
    typed = ((job, old_flags.translate(job, shlex.split(rest))[0]) for job, rest in parts if "..." not in rest)
    return [(job, [part for part in settings if "=" in part]) for job, settings in typed]


def test_the_commands_of_the_pages_are_settings_that_exist():
    number = 0
    for page in PAGES:
        for job, settings in commands(page):
            config.compose(job, settings)
            number += 1
    assert number > 30


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
    assert len(table) == 21
    for change, opened, _ in table:
        for name in re.findall(r"`([\w/]+\.\w+)`", opened):
            assert is_there(name), f"{change}: {name}"


def test_the_walk_names_files_that_are_there_each_once():
    for header, most in (("| from `Task` to `Weights`", 15), ("| from `Weights` to `Receipt`", 12)):
        walk = [re.match(r"(\d+)\. `([\w/]+\.py)`$", cells[0]) for cells in rows(DOCS / "how_it_works.md", header)]
        assert all(walk) and max(int(step[1]) for step in walk) == most
        names = [step[2] for step in walk]
        assert len(set(names)) == len(names) and all((ROOT / "raytensor" / name).exists() for name in names)


def test_the_market_of_the_miners_page_is_the_script_of_the_examples():
    script = (ROOT / "examples/mine_and_validate/demo.sh").read_text().partition("set -euo pipefail\n")[2]
    assert script and script in (DOCS / "usage_miner.md").read_text()


def test_at_most_two_files_are_opened_for_a_change():
    """Every row of the table in CONTRIBUTING.md, whatever the kind of the thing that is added."""
    table = (ROOT / "CONTRIBUTING.md").read_text().split("| change | open | write |")[1].split("\n\n")[0]
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) == 21
    for change, opened, _ in rows:
        assert len(re.findall(r"`[^` ]*(?:\.py|\.json|\.toml)`", opened)) <= 2, change
        assert not re.search(r"\bor\b|;", opened), change
