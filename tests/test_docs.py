"""Tests of README.md and docs/: links lead somewhere, what they tell people to type is accepted, their code runs."""

import io
import re
import shlex
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from build_docs import check_site

import lookonce
from lookonce.cli import COMMANDS, make_app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorial").glob("*.py"))
EVERYWHERE = {"--offline", "--config", "--help", "--help-all", "--install-completion", "--json", "--version"}


def headings(page):
    """The anchors of a page, as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
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


@pytest.fixture(scope="module")
def reader(squares, run, tmp_path_factory):
    """A folder with what the pages name: a data set, a run, photos, Darknet's files."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(squares, folder / "cells")
    shutil.copytree(run, folder / "runs" / "cells-1")
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        read = lookonce.read_dataset(squares)
        read.draw(0, hide_labels=True).convert("RGB").save(folder / name)
    lookonce.export(run, "darknet", out=folder / "yolov2")
    return folder


WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_the_python_code_of_a_page_runs_and_prints_what_the_page_says(page, reader, tmp_path, monkeypatch):
    folder = shutil.copytree(reader, tmp_path / "reader")
    monkeypatch.chdir(folder)
    train = lookonce.train
    quick = {"network": "nano", "size": 96, "epochs": 1, "batch_size": 8, "anchors": 2}
    monkeypatch.setattr(lookonce, "train", lambda data, **options: train(data, **options | quick))
    blocks = re.findall(r"```python\n(.*?)```(?:\s*```text\n(.*?)```)?", page.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    namespace = {}
    for code, said in blocks:
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(code, page.name, "exec"), namespace)
        if said:
            (words, numbers), (words_said, numbers_said) = map(apart, (printed.getvalue(), said))
            assert words == words_said
            assert numbers == pytest.approx(numbers_said, rel=0.02, abs=2e-4)


def apart(text):
    """(Words, numbers) of a text."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
    return re.sub(r"-?\d+(?:\.\d+)?", "", text).split(), [float(number) for number in numbers]


def test_the_site_may_load_nothing_from_another_host_and_lead_nowhere(tmp_path):
    (tmp_path / "a.html").write_text('<h2 id="here"></h2><a href="b.html#there">b</a><a href="https://x.org">x</a>'
                                     '<img src="data:image/png;base64,AA"><script src="s.js"></script>')  # fmt: skip
    (tmp_path / "b.html").write_text('<p id="there"></p><a href="a.html#here"></a>')
    (tmp_path / "s.js").write_text("")
    assert check_site(tmp_path) == []
    (tmp_path / "c.html").write_text(
        '<link rel="stylesheet" href="//x.org/s.css"><img src="http://x.org/i.png"><script src="t.js"></script>'
        '<a href="b.html#none">b</a><a href="d.html">d</a>'
    )
    (tmp_path / "s.css").write_text("@import url('https://x.org/font.css'); a { background: url(data:image/png,AA) }")
    assert [problem.split(": ")[1][:20] for problem in check_site(tmp_path)] == [
        "loads //x.org/s.css ", "loads http://x.org/i", "loads t.js, which is", "leads to b.html#none",
        "leads to d.html, whi", "loads https://x.org/",
    ]  # fmt: skip
