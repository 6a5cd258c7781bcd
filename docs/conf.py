"""Settings of the site: `make docs` builds it with Sphinx into docs/_site, which any browser opens without a network.

The repository's root is the folder of pages, so that every page stays where it is and a link is right both there and on the site.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))
_cache = TemporaryDirectory(prefix="hedgemark-docs-")  # a tutorial shall not find answers of one that was interrupted
os.environ |= {  # of the tutorials: the commands of this environment, in the width of the page and without colours
    "HEDGEMARK_CACHE": _cache.name,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "COLUMNS": "104",
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "2",
    "PYTHONSTARTUP": str(Path(__file__).parent / "site" / "terminal_cells.py"),
}
PUBLISHED = os.environ.get("HEDGEMARK_PUBLISHED")  # folder of the published logits that a tutorial replays
if not PUBLISHED:
    print("docs: the tutorial on a published study is shown without results: HEDGEMARK_PUBLISHED names no folder", file=sys.stderr)

project = "Hedgemark"
root_doc = "docs/index"
include_patterns = ["*.md", *(f"{folder}/**.md" for folder in ("analyzer", "docs", "producer", "schemas", "store"))]
exclude_patterns = [".*", "docs/_site", "docs/jupyter_execute", "tests", "**/__pycache__"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings"]
nitpicky = False
default_role = "literal"
highlight_language = "text"
suppress_warnings = ["misc.highlighting_failure"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

nb_execution_mode = os.environ.get("HEDGEMARK_TUTORIALS", "force")
nb_execution_excludepatterns = [] if PUBLISHED else ["docs/tutorials/replay_a_study.md"]
nb_execution_in_temp = True
nb_execution_timeout = -1  # none: a busy machine is no error
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "Hedgemark"
templates_path = ["site/templates"]
html_additional_pages = {"index": "start.html"}
html_copy_source = False
html_show_search_summary = False
html_show_sphinx = False
html_show_copyright = False
