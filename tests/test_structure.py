"""The layout's promises, read from the source: who may import whom, how large things grow, what start-up loads."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import benchkit

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLUGINS = sorted(path.name for path in (ROOT / "plugins").glob("benchkit_*"))
TOOLKIT = sorted((ROOT / "benchkit").rglob("*.py"))
PLUGIN_SOURCES = sorted(source for name in PLUGINS for source in (ROOT / "plugins" / name).rglob("*.py"))
SOURCES = [
    *TOOLKIT,
    *PLUGIN_SOURCES,
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "templates").rglob("*.py")),
]
PUBLIC_MODULES = {"analysis", "gradients", "metrics", "plan", "preparation", "results", "study", "testing"}
LAYERS = (
    ("errors", "storage", "locks", "child", "device_kind", "gradients", "weight_names", "predictions"),
    ("metrics", "results", "protocols", "tracking", "study", "plan", "registry"),
    ("data", "preparation", "analysis"),
    ("ledger", "train"),
    ("report", "capsule"),
    ("testing",),
    ("sweep",),
    ("doctor", "export", "frames", "publish", "trackers", "verify", "watch"),
    ("cli",),
)
"""The toolkit from its ground up; CONTRIBUTING draws it."""
UNLAYERED = {"__init__", "__main__", "__pycache__", "py.typed", "studies"}
MANY_PARAMETERS = {"build_run"}
FORBIDDEN_NAMES = {"base", "common", "core", "handler", "helpers", "manager", "misc", "util", "utils"}
MUTABLE = (
    "Best FigureSet Member Merged Plateau Profiled Progress Randomness RayCluster Run RunningTrial WorkerContext "
    "_Scope _Together _Sheet _Unpacking"
).split()
"""Dataclasses that change while they are used."""

POSITIONAL = (
    "Anew CachedRecords ChartCache Check Draft DropBranch DropInput DropOutput Opaque Predictions Profiled "
    "Registry TrialFolder Use _Scope"
).split()
"""Dataclasses of so few fields that they are given by their order."""

ENTRY_POINTS = [
    (group, name, target)
    for group, entries in PROJECT["project"]["entry-points"].items()
    for name, target in entries.items()
]


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> list[tuple[int, str, str]]:
    """Return (line, module, name) of every import in a file; the name is empty for `import module`."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found += [(node.lineno, module, alias.name) for alias in node.names]
    return found


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout: which files are tracked is unknown")
    return [ROOT / name for name in listing.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_the_toolkit_imports_no_plugin_package() -> None:
    packages = re.compile(rf"({'|'.join(PLUGINS)})([.:]\w+)*")
    faults = []
    for path in TOOLKIT:
        faults += [
            f"{shown(path)}:{line} imports {module}" for line, module, _ in imports(path) if packages.fullmatch(module)
        ]
        faults += [
            f"{shown(path)}:{node.lineno} names {node.value!r}"
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and packages.fullmatch(node.value)
        ]
    assert not faults, "\n".join(faults)


def test_plugins_use_only_public_names_of_benchkit() -> None:
    faults = []
    for path in PLUGIN_SOURCES:
        own = path.relative_to(ROOT / "plugins").parts[0]
        for line, module, name in imports(path):
            head, _, rest = module.partition(".")
            if head in PLUGINS and head != own:
                faults.append(f"{shown(path)}:{line} imports another plugin package, {module}")
            elif head == "benchkit_templates":
                faults.append(f"{shown(path)}:{line} imports the toolkit's templates")
            elif head == "benchkit":
                public = name in benchkit.__all__ or name in PUBLIC_MODULES if not rest else rest in PUBLIC_MODULES
                if not public or name.startswith("_"):
                    faults.append(f"{shown(path)}:{line} imports the private name {module}:{name or '(module)'}")
    assert not faults, "\n".join(faults)


def test_public_names_exist() -> None:
    assert [name for name in benchkit.__all__ if not hasattr(benchkit, name)] == []


def test_files_and_functions_stay_small() -> None:
    faults = []
    for path in SOURCES:
        text = path.read_text()
        if (lines := len(text.splitlines())) > 600:
            faults.append(f"{shown(path)} has {lines} lines (at most 600)")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    faults.append(f"{shown(path)}:{node.lineno} {node.name} has {length} lines (at most 60)")
    assert not faults, "\n".join(faults)


def test_functions_take_six_parameters_at_most() -> None:
    """Commands and plugins aside, whose options a user gives by name."""
    faults = []
    for path in [path for path in TOOLKIT if path.parent.name != "cli"]:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in MANY_PARAMETERS:
                given = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if (count := len([name for name in given if name not in ("self", "cls", "ctx")])) > 6:
                    faults.append(f"{shown(path)}:{node.lineno} {node.name} takes {count} parameters (at most 6)")
    assert not faults, "\n".join(faults)


def room(module: str) -> str:
    """Return the part of the toolkit that a dotted name belongs to: a folder of benchkit/ or a module beside them."""
    return module.split(".")[1] if module.startswith("benchkit.") else ""


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports inside functions are taken when they are needed, and those for types never."""
    modules = {module_name(path): path for path in TOOLKIT}
    graph = {
        name: {target for node in tree_of(path).body for target in imported_modules(node, set(modules))}
        for name, path in modules.items()
    }
    try:
        TopologicalSorter({name: targets - {name} for name, targets in graph.items()}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(node: ast.stmt, known: set[str]) -> set[str]:
    """Return the `known` modules that a statement imports; from a package the modules in it that it names."""
    if isinstance(node, ast.Import):
        return {name.name for name in node.names} & known
    if isinstance(node, ast.ImportFrom) and node.module:
        named = {f"{node.module}.{name.name}" for name in node.names}
        return (named & known) | ({node.module} & known if named - known else set())
    return set()


def test_rooms_import_only_rooms_of_their_layer_and_below() -> None:
    layer_of = {name: layer for layer, names in enumerate(LAYERS) for name in names}
    faults = []
    for path in TOOLKIT:
        here = path.relative_to(ROOT / "benchkit").parts[0].removesuffix(".py")
        if here in ("__init__", "__main__"):
            continue
        tree = tree_of(path)
        typing_alone = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing_alone:
                names = [room(node.module)] if node.module != "benchkit" else [one.name for one in node.names]
                faults += [
                    f"{shown(path)}:{node.lineno} ({here}) imports {name}"
                    for name in names
                    if name in layer_of and layer_of[name] > layer_of[here]
                ]
    assert {path.parts[-1].removesuffix(".py") for path in (ROOT / "benchkit").iterdir()} - UNLAYERED == set(layer_of)
    assert not faults, "\n".join(faults)


def test_one_name_is_one_class() -> None:
    places: dict[str, list[str]] = {}
    for path in [*TOOLKIT, *PLUGIN_SOURCES]:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(shown(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_values_are_frozen_slotted_and_given_by_name() -> None:
    faults = []
    for path in [*TOOLKIT, *PLUGIN_SOURCES]:
        for node in ast.walk(tree_of(path)):
            for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else ():
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "dataclass":
                    told = {keyword.arg: ast.unparse(keyword.value) == "True" for keyword in decorator.keywords}
                    right = {"frozen": node.name not in MUTABLE, "kw_only": node.name not in POSITIONAL}
                    right["slots"] = "cached_property" not in ast.unparse(node)
                    if wrong := [name for name, wanted in right.items() if told.get(name, False) != wanted]:
                        faults.append(f"{shown(path)}:{node.lineno} {node.name}: {' and '.join(wrong)}")
    assert not faults, "say so in @dataclass, or name the class in MUTABLE or POSITIONAL:\n" + "\n".join(faults)


def test_no_part_of_a_text_lost_its_f() -> None:
    """Of adjacent literals that make one text, one without its `f` shows its braces to the reader."""
    faults = [
        f"{shown(path)}:{node.lineno}: {part.value[-60:]}"
        for path in (*TOOLKIT, *PLUGIN_SOURCES)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.JoinedStr)
        for part in node.values
        if isinstance(part, ast.Constant) and re.search(r"\{[a-z_]\w*[.(][^{}]*\}", str(part.value))
    ]
    assert not faults, "\n".join(faults)


def test_modules_are_named_after_their_subject() -> None:
    faults = [shown(path) for path in SOURCES if path.stem in FORBIDDEN_NAMES or path.parent.name in FORBIDDEN_NAMES]
    assert not faults, "\n".join(faults)


def test_the_toolkit_is_two_folders_deep() -> None:
    assert [shown(path) for path in TOOLKIT if len(path.relative_to(ROOT / "benchkit").parts) > 3] == []


def test_only_the_command_line_prints() -> None:
    faults = [
        f"{shown(path)}:{node.lineno}"
        for path in [*TOOLKIT, *PLUGIN_SOURCES]
        if "cli" not in path.parts
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not faults, "\n".join(faults)


LOADED = """
import sys
sys.argv = ["benchkit", *{arguments!r}]
try:
    {statement}
except SystemExit as end:
    assert not end.code, f"exit status {{end.code}}"
heavy = {{"torch", "torchvision", "timm", "optuna", "altair", "sklearn", "scipy", "weasyprint"}} & set(sys.modules)
heavy |= {{"mlflow", "tensorboard", "wandb", "apprise", "duckdb", "pandas", "polars", "pyarrow"}} & set(sys.modules)
sys.exit(f"loaded: {{sorted(heavy)}}" if heavy else 0)
"""


def loads_nothing_heavy(statement: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = LOADED.format(arguments=list(arguments), statement=statement)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["plugins", "list"], ["plugins", "list", "--json"], ["studies", "list"]],
    ids=" ".join,
)
def test_listing_commands_load_no_framework(arguments: list[str]) -> None:
    done = loads_nothing_heavy("from benchkit.cli import main; sys.exit(main())", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_planning_modules_load_no_framework() -> None:
    modules = "benchkit.plan, benchkit.study.studyfile, benchkit.study.settings, benchkit.registry, benchkit.results"
    done = loads_nothing_heavy(f"import {modules}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_report_as_json_loads_nothing_that_draws() -> None:
    done = loads_nothing_heavy("import benchkit.report.write")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_engine_of_a_sweep_loads_no_tensors() -> None:
    """Its process lives for days beside the workers, who have torch each for themselves."""
    done = loads_nothing_heavy(
        "import benchkit.sweep.orchestration, benchkit.sweep.clustered; sys.modules.pop('optuna', 0)"
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("group", "name", "target"), ENTRY_POINTS, ids=[f"{g}:{n}" for g, n, _ in ENTRY_POINTS])
def test_entry_points_resolve(group: str, name: str, target: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name), "names are lower case with hyphens"
    module, _, attribute = target.partition(":")
    loaded = importlib.import_module(module)
    if group == "benchkit.studies":
        assert (ROOT / "benchkit" / "studies" / f"{name}.toml").is_file()
    else:
        assert callable(getattr(loaded, attribute))


def test_every_built_in_study_has_an_entry_point() -> None:
    shipped = {path.stem for path in (ROOT / "benchkit" / "studies").glob("*.toml")}
    assert shipped == set(PROJECT["project"]["entry-points"]["benchkit.studies"])


def test_every_package_is_in_the_distribution() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    toolkit = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "benchkit").rglob("__init__.py")}
    plugins = {".".join(path.parent.relative_to(ROOT / "plugins").parts) for path in PLUGIN_SOURCES}
    assert listed == {*toolkit, *plugins, "benchkit_templates"}


def test_the_version_is_told_once() -> None:
    assert benchkit.__version__ == PROJECT["project"]["version"]


def pins() -> list[Requirement]:
    return [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]


def test_constraints_are_exact_pins_and_nothing_else() -> None:
    for pin in pins():
        assert pin.url is None and not pin.extras, str(pin)
        assert [specifier.operator for specifier in pin.specifier] == ["=="], str(pin)


NOT_PINNED = {"bench", "mutants"}
"""The extras of tools that are taken as they come."""


def test_every_dependency_is_pinned_to_an_allowed_version() -> None:
    wanted = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    extras = PROJECT["project"]["optional-dependencies"]
    wanted += [Requirement(text) for name, texts in extras.items() if name not in NOT_PINNED for text in texts]
    pinned: dict[str, list[str]] = {}
    for pin in pins():
        pinned.setdefault(pin.name, []).append(next(iter(pin.specifier)).version)
    for requirement in wanted:
        assert any(one.operator == ">=" for one in requirement.specifier), f"{requirement} has no floor"
        versions = pinned.get(requirement.name, [])
        assert versions, f"{requirement.name} is not pinned: run make pins"
        assert all(requirement.specifier.contains(version) for version in versions), (
            f"{requirement} but pinned to {versions}"
        )


def test_no_tracked_file_names_a_package_registry() -> None:
    # In two parts, so that this file does not name one either.
    hosts = [
        f"{name}.{domain}".encode()
        for name, domain in [
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("registry.npmjs", "org"),
            ("deb.debian", "org"),
            ("download.pytorch", "org"),
            ("conda.anaconda", "org"),
        ]
    ]
    faults = [shown(path) for path in tracked_files() if any(host in path.read_bytes() for host in hosts)]
    assert not faults, "\n".join(faults)
