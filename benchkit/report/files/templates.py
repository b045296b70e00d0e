"""The report's templates and style sheets: the shipped ones, and those of a user's folder in their place."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from benchkit.errors import ReportError, nearest
from benchkit.report.context.choices import packed
from benchkit.report.tables.column_widths import table_layout

SUFFIXES = (".j2", ".css", ".js")
"""What of the shipped folder is a template, a style sheet or a script."""


def template_folder() -> Path:
    """Return the folder of the shipped templates, style sheets and fonts."""
    return Path(str(files("benchkit_templates")))


def template_names() -> tuple[str, ...]:
    """Return the names of the report's templates, style sheets and scripts: those that an own folder may hold."""
    return tuple(sorted(path.name for path in (template_folder() / "report").iterdir() if path.suffix in SUFFIXES))


@cache
def shipped() -> jinja2.Environment:
    """Return the shipped templates: every value is escaped, and a name that the context lacks is an error."""
    return _prepared(jinja2.Environment(loader=_folder(template_folder() / "report"), **_STRICT))


def environment(own: Path | None = None) -> jinja2.Environment:
    """Return the templates; a file of the folder `own` takes the place of the shipped one of its name.

    `shipped/NAME` always is the shipped one, to extend or import from. Own templates run in Jinja's sandbox: they see
    the report and nothing of Python.
    """
    if own is None:
        return shipped()
    ours = _folder(template_folder() / "report")
    loader = jinja2.ChoiceLoader([_folder(own), ours, jinja2.PrefixLoader({"shipped": ours})])
    return _prepared(ImmutableSandboxedEnvironment(loader=loader, **_STRICT))


_STRICT: dict[str, Any] = {"autoescape": True, "undefined": jinja2.StrictUndefined, "keep_trailing_newline": True}


def _prepared(found: jinja2.Environment) -> jinja2.Environment:
    found.filters["embedded"] = embedded
    found.filters["printed"] = table_layout
    found.filters["packed"] = lambda value: embedded(packed(value))
    return found


def _folder(path: Path) -> jinja2.FileSystemLoader:
    return jinja2.FileSystemLoader(path)


def embedded(json_text: str) -> Markup:
    """Return JSON that can stand inside a script element: no character of it can end the element."""
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    return Markup("".join(escapes.get(letter, letter) for letter in json_text))


def text_of(name: str, own: Path | None = None) -> str:
    """Return a style sheet or script by its name, the own one if there is one."""
    if own is not None and (own / name).is_file():
        return (own / name).read_text(encoding="utf-8")
    return (template_folder() / "report" / name).read_text(encoding="utf-8")


def check_templates(own: Path) -> None:
    """Raise `ReportError` with all that is wrong with a folder of own templates before anything is rendered."""
    if not own.is_dir():
        raise ReportError(f"{own}: there is no such folder of templates")
    problems = [line for path in sorted(own.iterdir()) for line in _problems_of(path, own)]
    if problems:
        raise ReportError(
            f"{own}: these templates cannot be used",
            problems=problems,
            hint=f"known: {', '.join(template_names())}; `benchkit templates copy NAME {own}` copies one to start from",
        )


def _problems_of(path: Path, own: Path) -> Iterator[str]:
    if path.name.startswith("."):
        return
    if path.name not in template_names() or not path.is_file():
        yield f"{path.name}: no file of the report has this name{nearest(path.name, template_names())}"
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield f"{path.name}: cannot be read: {error}"
        return
    if path.suffix == ".j2":
        try:
            environment(own).parse(text, path.name, str(path))
        except jinja2.TemplateSyntaxError as error:
            yield f"{path.name}, line {error.lineno}: {error.message}"
    end = {".css": "</style", ".js": "</script"}.get(path.suffix, "")
    if end and (end in text.lower() or "<!--" in text):
        yield f"{path.name}: holds {end}> or <!--, which would end its element early"


def render(name: str, own: Path | None, **values: Any) -> str:
    """Return the template of that name with its values.

    Raises `ReportError` with file and line when a template of the folder `own` fails; the fault of a shipped one is
    ours and stays an exception.
    """
    try:
        return environment(own).get_template(name).render(**values)
    except Exception as error:
        place = _place(error, own)
        if place is None:
            raise
        raise ReportError(
            f"{place}: this template failed",
            problems=[f"{type(error).__name__}: {error}"],
            hint="benchkit templates describe lists what templates see",
        ) from error


def _place(error: Exception, own: Path | None) -> str | None:
    """Return file and line of the innermost own template that an exception went through, or None."""
    if own is None:
        return None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == own]
    if isinstance(error, jinja2.TemplateSyntaxError) and error.filename and Path(error.filename).parent == own:
        return f"{error.filename}, line {error.lineno}"
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else None
