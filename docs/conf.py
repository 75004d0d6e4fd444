"""Sphinx configuration: `make docs`."""

import sys
from pathlib import Path

import jhub_safety

sys.path.insert(0, str(Path(__file__).parent / "ext"))

project = "jhub-safety"
author = "jhub-safety contributors"
release = jhub_safety.__version__
version = release

extensions = ["myst_parser", "from_code"]
# "::: warning" blocks, and tables of definitions.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"jhub-safety {release}"
html_show_sourcelink = False
html_copy_source = False
# Terminal output is pasted as it was; nothing in it is a language.
highlight_language = "none"
