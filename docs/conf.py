"""Settings of the documentation's site (Sphinx). `make docs` builds it; see tools/build_docs.py.

Sphinx with MyST and Furo, since everything they need is local: search works from a folder, without a server and without
a script from another host. Formulas become MathML when the site is built, so no script draws them either.
"""

from docutils import nodes
from latex2mathml.converter import convert

project = "lookonce"
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
html_theme = "furo"
html_show_search_summary = False  # a summary is fetched, which a browser refuses for files
html_title = "lookonce"
html_show_sphinx = html_show_copyright = html_copy_source = html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True, "footer_icons": []}
html_math_renderer = "mathml"
pygments_style, pygments_dark_style = "friendly", "monokai"
exclude_patterns = ["README.md"]


def _inline(translator, node):
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(translator, node):
    translator.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    """Draw formulas as MathML."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
