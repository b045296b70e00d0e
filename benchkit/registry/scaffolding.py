"""A complete package to start a plugin from: planned from kind and name, rendered from the scaffold templates."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import keyword
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from benchkit import __version__
from benchkit.errors import PluginError
from benchkit.registry.kinds import KIND_TABLE, kind_word, parse_kind
from benchkit.registry.registry import Registry

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40
_SUFFIX = ".j2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A plugin package to be written: `kind` such as norms, plugin `name`, and the author for its licence."""

    kind: str
    name: str
    author: str

    @property
    def distribution(self) -> str:
        """Return the name of the distribution, `benchkit-NAME`."""
        return f"benchkit-{self.name}"

    @property
    def module(self) -> str:
        """Return the name of the import package."""
        return self.distribution.replace("-", "_")

    @property
    def attribute(self) -> str:
        """Return the name of the class or function: `PixelNorm` or `pixel_norm` for pixel-norm."""
        if KIND_TABLE[self.kind].function:
            return self.name.replace("-", "_")
        return "".join(part[0].upper() + part[1:] for part in self.name.split("-"))

    @property
    def source(self) -> Path:
        """Return the path of the plugin's source within the project."""
        return Path("src") / self.module / "__init__.py"


def plan_project(kind: str, name: str, registry: Registry, *, author: str = "") -> Project:
    """Return the package for a new plugin.

    Raises `PluginError` when there is no such kind, the name is not lower-case letters and digits joined by hyphens, or
    a plugin or an import package has it already.
    """
    kind = parse_kind(kind)
    if kind == "studies":
        raise PluginError("a study is a file, not a package", hint="`benchkit studies new my-study.toml` writes one")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise PluginError(
            f"{name!r} cannot name a plugin",
            hint=f"at most {_LONGEST} lower-case letters and digits, joined by hyphens, a letter first: pixel-norm",
        )
    project = Project(kind=kind, name=name, author=" ".join(author.split()) or f"the authors of benchkit-{name}")
    problems = [f"{other.origin} has the {kind_word(kind)} {name!r}" for other in registry.claims(kind, name)]
    if not problems and importlib.util.find_spec(project.module):
        problems = [f"there is an import package {project.module!r} already"]
    if project.attribute in _other_names(kind):
        problems.append(f"its source would define {project.attribute!r}, which Python or the scaffold uses already")
    if problems:
        raise PluginError(
            f"{name!r} cannot name a new {kind_word(kind)}", problems=problems, hint="choose another name"
        )
    return project


def write_project(project: Project, folder: Path) -> tuple[Path, ...]:
    """Write the package into a folder that does not exist yet (or is empty), and return the files in order of path.

    The folder appears complete or not at all. Raises `PluginError` when something is there already.
    """
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise PluginError(
            f"{folder} is there already and not empty", hint="choose another folder with --out; nothing was changed"
        )
    rendered = render_project(project)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".benchkit-new-") as temporary:
            draft = Path(temporary) / "project"
            for name, text in rendered.items():
                path = draft / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            os.replace(draft, folder)
    except OSError as error:
        raise PluginError(f"{folder} cannot be written: {error.strerror or error}") from error
    return tuple(folder / name for name in sorted(rendered))


def install_command(folder: Path) -> str:
    """Return the command that installs a project, to be edited, into the Python that runs this.

    Environments that uv made have no pip: `pip` alone would be another Python's.
    """
    python, path = shlex.quote(sys.executable), shlex.quote(str(folder))
    if PathFinder.find_spec("pip"):  # setuptools answers for it otherwise, not without warnings
        return f"{python} -m pip install -e {path}"
    if uv := shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])):
        return f"{shlex.quote(uv)} pip install --python {python} -e {path}"
    return f"{python} -m ensurepip && {python} -m pip install -e {path}"


def render_project(project: Project) -> dict[str, str]:
    """Return the text of every file of the package, by its path within the package."""
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    values = _values(project)
    scaffold = files("benchkit_templates").joinpath("scaffold")
    rendered: dict[str, str] = {}
    for part in ("project", project.kind):
        for path, template in _templates(scaffold.joinpath(part)):
            name = path.replace("PACKAGE", project.module).replace("DOT", ".")
            rendered[name] = environment.from_string(template).render(values)
    return rendered


def _values(project: Project) -> Mapping[str, Any]:
    """Return what the templates may name; every text among it is an identifier, or one line of the author's."""
    return {
        "kind": project.kind,
        "word": kind_word(project.kind),
        "use": KIND_TABLE[project.kind].use.replace("NAME", project.name),
        "attempt": KIND_TABLE[project.kind].attempt.replace("NAME", project.name),
        "name": project.name,
        "distribution": project.distribution,
        "module": project.module,
        "attribute": project.attribute,
        "title": project.name.replace("-", " ").capitalize(),
        "author": project.author,
        "year": time.strftime("%Y", time.gmtime()),
        "version": __version__,
        "next_version": _next(__version__),
    }


def _next(version: str) -> str:
    """Return the version that may change the plugin interface: 0.2 after 0.1.3."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return f"{major}.{minor + 1}" if major == 0 else f"{major + 1}"


def _templates(folder: Traversable, above: str = "") -> Iterator[tuple[str, str]]:
    for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if item.is_dir():
            yield from _templates(item, f"{above}{item.name}/")
        elif item.name.endswith(_SUFFIX):
            yield f"{above}{item.name.removesuffix(_SUFFIX)}", item.read_text(encoding="utf-8")


def _other_names(kind: str) -> set[str]:
    """Return the names that the scaffold's source uses beside the plugin's own, and those of the language."""
    plain = Project(kind=kind, name="placeholder", author="")
    tree = ast.parse(render_project(plain)[plain.source.as_posix()])
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.alias)}
    return {*used, *keyword.kwlist, *dir(builtins)} - {plain.attribute}
