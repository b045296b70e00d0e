"""What README and docs show is true: their snippets run, their commands and options exist, their links lead on."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from broken_norms import DropsAPixel
from kit_failures import failure_of
from PIL import Image
from tiny_study import FACTOR, run_here, write

from benchkit.analysis.source import protocol
from benchkit.cli import main
from benchkit.metrics import Predictions
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.registry.kinds import KINDS
from benchkit.registry.local_files import file_entries
from benchkit.results import StudyResults
from benchkit.study.checks import check_plan
from benchkit.study.schema import study_schema
from benchkit.study.studyfile import parse_study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name not in ("reference", "_build"))
PAGES = sorted([*ROOT.glob("*.md"), *DOCS, *(ROOT / "plugins").rglob("*.md")])


def page(name: str) -> str:
    """Return a page of the documentation."""
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


OWN_NORM, OWN_STUDY, OWN_METRIC, OWN_PLUGIN = (
    page(f"how-to/own-{what}") for what in ("norm", "study", "metric", "plugin")
)


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def commands(program: str, *pages: str) -> list[list[str]]:
    """Return the arguments of every line that calls `program` in the console blocks of pages, else of the README."""
    texts = [block for page in pages or (README,) for block in blocks("console", page)]
    lines = [shlex.split(line, comments=True) for text in texts for line in text.splitlines()]
    return [words[1:] for words in lines if words and words[0] == program]


def test_the_norm_is_the_one_that_the_packaging_tests_install() -> None:
    (snippet,) = blocks("python", OWN_NORM)
    folder = ROOT / "tests" / "third_party"
    assert snippet == (folder / "pixel_norm.py").read_text()
    declared = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    shown = [tomllib.loads(block) for block in blocks("toml", OWN_NORM) if "entry-points" in block]
    assert [table["project"]["entry-points"] for table in shown] == [declared]


def test_the_norm_scales_every_pixel_to_unit_mean_square() -> None:
    names: dict[str, type[torch.nn.Module]] = {}
    exec(blocks("python", OWN_NORM)[0], names)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float32)
    reference = x.double() / torch.linalg.vector_norm(x.double(), dim=1, keepdim=True) * 5**0.5
    torch.testing.assert_close(names["PixelNorm"](5, eps=0.0)(x).double(), reference, rtol=1e-6, atol=1e-6)
    assert names["PixelNorm"](5)(x.bfloat16()).dtype == torch.bfloat16


def test_the_study_is_valid() -> None:
    (text,) = [block for block in blocks("toml", OWN_STUDY) if "question" in block]
    study = parse_study(text, name="readme")
    assert [level.label for level in study.factors[0].levels] == ["bn", "gn", "ln", "none"]
    assert study.search is not None and study.search.trials == 20
    assert study.repeats == 3


def test_the_source_belongs_to_the_study_and_passes_its_check() -> None:
    (study_text,) = [block for block in blocks("toml", OWN_STUDY) if "question" in block]
    (source_text,) = blocks("toml", page("how-to/repeat-a-paper"))
    study = parse_study(study_text + source_text, name="readme")
    check_plan(make_plan(study), Registry.installed())
    rows = protocol(StudyResults(study=study, conditions=make_plan(study).conditions, trials=()))
    kinds = {row.path: row.kind for row in rows if row.kind != "ours"}
    assert kinds == {"train.batch_size": "kept", "train.epochs": "departed", "data.name": "inferred"}


@pytest.mark.parametrize(
    "arguments", commands("benchkit", README, *(path.read_text(encoding="utf-8") for path in DOCS)), ids=" ".join
)
def test_commands_and_options_exist(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([arguments[0], "--help"]) == 0
    usage = capsys.readouterr().out
    if "COMMAND" in usage.partition("\n")[0]:
        assert main([*arguments[:2], "--help"]) == 0
        usage = capsys.readouterr().out
    options = {word for word in arguments if word.startswith("--")}
    assert options <= set(re.findall(r"--[a-z-]+", usage))


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {words[0] for words in commands("make")} | set(re.findall(r"`make ([a-z]+)`", README))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if not target.startswith("https://")]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_the_page_of_errors_tells_of_messages_that_there_are() -> None:
    files = [path for folder in ("benchkit", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))]
    sources = re.sub(r'" f?"', "", " ".join(" ".join(path.read_text(encoding="utf-8").split()) for path in files))
    told = [part for line in re.findall(r"^\*\*(.+?)\.\*\*", page("errors"), re.M) for part in re.split("[;,] ", line)]
    assert len(told) > 20 and [part for part in told if part not in sources] == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_table_of_a_study_file_is_one_that_there_is(page: Path) -> None:
    allowed = study_schema(Registry.installed())
    for text in blocks("toml", page.read_text(encoding="utf-8")):
        shown = tomllib.loads(text)
        if not shown.keys() & {"project", "track"}:
            parts = {key: value for key, value in allowed.items() if key != "required"}
            assert [error.message for error in jsonschema.Draft7Validator(parts).iter_errors(shown)] == []


def test_a_single_file_is_enough_for_a_quick_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (declared,) = re.findall(r"`(PLUGINS = [^`]+)`", OWN_NORM)
    path = tmp_path / "pixel_norm.py"
    path.write_text(f"{blocks('python', OWN_NORM)[0]}\n\n{declared}\n", encoding="utf-8")
    assert main(["plugins", "check", "pixel", "--plugin", str(path)]) == 0
    assert "pixel" in capsys.readouterr().out


def test_the_failed_check_reads_as_shown() -> None:
    assert f"```\n{failure_of('norms', DropsAPixel, 'shapes')}\n```" in OWN_NORM


def test_the_metric_scores_and_passes_its_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "top_two.py"
    path.write_text(blocks("python", OWN_METRIC)[0], encoding="utf-8")
    names: dict[str, Any] = {}
    exec(path.read_text(), names)
    logits = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 3.0, 1.0], [0.0, 1.0, 2.0]], np.float32)
    scored = Predictions(logits=logits, labels=np.array([1, 0, 0, 2]))
    assert names["top_two"](scored) == 0.75  # the second image's class is its third
    assert main(["plugins", "check", "top-two", "--plugin", str(path)]) == 0
    assert "top-two" in capsys.readouterr().out
    (asked,) = blocks("toml", OWN_METRIC)
    assert tomllib.loads(asked)["report"]["metrics"] == ["top-two"]


def own_plugins(folder: Path) -> dict[str, Path]:
    """Write the files of the page of plugins of any other kind; return them by the plugin's name."""
    written = {}
    for file, source in re.findall(r"^`(\w+\.py)`\..*?^```python\n(.*?)^```$", OWN_PLUGIN, flags=re.M | re.S):
        (folder / file).write_text(source, encoding="utf-8")
        written[file.removesuffix(".py").replace("_", "-")] = folder / file
    return written


