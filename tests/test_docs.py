"""The documentation as it is built: what is wrong in it ends the build, and its pages ask nobody else for anything."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_reference_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="`make docs` installs what builds the documentation")
    docs, built = tmp_path / "docs", tmp_path / "built"
    shutil.copytree(ROOT / "docs", docs, ignore=shutil.ignore_patterns("_build", "reference", "__pycache__"))
    (tmp_path / "reports").symlink_to(ROOT / "reports")
    page = docs / "tutorial.md"
    page.write_text(f"{page.read_text(encoding='utf-8')}\n[nowhere](no-such-page.md)\n", encoding="utf-8")
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", docs, built]
    done = subprocess.run([*map(str, sphinx)], capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if "WARNING" in line or "ERROR" in line]
    assert done.returncode != 0 and len(told) == 1 and "no-such-page" in told[0], done.stderr
    pages = sorted(built.rglob("*.html"))
    loading = re.compile(r'<(?:script|link|img|iframe)\b[^>]*"(https?:[^"]+)')
    asked = {url for one in pages for url in loading.findall(one.read_text(encoding="utf-8"))}
    assert len(pages) > 15 and asked == set()


def test_the_python_page_shows_what_a_notebook_and_a_plugin_author_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    page = importlib.import_module("reference_pages").python()

    for shown in (
        "open(workspace: str | Path = 'benchkit-runs', storage: str | None = None) -> Workspace",
        "trials(self, frame: Frame = 'pandas') -> Any\n\nReturn a row for each trial",
        "augment(self, batch: Batch, generator: torch.Generator) -> Batch\n\nReturn the batch to train on",
        "__call__(self, num_channels: int, /, **options: Any) -> nn.Module\n\nReturn the module",
        "API_VERSION = 1\n```",
    ):
        assert shown in page
