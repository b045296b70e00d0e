"""A workspace's results as tables: for notebooks, Parquet and CSV files, and questions in SQL."""

from benchkit.frames.tables import CONDITIONS, EPOCHS, TABLES, TRIALS, rows_of
from benchkit.frames.workspace import StudyFrames, Workspace, open_workspace

__all__ = ["CONDITIONS", "EPOCHS", "TABLES", "TRIALS", "StudyFrames", "Workspace", "open_workspace", "rows_of"]