def test_there_is_an_example_of_each_kind_of_plugin(tmp_path: Path) -> None:
    files = [entry for path in own_plugins(tmp_path).values() for entry in file_entries(path)]
    kinds = [entry.kind for entry in files]
    assert len(kinds) == len(set(kinds)) == len(blocks("python", OWN_PLUGIN))
    assert {*kinds, "norms", "metrics", "studies"} == {*KINDS}


@pytest.mark.parametrize("name", [*re.findall(r"^PLUGINS = .*\"([a-z-]+)\": \w+\}\}$", OWN_PLUGIN, flags=re.M)])
def test_each_example_passes_the_kit(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "check", name, "--plugin", str(own_plugins(tmp_path)[name])]) == 0
    assert " passed" in capsys.readouterr().out


def test_the_examples_are_trained_and_drawn_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [word for path in own_plugins(tmp_path).values() for word in ("--plugin", str(path))]
    (study,) = blocks("toml", OWN_PLUGIN)
    (tmp_path / "own.toml").write_text(study, encoding="utf-8")
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "data"))
    assert run_here(monkeypatch, tmp_path, "sweep", "own.toml", *given) == 0
    assert run_here(monkeypatch, tmp_path, "report", "own.toml", "--format", "html", *given) == 0
    (report,) = tmp_path.glob("reports/*.html")
    assert "Test accuracy of 2 repeats, a mark for each." in report.read_text(encoding="utf-8")


def test_the_notebook_reads_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    study = write(tmp_path / "tiny.toml", FACTOR)
    assert run_here(monkeypatch, tmp_path, "sweep", study) == 0
    (text,) = blocks("python", page("how-to/tables"))
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(text.replace('"quickstart"', '"tiny"'), names)
    assert names["best"]["val_loss"] == names["trials"]["val_loss"].min()
    assert "mark" in str(names["chart"].to_dict())


@pytest.mark.slow
def test_what_pages_show_runs_in_order_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tutorial, tables and the model to use, with a study of seconds; a new study is trained by --smoke alone."""
    write(tmp_path / "tiny.toml", FACTOR)
    Image.new("RGB", (8, 8), "white").save(tmp_path / "photo.jpg")
    ran = []
    for name in ("tutorial", "how-to/tables", "how-to/model"):
        for words in commands("benchkit", page(name)):
            if "my-study.toml" in words and words[0] in ("sweep", "report") and "--smoke" not in words:
                continue
            study = "tiny.toml" if words[0] in ("sweep", "studies") else "tiny"
            arguments = [study if word == "quickstart" else word for word in words]
            assert run_here(monkeypatch, tmp_path, *arguments) == 0, words
            ran.append(words[0])
    assert ran.count("sweep") == 3 and {"doctor", "status", "report", "export", "query", "model", "predict"} <= set(ran)
