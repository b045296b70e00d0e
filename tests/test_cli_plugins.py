from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from throwaway_distributions import NORM, write_distribution

from benchkit.cli import main
from benchkit.cli.options import complete_kind, complete_plugin, complete_study
from benchkit.registry import Registry
from benchkit.registry.description import describe_all
from benchkit.registry.kinds import KINDS
from benchkit.study.settings import OWN_NAMES, OptimizerSettings, ScheduleSettings

HOSTILE = NORM.replace("Fixed response", r"[red]T\x1b[31m\u202e[/nope]").replace("Divides by one.", "[link=x]S\\n\\rT")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path and an empty cache; torch counts as not imported, as in the command line."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    yield folder


def lines_with(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line.split() for word in words)]


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main(["plugins", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_list_shows_kind_name_origin_and_status(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modules = {"cli_good.py": NORM, "cli_bad.py": "def broken(:\n"}
    targets = {"frn": "cli_good:Norm", "bad": "cli_bad:Norm", "lost": "cli_lost:Norm"}
    write_distribution(site, "alpha", {"norms": targets}, modules=modules, version="1.2")
    assert main(["plugins", "list", "--kind", "norm"]) == 0
    captured = capsys.readouterr()
    assert lines_with(captured.out, "norms", "frn", "alpha", "1.2", "unchecked")
    assert lines_with(captured.out, "norms", "bad", "broken", "SyntaxError")
    assert lines_with(captured.out, "norms", "lost", "broken", "'cli_lost'")
    assert lines_with(captured.out, "norms", "gn", "benchkit")
    assert not lines_with(captured.out, "models")
    assert captured.err.startswith("2 broken, ")
    assert "cli_good" not in sys.modules


def test_list_as_json_is_complete(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_distribution(site, "alpha", {"norms": {"frn": "a_one:Norm"}}, modules={"a_one.py": NORM})
    write_distribution(site, "beta", {"norms": {"frn": "no_such_b:Norm"}})
    code, rows = printed_json(capsys, "list")
    assert code == 0
    assert {row["kind"] for row in rows} == set(KINDS)
    found = {row["distribution"]: row for row in rows if row["name"] == "frn"}
    assert found["alpha"] == {
        "kind": "norms",
        "name": "frn",
        "distribution": "alpha",
        "version": "1.0",
        "target": "a_one:Norm",
        "origin": "alpha 1.0",
        "status": "unchecked",
        "reason": "",
        "title": "",
        "summary": "",
        "ambiguous": True,
    }
    assert (found["beta"]["status"], found["beta"]["reason"]) == ("broken", "there is no module 'no_such_b'")
    assert not any(row["ambiguous"] for row in rows if row["name"] != "frn")


def test_list_names_colliding_plugins_by_distribution(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("alpha", "beta"):
        write_distribution(site, name, {"norms": {"frn": "a:Norm"}})
    assert main(["plugins", "list"]) == 0
    out = capsys.readouterr().out
    assert lines_with(out, "alpha:frn") and lines_with(out, "beta:frn") and not lines_with(out, "frn")


def test_check_imports_and_fails_when_one_is_broken(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {"cli_check.py": NORM, "cli_raise.py": "raise RuntimeError('bad day')"}
    write_distribution(site, "alpha", {"norms": {"frn": "cli_check:Norm"}}, modules=modules)
    monkeypatch.setattr("benchkit.registry.Registry.entries", only_from("alpha"))
    assert main(["plugins", "list", "--check"]) == 0
    assert lines_with(capsys.readouterr().out, "frn", "ok", "Fixed")
    facts = site / "alpha-1.0.dist-info" / "entry_points.txt"
    facts.write_text(facts.read_text() + "bad = cli_raise:Norm\n")
    assert main(["plugins", "list", "--check"]) == 1
    out = capsys.readouterr().out
    assert lines_with(out, "frn", "ok") and lines_with(out, "bad", "broken", "RuntimeError:")


def only_from(distribution: str) -> Any:
    def entries(registry: Any, kind: str | None = None) -> tuple[Any, ...]:
        return tuple(entry for entry in registry.plugins if entry.distribution == distribution)

    return entries


def test_two_hundred_plugins_are_listed(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(200):
        targets = {"norms": {f"norm-{number}": f"cli_many_{number}:Norm"}}
        write_distribution(site, f"many-{number}", targets, modules={f"cli_many_{number}.py": NORM})
    code, rows = printed_json(capsys, "list", "--kind", "norms")
    assert code == 0
    assert {row["name"] for row in rows if row["distribution"].startswith("many-")} == {
        f"norm-{number}" for number in range(200)
    }
    assert {row["status"] for row in rows if row["distribution"].startswith("many-")} == {"unchecked"}


def test_show_prints_card_options_and_origin(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_distribution(site, "alpha", {"norms": {"frn": "cli_show:Norm"}}, modules={"cli_show.py": NORM})
    assert main(["plugins", "show", "frn"]) == 0
    out = capsys.readouterr().out
    for text in ("frn: Fixed response", "Divides by one.", "A. Author, 2020", "https://example.org", "alpha 1.0"):
        assert text in out
    assert lines_with(out, "eps", "float", "1e-05", "1e-08..0.01", "(log)", "root")


def test_show_as_json_holds_the_options(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_distribution(site, "alpha", {"norms": {"frn": "cli_show_json:Norm"}}, modules={"cli_show_json.py": NORM})
    code, (shown,) = printed_json(capsys, "show", "frn", "--kind", "norm")
    assert code == 0
    assert (shown["status"], shown["api"], shown["title"]) == ("ok", 1, "Fixed response")
    assert shown["options"] == [
        {
            "name": "eps",
            "type": "float",
            "required": False,
            "default": 1e-5,
            "default_text": "",
            "low": 1e-8,
            "high": 1e-2,
            "log": True,
            "choices": [],
            "help": "`eps` keeps the root from zero.",
        }
    ]


def test_show_tells_all_plugins_of_a_name_and_why_one_is_broken(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modules = {"cli_all.py": NORM, "cli_all_bad.py": "raise RuntimeError('bad day')"}
    modules["cli_all_model.py"] = "def model(num_classes, image_shape, norm, *, variant: str): pass"
    write_distribution(site, "alpha", {"norms": {"frn": "cli_all:Norm"}}, modules=modules)
    targets = {"norms": {"frn": "cli_all_bad:Norm"}, "models": {"frn": "cli_all_model:model"}}
    write_distribution(site, "beta", targets)
    assert main(["plugins", "show", "frn"]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("frn: ") == 3
    assert "RuntimeError: bad day" in captured.out and "Traceback" in captured.out
    assert "distribution:name" in captured.err
    assert main(["plugins", "show", "alpha:frn"]) == 0
    assert main(["plugins", "show", "frn:some-variant", "--kind", "models"]) == 0


def test_show_of_an_unknown_name_suggests(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "torch-nb"]) == 2
    assert "error: there is no plugin 'torch-nb' (did you mean 'torch-bn'?)" in capsys.readouterr().err


def test_show_of_a_name_of_another_kind_names_the_kind_that_lacks_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "resnet", "--kind", "norm"]) == 2
    told = capsys.readouterr().err
    assert "error: there is no norm 'resnet'" in told and "known norms: bin, bn, gn" in told


def test_an_unknown_kind_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "list", "--kind", "nrom"]) == 2
    assert "did you mean 'norm'?" in capsys.readouterr().err


def test_hostile_text_is_shown_as_text(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_distribution(site, "alpha", {"norms": {"frn": "cli_hostile:Norm"}}, modules={"cli_hostile.py": HOSTILE})
    for arguments in (["plugins", "show", "frn"], ["plugins", "list", "--kind", "norm"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "[red]T?[31m?[/nope]" in out
        assert "\x1b" not in out and "\u202e" not in out and "\r" not in out


def test_a_local_file_joins_the_list(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cli_local.py"
    path.write_text(NORM + 'PLUGINS = {"benchkit.norms": {"mine": Norm}}\n')
    code, rows = printed_json(capsys, "list", "--plugin", str(path))
    assert code == 0
    assert [row["origin"] for row in rows if row["name"] == "mine"] == [str(path)]
    assert main(["plugins", "show", "mine", "--plugin", str(path)]) == 0
    assert "Fixed response" in capsys.readouterr().out


def test_names_are_completed_from_metadata(site: Path) -> None:
    targets = {"norms": {"zz-frn": "no_such:Norm", "ZZ": "no_such:Norm"}, "studies": {"zz-study": "no_such"}}
    write_distribution(site, "alpha", targets)
    assert complete_plugin("zz") == [("zz-frn", "norm, alpha 1.0")]
    assert complete_study("zz") == [("zz-study", "study, alpha 1.0")]
    assert complete_kind("mo") == ["models"]


def test_a_flood_of_names_is_cut_and_counted(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = {f"flood-{number}": "no_flood:Norm" for number in range(2000)} | {"x" * 100_000: "no_flood:Norm"}
    write_distribution(site, "alpha", {"norms": targets})
    assert main(["plugins", "list", "--kind", "norm"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out) + len(captured.err) < 60_000
    assert captured.out.count("flood-") == 300 and "1,701 more norms of alpha are not shown" in captured.err
    assert main(["plugins", "show", "flood"]) == 2
    assert main(["sweep", "norms-cifar10", "--only", "model.norm=flood", "--dry-run"]) == 2
    assert len(capsys.readouterr().err) < 5_000
    _, rows = printed_json(capsys, "list", "--kind", "norm")
    assert len(rows) > 2000
    write_distribution(site, "beta", {"norms": {"y" * 100_000: "no_flood:Norm"}})
    main(["plugins", "list", "--kind", "norm"])
    assert "... (100,000 characters)" in capsys.readouterr().out


DATA = """
from pathlib import Path

import numpy as np

from benchkit import Splits, card
from benchkit.preparation import About, Draft, prepare


@card(title="Stripes", summary="Two classes of stripes.")
def stripes(root: Path, *, source: Path | None = None) -> Splits:
    def build(draft: Draft) -> About:
        images = np.arange(8 * 4 * 4, dtype=np.uint8).reshape(8, 4, 4, 1)
        for split in ("train", "test"):
            draft.write(split, images=images + (split == "test"), labels=np.arange(8) % 2)
        return About(class_names=("a", "b"), licence="CC0-1.0", citation="none")

    return prepare(Path(root), "stripes", build, options={"source": str(source)})


PLUGINS = {"benchkit.datasets": {"stripes": stripes}}
"""


def test_local_files_serve_every_command_that_names_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "data"))
    file, study = tmp_path / "mine.py", tmp_path / "s.toml"
    file.write_text(DATA)
    study.write_text('title = "S"\n[data]\nname = "stripes"\n[model]\nname = "mlp"\n[train]\nepochs = 1\n')
    assert main(["studies", "check", str(study)]) == 2
    assert "there is no data set 'stripes'" in capsys.readouterr().err
    assert main(["studies", "check", str(study), "--plugin", str(file)]) == 0
    assert main(["data", "import", "stripes", str(tmp_path), "--plugin", str(file)]) == 0
    assert list((tmp_path / "data").rglob("manifest.json"))
    given: list[Any] = []
    monkeypatch.setattr("benchkit.ledger.read_results", lambda *_: SimpleNamespace(trials=()))
    monkeypatch.setattr("benchkit.report.write.file_now", lambda *_: None)
    monkeypatch.setattr("benchkit.report.write.write_reports", lambda *_, registry: given.append(registry) or Made())
    assert main(["report", "s", "--plugin", str(file)]) == 0
    assert given[0].find("datasets", "stripes").file == file


class Made:
    """A report that needs no word."""

    paths = notes = problems = ()
    error = None


@pytest.mark.parametrize(
    ("kind", "names"),
    [("optimizers", ("sgd", "adam", "adamw")), ("schedules", ("constant", "step", "cosine", "one-cycle"))],
)
def test_benchkits_own_optimizers_and_schedules_have_cards(kind: str, names: tuple[str, ...]) -> None:
    registry = Registry.installed()
    assert set(names) <= set(registry.names(kind)) and OWN_NAMES[f"train.{kind[:-1]}"] == names
    for description in describe_all([registry.find(kind, name) for name in names]):
        assert description.status == "ok" and description.title and description.summary
        known = {option.name for option in description.options}
        fields = {"optimizers": OptimizerSettings, "schedules": ScheduleSettings}[kind].__dataclass_fields__
        assert known - {"**"} <= set(fields)  # what a study may write is what the card tells
        for option in description.options:
            assert option.name == "**" or option.default == fields[option.name].default
        assert (description.rates != "") == (kind == "optimizers")


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("timm:lion", "1e-06..0.001 (log), 0.0001 to begin with"),
        ("timm:muon", "0.0002..0.2 (log), 0.02 to begin with"),
        ("torch:SGD", "0.001..1 (log), 0.1 to begin with"),
    ],
)
def test_each_of_a_familys_optimizers_shows_rates_of_its_own(
    name: str, rates: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugins", "show", name, "--kind", "optimizers"]) == 0
    assert f"learning rates  {rates}" in capsys.readouterr().out


def test_a_kind_is_listed_by_the_word_that_kind_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "list"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}
    assert {"datasets", "norms", "losses"} <= listed and "data" not in listed
    for kind in sorted(listed):
        assert main(["plugins", "list", "--kind", kind]) == 0
