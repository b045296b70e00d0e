"""From what a user calls a study, a built-in name or a path, to the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchkit.errors import PluginError, StudyError
from benchkit.registry import Registry
from benchkit.study.study import Study
from benchkit.study.studyfile import read_study


def find_study(text: str, registry: Registry, *, overrides: Sequence[str] = (), smoke: bool = False) -> Study:
    """Return the study of that path or installed name, overrides applied; raise `StudyError` when there is none."""
    path = Path(text)
    if path.suffix == ".toml" or "/" in text:
        if not path.is_file():
            raise StudyError(f"{text}: there is no such study file", hint=_known(registry))
        return read_study(path, overrides=overrides, smoke=smoke)
    try:
        path = registry.study_file(text)
    except PluginError as error:
        raise StudyError(f"{text}: there is no study of that name", hint=error.hint or _known(registry)) from error
    return read_study(path, overrides=overrides, smoke=smoke)


def _known(registry: Registry) -> str:
    return f"installed studies: {', '.join(registry.names('studies'))}; or give the path of a TOML file"
