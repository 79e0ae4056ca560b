"""Build the documentation as a site: python tools/build_docs.py [--folder site].

Copies docs/ to .docs/source, runs the notebooks of docs/tutorial and puts what they show into their pages, writes a
page of all options, runs Sphinx, and checks the result: every link leads somewhere, and no page loads anything from
another host. What a notebook showed is kept in .docs/shown until the notebook or the package changes.
"""

import argparse
import atexit
import hashlib
import io
import os
import re
import shutil
import sys
import tempfile
from contextlib import chdir, redirect_stdout
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from notebooks import as_markdown, read_notebook, run_notebook

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / ".docs"
CONTENTS = {
    "Start": ["readme"],
    "Tutorial": [],  # the notebooks
    "How to": ["data", "train", "evaluate", "detect", "deploy", "darknet", "python", "coming-from", "questions"],
    "Background": [
        "yolo-papers",
        "which-yolo-loss",
        "terms",
        "platforms",
        "privacy",
        "architecture",
        "results",
        "experiments",
        "commands",
        "changes",
    ],
}
"""Pages in the order of the side bar."""
OUTSIDE = {"README.md": "readme.md", "CHANGELOG.md": "changes.md"}
"""Files outside docs/ that become pages."""


def main() -> None:
    """Build the site and check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "site")
    folder = parser.parse_args().folder
    source = WORK / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("*.py"))
    shutil.copy(ROOT / "docs" / "conf.py", source)
    copy_outside(source)
    CONTENTS["Tutorial"] = [write_tutorial(file, source) for file in sorted((ROOT / "docs" / "tutorial").glob("*.py"))]
    (source / "commands.md").write_text(options(), encoding="utf-8")
    write_contents(source / "index.md")
    shutil.rmtree(folder, ignore_errors=True)
    from sphinx.cmd.build import main as sphinx

    if code := sphinx(
        ["-q", "-W", "--keep-going", "-j", "auto", "-d", str(WORK / "doctrees"), str(source), str(folder)]
    ):
        sys.exit(code)
    if problems := check_site(folder):
        sys.exit("\n".join(problems))
    print(f"{folder / 'index.html'}: {len(list(folder.rglob('*.html')))} pages")


def copy_outside(source: Path) -> None:
    """Copy README and CHANGELOG, which are outside docs/, and turn links for their places in the site."""
    for name, page in OUTSIDE.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        (source / page).write_text(re.sub(r"(\]\(|src=\")docs/", r"\1", text), encoding="utf-8")
    for page in source.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name, there in OUTSIDE.items():
            text = re.sub(rf"\]\((\.\./)?{name}", f"]({there}", text)
        text = re.sub(r"\[([^\]]*)\]\((LICENSE|CONTRIBUTING\.md)\)", r"\1", text)
        page.write_text(_to_pages(text), encoding="utf-8")


def _to_pages(text: str) -> str:
    """Turn links to the notebooks into links to their pages."""
    return re.sub(r"(\]\((?:tutorial/)?\d-\w+)\.py\)", r"\1.md)", text)


def write_tutorial(file: Path, source: Path) -> str:
    """Write the page of a notebook with what it shows, and the notebook to download; return the page's name."""
    import jupytext

    page = source / "tutorial" / f"{file.stem}.md"
    jupytext.write(jupytext.read(file), page.with_suffix(".ipynb"))
    title, rest = _to_pages(shown(file)).split("\n", 1)
    link = f"{{download}}`Download this page as a notebook <{file.stem}.ipynb>`"
    page.write_text(f"{title}\n\n{link}\n{rest}", encoding="utf-8")
    return f"tutorial/{file.stem}"


def shown(file: Path) -> str:
    """Return a notebook's page, run again only if it or the package has changed."""
    digest = hashlib.sha256(file.read_bytes())
    for module in sorted((ROOT / "src").rglob("*")):
        if module.suffix in (".py", ".html", ".js"):
            digest.update(module.read_bytes())
    kept = WORK / "shown" / f"{file.stem}-{digest.hexdigest()[:16]}.md"
    if not kept.is_file():
        print(f"running {file.relative_to(ROOT)}", flush=True)
        cells = read_notebook(file)
        with chdir(_folder()):
            run_notebook(cells, file.stem)
        kept.parent.mkdir(parents=True, exist_ok=True)
        for old in kept.parent.glob(f"{file.stem}-*.md"):
            old.unlink()
        kept.write_text(as_markdown(cells), encoding="utf-8")
    return kept.read_text(encoding="utf-8")


@cache
def _folder() -> str:
    """Return an empty folder, the same for all notebooks of this build, so that they share a run."""
    folder = tempfile.mkdtemp(prefix="lookonce-docs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def options() -> str:
    """Return a page with the help of every command."""
    from lookonce.cli import COMMANDS, main

    os.environ["COLUMNS"] = "100"
    parts = ["# Commands and options", "`lookonce COMMAND --help-all` prints the same."]
    for command in COMMANDS:
        text = io.StringIO()
        with redirect_stdout(text):
            main([command, "--help-all"])
        parts.append(f"## {command}\n\n```text\n{text.getvalue().strip()}\n```")
    return "\n\n".join(parts) + "\n"


def write_contents(index: Path) -> None:
    """Add the pages to the index, for the side bar."""
    parts = [index.read_text(encoding="utf-8")]
    for caption, pages in CONTENTS.items():
        parts.append("\n".join(("```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```")))
    index.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


class Links(HTMLParser):
    """What a page loads, where it leads, and the places in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads, self.leads, self.places = [], [], {""}
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        """Note the addresses of one tag."""
        found = dict(attrs)
        self.places |= {found[name] for name in ("id", "name") if found.get(name)}
        self.loads += [found[name] for name in ("src", "data", "poster") if found.get(name)]
        if found.get("href"):
            loaded = tag in ("link", "image", "use") and found.get("rel") not in ("search", "index", "next", "prev")
            (self.loads if loaded else self.leads).append(found["href"])


def check_site(folder: Path) -> list[str]:
    """Return the problems of a site: what would be loaded from another host, and links that lead nowhere."""
    pages = {page: Links(page) for page in folder.rglob("*.html")}
    by_place = {page.resolve(): links for page, links in pages.items()}
    problems = []
    for page, links in pages.items():
        name = page.relative_to(folder)
        for address in links.loads:
            parts = urlsplit(address)
            if parts.netloc or parts.scheme not in ("", "data"):
                problems.append(f"{name}: loads {address[:80]} from another host")
            elif not parts.scheme and parts.path and not (page.parent / unquote(parts.path)).exists():
                problems.append(f"{name}: loads {address[:80]}, which is missing")
        for address in links.leads:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = page.parent / unquote(parts.path) if parts.path else page
            target = target.resolve()
            known = by_place.get(target)
            if not target.exists() or (known and unquote(parts.fragment) not in known.places):
                problems.append(f"{name}: leads to {address[:80]}, which is missing")
    for style in folder.rglob("*.css"):
        for address in re.findall(r"(?:@import\s+(?!url)|url\()[\"']?([^\"')\s]+)", style.read_text(encoding="utf-8")):
            if re.match(r"(https?:)?//", address):
                problems.append(f"{style.relative_to(folder)}: loads {address[:80]} from another host")
    return problems


if __name__ == "__main__":
    main()
