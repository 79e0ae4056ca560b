"""Tests of tools/notebooks.py, which runs the tutorial."""

import pytest
from notebooks import Cell, as_markdown, read_notebook, run_cell, run_notebook
from PIL import Image

TEXT = """# ---
# jupyter: header
# ---

# %% [markdown]
# # Title
#
# Text with `code`.

# %% tags=["parameters"]
A = 1

# %%
print("one")
print("two")
A + 1
"""


@pytest.fixture
def cells(tmp_path):
    (tmp_path / "n.py").write_text(TEXT, encoding="utf-8")
    return read_notebook(tmp_path / "n.py")


def test_cells_are_read_without_the_header(cells):
    assert [(cell.kind, cell.tags) for cell in cells] == [("markdown", ()), ("code", ("parameters",)), ("code", ())]
    assert cells[0].text == "# Title\n\nText with `code`."
    assert cells[1].text == "A = 1"


def test_a_cell_shows_what_it_prints_and_its_last_value(cells):
    run_notebook(cells, "n")
    assert cells[2].shown == [("text", "one\ntwo\n"), ("text", "2")]


def test_parameters_are_replaced_and_unknown_ones_refused(cells):
    assert run_notebook(cells, "n", {"A": 5})["A"] == 5
    assert cells[2].shown[-1] == ("text", "6")
    with pytest.raises(AssertionError, match="no parameters"):
        run_notebook(cells, "n", {"B": 5})


def test_images_and_html_are_shown_as_such():
    cell = Cell("code", (), "image")
    run_cell(cell, {"image": Image.new("RGB", (2, 2))}, "n")
    assert cell.shown[0][0] == "html"
    assert 'src="data:image/jpeg' in cell.shown[0][1]


def test_the_page_escapes_text_and_keeps_html_in_one_block():
    cell = Cell("code", (), "1 < 2", [("text", "a < b"), ("html", "<p>\n\n</p>")])
    page = as_markdown([Cell("markdown", (), "# T"), cell])
    assert page.startswith("# T\n\n```python\n1 < 2\n```\n")
    assert "<pre>a &lt; b</pre>" in page
    assert "<p>\n</p>" in page
