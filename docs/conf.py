"""How Sphinx builds the documentation: `make docs`. Pages below reference/ are made from the code first."""

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import reference_pages

project = "benchkit"
release = importlib.metadata.version("benchkit")
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"benchkit {release}"
html_static_path: list[str] = []
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
nitpicky = True

reference_pages.write(Path(__file__).parent / "reference")
