"""Tests of README.md and docs/: links lead somewhere, and what they tell people to type is accepted."""

import re
import shlex
from pathlib import Path

import pytest

from lookonce.cli import COMMANDS, make_app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
EVERYWHERE = {"--config", "--help", "--help-all", "--install-completion", "--json", "--version"}


def headings(page):
    """The anchors of a page, as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        file, _, heading = target.partition("#")
        other = page.parent / file if file else page
        if not other.exists() or (heading and heading not in headings(other)):
            broken.append(target)
    assert not broken


def typed(page):
    """The commands in the code blocks of a page, word by word."""
    for block in re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"(\S*/)?lookonce \w", line):
                yield shlex.split(line, comments=True)[1:]


GUIDES = [page for page in PAGES if page.name not in ("CHANGELOG.md", "CONTRIBUTING.md", "experiments.md")]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_commands_that_people_are_told_to_type_are_accepted(page):
    app = make_app()
    for command, *words in typed(page):
        if command in COMMANDS and not EVERYWHERE & set(words):
            app.parse_args([command, *words])


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_options_in_the_text_exist(page):
    app = make_app()
    known = set(EVERYWHERE)
    for command in COMMANDS:
        arguments = app[command].assemble_argument_collection(default_parameter=app.default_parameter)
        known |= {name for argument in arguments for name in argument.names}
    text = page.read_text(encoding="utf-8")
    for spans in (re.findall(r"`(--[^`]+)`", text), re.findall(r"`lookonce ([^`]+)`", text)):
        assert not {word for span in spans for word in re.findall(r"--[a-z][a-z.\d-]*", span)} - known


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150
