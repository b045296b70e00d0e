"""A workspace for notebooks: `benchkit.open("benchkit-runs").study("norms-cifar10").trials()`."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchkit.analysis.summary import summarize
from benchkit.errors import BenchkitError
from benchkit.frames.arrow import arrow_table, need
from benchkit.frames.tables import rows_of
from benchkit.ledger import UntouchedLedger, read_results
from benchkit.registry import Registry
from benchkit.results import StudyResults
from benchkit.storage import DEFAULT_WORKSPACE
from benchkit.study.settings import PluginRef

Frame = Literal["pandas", "polars", "arrow"]


def open_workspace(workspace: str | Path = DEFAULT_WORKSPACE, storage: str | None = None) -> Workspace:
    """Return a workspace to read; raise `LedgerError` where there is no ledger.

    `storage` is the address of a ledger in a database, as `--storage` takes it.
    """
    opened = Workspace(path=Path(workspace), storage=storage)
    read_results(opened.path, None, storage)  # the error of a folder without a ledger, before anything is asked
    return opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A workspace, read only."""

    path: Path
    storage: str | None = None

    @property
    def studies(self) -> tuple[str, ...]:
        """Return the names of its studies, the latest first."""
        return UntouchedLedger(self.path, self.storage).studies()

    def study(self, name: str | None = None) -> StudyFrames:
        """Return a study's results as they are now, without a name the latest's; raise `LedgerError` for none."""
        return StudyFrames(results=read_results(self.path, name, self.storage))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFrames:
    """The results of a study, as tables and charts; the columns are the same for every study (`benchkit.frames`)."""

    results: StudyResults

    @property
    def name(self) -> str:
        """Return the study's name."""
        return self.results.study.name

    def trials(self, frame: Frame = "pandas") -> Any:
        """Return a row for each trial, as a frame of pandas or polars, or an Arrow table."""
        return self._table("trials", frame)

    def conditions(self, frame: Frame = "pandas") -> Any:
        """Return a row for each condition: n, mean and interval of the study's main metric."""
        return self._table("conditions", frame)

    def epochs(self, frame: Frame = "pandas") -> Any:
        """Return a row for each epoch of each trial that counts."""
        return self._table("epochs", frame)

    def answer(self) -> tuple[str, ...]:
        """Return the report's short answer, a sentence each."""
        return summarize(self.results).answer

    def figure(self, name: str, **options: Any) -> Any:
        """Return a figure of the report: an Altair chart, or a `benchkit.ImageGrid`.

        Raises `PluginError` for a figure that there is not or that has no such options, and `benchkit.NothingToDraw`.
        """
        plugin = Registry.installed().bind("figures", PluginRef(name=name, options=options))()
        return plugin.draw(plugin.data(self.results))

    def _table(self, table: str, frame: Frame) -> Any:
        if frame not in ("pandas", "polars", "arrow"):
            raise BenchkitError(f"frame: got {frame!r}, expected pandas, polars or arrow")
        found = arrow_table(self.results, table)
        if frame == "polars":
            return need("polars").from_arrow(found)
        if frame == "pandas":
            need("pandas")
            return found.to_pandas(maps_as_pydicts="strict")
        return found

    def __repr__(self) -> str:
        """Return what a prompt shows: the title, and the short answer."""
        return "\n".join([f"{self.results.study.title} ({self.results.study.report.metric})", *self.answer()])

    def _repr_html_(self) -> str:
        """Return what Jupyter shows: the short answer, and the conditions."""
        heads = ("condition", "n", "mean", "low", "high")
        rows = [[_shown(row, head) for head in heads] for row in rows_of(self.results, "conditions")]
        lines = [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
        head = "".join(f"<th>{one}</th>" for one in heads)
        words = html.escape(" ".join(self.answer()))
        title = html.escape(f"{self.results.study.title} ({self.results.study.report.metric})")
        return f"<p><strong>{title}</strong></p><p>{words}</p><table><tr>{head}</tr>{''.join(lines)}</table>"


def _shown(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
