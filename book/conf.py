"""The book: README, the executed notebooks and the API as web pages (`make book`).

The checkout itself is Sphinx's source folder, so that a link between README, notebooks and GLOSSARY
is the same in the book, on disk and on GitHub. Nothing is executed, and no page needs a network.
"""

import json
import os
import re
import shutil
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref

project = "DMC-Net, reproduced"
html_title = project
root_doc = "README"
include_patterns = ["*.md", "results/*.md", "notebooks/*.ipynb", "book/*.md"]
exclude_patterns = [".*", "book/_build", "cache", "results/*/*"]  # not even looked through
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_copy_source = False
html_domain_indices = False
html_show_copyright = False
html_math_renderer = "mathml"  # every browser draws it; MathJax would be fetched from a remote host

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # the default is two remote scripts
autodoc_member_order = "bysource"

CONTENTS = """

```{toctree}
:hidden:
:caption: Notebooks
:glob:

notebooks/*
```

```{toctree}
:hidden:
:caption: Reference

results/README
GLOSSARY
RELEASED_CODE
PHOTOGRAPHS
CONTRIBUTING
book/api
CHANGELOG
```
"""
# "owner/name" in a workflow on GitHub; elsewhere nobody knows where the notebooks will lie.
REPOSITORY = os.environ.get("GITHUB_REPOSITORY", "")
WIDGET = "application/vnd.jupyter.widget-view+json"  # needs a kernel; most are bars at their end


def read_source(app, docname, source):
    """Give README the table of contents, and each notebook what pages need and notebooks do not."""
    if docname == root_doc:
        source[0] += CONTENTS
    if docname.startswith("notebooks/"):
        notebook = json.loads(source[0])
        if REPOSITORY:
            first = notebook["cells"][0]
            first["source"] = "".join(first["source"]) + launch(docname)
        heading = ""
        for cell in notebook["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                heading = [heading, *re.findall(r"^#+ (.+)$", text, re.MULTILINE)][-1]
            else:
                dress(cell, text, heading)
        source[0] = json.dumps(notebook)


def launch(docname):
    """Where the notebook runs without an installation of one's own, and what it cannot do there."""
    binder = f"https://mybinder.org/v2/gh/{REPOSITORY}/HEAD?urlpath=lab/tree/{docname}.ipynb"
    colab = f"https://colab.research.google.com/github/{REPOSITORY}/blob/HEAD/{docname}.ipynb"
    return (
        f"\n\nRun it on [Binder]({binder}), which has 2 GB of memory, no GPU and keeps nothing: "
        f"enough for 00, 01 and 08. Or on [Colab]({colab}), which has the notebook alone: run "
        f"`!git clone https://github.com/{REPOSITORY} suite` and `%pip install -e suite` first and "
        "restart; what a run makes there is gone with it."
    )


def dress(cell, text, heading):
    """Fold imports away, leave widgets out, and describe the cell's pictures.

    A picture whose cell has no ``mystnb: {image: {alt: ...}}`` in its metadata is described by its
    section's heading and the name under which it is saved, or that of the function that drew it.
    """
    if text.startswith(("import ", "from ")):
        cell["metadata"].setdefault("tags", []).append("hide-input")
    cell["outputs"] = [
        o for o in cell["outputs"] if set(o.get("data", {})) != {WIDGET, "text/plain"}
    ]
    for output in cell["outputs"]:
        output.get("data", {}).pop(WIDGET, None)  # beside a picture of it
    name = re.search(r'"\d\d_(\w+)"', text) or re.search(r"figures\.(?!save)(\w+)\(", text)
    alt = f"{heading}: {name[1].replace('_', ' ')}" if name else heading
    cell["metadata"].setdefault("mystnb", {}).setdefault("image", {}).setdefault("alt", alt)


def unlink_folders(app, doctree):
    """Turn links to folders, which GitHub follows, into plain text: a folder has no page."""
    here = Path(doctree["source"]).parent
    for link in list(doctree.findall(pending_xref)):
        if link["reftype"] == "myst" and (here / link["reftarget"]).is_dir():
            link.replace_self(link.children)


def visit_math(self, node):
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_math_block(self, node):
    self.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def open_at_the_readme(app, exception):
    """A site's first page is index.html; README.html stays, because the other pages link to it."""
    if exception is None and app.builder.name == "html":
        shutil.copy(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.connect("source-read", read_source)
    app.connect("doctree-read", unlink_folders)
    app.connect("build-finished", open_at_the_readme)
