"""`benchkit report`: which files it writes, what it prints, and its exit codes."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_results import complete, empty

import benchkit.ledger
import benchkit.report.write as write_module
from benchkit.analysis.summary import summarize
from benchkit.capsule import read_capsule
from benchkit.cli import main
from benchkit.errors import ReportError
from benchkit.registry import Registry
from benchkit.report.context.blocks import FigureBlock, PictureRow, Section
from benchkit.report.context.compose import compose
from benchkit.report.figures.figure_files import kept_figures
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.files.html import render_html
from benchkit.report.files.pdf import PangoMissing, PdfPrinter
from benchkit.report.write import write_report
from benchkit.results import StudyResults
from benchkit.verify.opening import open_report


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Path, str | None, str | None]]:
    """Answer every reading of the ledger with a small study, and remember what was asked."""
    found: list[tuple[Path, str | None, str | None]] = []
    results = complete(tmp_path / "trials", ("bn",), repeats=1, epochs=2)

    def read(workspace: Path, study: str | None = None, storage: str | None = None) -> StudyResults:
        found.append((workspace, study, storage))
        later = len(found)  # each study's trials are its own
        return replace(results, trials=tuple(replace(one, started=one.started + later) for one in results.trials))

    monkeypatch.setattr(benchkit.ledger, "read_results", read)
    return found


def test_it_writes_html_alone(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["report", "--format", "html", "--out", str(out), "-w", str(tmp_path)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["synthetic-norms", "synthetic-norms.html"]
    assert asked == [(tmp_path, None, None)]
    printed = capsys.readouterr().out.split()
    assert printed == [str(out / "synthetic-norms.html"), str(out / "synthetic-norms")]
    names = sorted(path.name for path in (out / "synthetic-norms").iterdir())
    assert names == [
        "capsule.zip", "figures", "index.md", "references.bib", "results.json", "results.schema.json", "settings.toml",
        "study.toml", "tables",
    ]  # fmt: skip
    assert {path.suffix for path in (out / "synthetic-norms" / "figures").iterdir()} == {".csv"}


def test_formats_can_be_chosen(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--format", "figures", "-f", "json", "--out", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["synthetic-norms"]
    folder = tmp_path / "out" / "synthetic-norms"
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".svg", ".pdf", ".png"}
    assert (folder / "results.json").exists() and not (folder / "tables").exists()
    capsys.readouterr()
    assert main(["report", "--format", "html, figurs,x", "--out", str(tmp_path / "no")]) == 2
    assert "unknown: figurs (did you mean 'figures'?)" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    assert asked


def test_a_broken_template_is_one_error(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "cover.html.j2").write_text("\n{{ report.titel }}")
    arguments = ["report", "-f", "html", "--templates", str(tmp_path / "own"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "cover.html.j2, line 2" in told and "titel" in told and "Traceback" not in told
    assert not (tmp_path / "out").exists()
    assert asked


def test_a_study_is_named_as_file_or_by_name(asked: list[tuple[Path, str | None, str | None]], tmp_path: Path) -> None:
    assert main(["report", "a/first.toml", "second", "-f", "html", "-o", str(tmp_path), "--separate"]) == 0
    assert [study for _, study, _ in asked] == ["first", "second"]


def test_several_studies_make_one_report(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "first", "second.toml", "first", "-f", "html", "-o", str(tmp_path / "out")]) == 0
    assert [study for _, study, _ in asked] == ["first", "second"]
    stem = "synthetic-norms+synthetic-norms"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [stem, f"{stem}.html"]
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / f"{stem}.html"), str(tmp_path / "out" / stem)]


def test_a_report_has_the_name_it_is_given(asked: list[tuple[Path, str | None, str | None]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["report", "first", "second", "-f", "html", "-o", str(out), "--name", "../both norms"]) == 0
    assert main(["report", "first", "-f", "html", "-o", str(out), "--name", "one"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["both-norms", "both-norms.html", "one", "one.html"]


def test_one_name_for_separate_reports_is_an_error(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "first", "second", "-o", str(tmp_path / "out"), "--separate", "--name", "both"]) == 2
    assert "--name names one report" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_trials_that_are_given_twice_agree_with_nothing(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "first", "-f", "html", "-o", str(tmp_path / "out")]) == 0
    made = str(tmp_path / "out" / "synthetic-norms.html")
    assert main(["report", made, made, "-f", "html", "-o", str(tmp_path / "both")]) == 2
    told = capsys.readouterr().err
    assert "synthetic-norms is given twice: 1 trial of one training in both" in told and "--against OLD" in told
    assert not (tmp_path / "both").exists()
    assert main(["report", made, made, "-f", "json", "-o", str(tmp_path / "both"), "--separate"]) == 0


def test_an_earlier_report_is_compared_with(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = tmp_path / "earlier"
    assert main(["report", "-f", "html", "-o", str(earlier)]) == 0
    old = str(earlier / "synthetic-norms.html")
    assert main(["report", "-f", "html", "-o", str(tmp_path / "now"), "--against", old]) == 0
    assert "Changes since then" in (tmp_path / "now" / "synthetic-norms.html").read_text()
    capsys.readouterr()
    assert main(["report", "-f", "html", "-o", str(tmp_path / "none"), "--against", str(tmp_path / "absent")]) == 2
    told = capsys.readouterr().err
    assert "there is no such file or folder" in told and "Traceback" not in told
    assert not (tmp_path / "none").exists()


def test_without_pango_html_is_there_and_the_exit_code_says_so(
    asked: list[tuple[Path, str | None, str | None]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: object, **__: object) -> bytes:
        raise PangoMissing("the PDF needs Pango", hint="apt install libpango-1.0-0")

    monkeypatch.setattr(PdfPrinter, "finish", missing)
    assert main(["report", "--out", str(tmp_path / "out")]) == 2
    assert (tmp_path / "out" / "synthetic-norms.html").exists()
    assert not (tmp_path / "out" / "synthetic-norms.pdf").exists()
    assert "apt install libpango-1.0-0" in capsys.readouterr().err
    assert asked


def test_a_broken_figure_is_told(
    asked: list[tuple[Path, str | None, str | None]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: FigureSet, *_: object) -> object:
        raise ZeroDivisionError("nothing to divide")

    monkeypatch.setattr(FigureSet, "_drawn", fail)
    assert main(["report", "--format", "html", "--out", str(tmp_path)]) == 1
    assert "ZeroDivisionError: nothing to divide" in capsys.readouterr().err
    assert "ZeroDivisionError" in (tmp_path / "synthetic-norms.html").read_text()
    assert asked


def test_a_report_that_is_made_again_replaces_the_old_one(tmp_path: Path) -> None:
    for _ in range(2):
        write_module.write_report(empty(), tmp_path, "html")
    assert not [path for path in tmp_path.rglob(".*")]


def test_a_file_edited_since_its_sweep_says_how_the_report_is_shown(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = complete(tmp_path / "source", ("bn",), repeats=1, epochs=2).study.source
    edited = source.replace('title = "', 'title = "Edited: ') + '\n[report]\nkeywords = ["edited"]\n'
    file = tmp_path / "synthetic-norms.toml"
    for text, title, note in (
        (edited, "Edited: ", ""),
        (edited.replace("epochs = 2", "epochs = 77"), "", "its settings differ from those that were trained"),
    ):
        file.write_text(text)
        assert main(["report", str(file), "-f", "json", "-o", str(tmp_path / "out")]) == 0
        content = json.loads((tmp_path / "out" / "synthetic-norms" / "results.json").read_text())
        assert content["study"]["title"].startswith(title)
        assert content["study"]["keywords"] == (["edited"] if title else [])
        assert note in capsys.readouterr().err
        assert content["figures"] == []
    assert [name for _, name, _ in asked] == ["synthetic-norms"] * 2


def test_a_report_is_made_anew_from_its_own_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = complete(tmp_path / "trials", ("bn", "gn"), repeats=2, epochs=2)
    write_report(results, tmp_path / "old", "html", registry=Registry.installed())
    page = tmp_path / "old" / "synthetic-norms.html"
    assert main(["report", str(page), "--format", "html", "--out", str(tmp_path / "new")]) == 0
    old, new = (json.loads((tmp_path / at / "synthetic-norms" / "results.json").read_text()) for at in ("old", "new"))
    assert [table["csv"] for table in new["tables"]] == [table["csv"] for table in old["tables"]]
    assert (new["answer"], new["findings"]) == (old["answer"], old["findings"])
    before, after = (read_capsule(open_report(tmp_path / at / page.name).capsule) for at in ("old", "new"))
    assert after.trials == before.trials  # with the digests of the predictions that were there once
    capsys.readouterr()
    assert main(["report", str(tmp_path / "old" / "synthetic-norms" / "index.md.html"), "--out", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_studies_and_reports_keep_the_order_in_which_they_are_given(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path
) -> None:
    results = complete(tmp_path / "other", ("bn", "gn"), repeats=2, epochs=2)
    other = replace(results, study=replace(results.study, name="other"))
    write_report(other, tmp_path, "html", registry=Registry.installed())
    given = {"synthetic-norms": "synthetic-norms", "other": str(tmp_path / "other.html")}
    for names in (["synthetic-norms", "other"], ["other", "synthetic-norms"]):
        files = [given[name] for name in names]
        assert main(["report", *files, given["synthetic-norms"], "-f", "json", "-o", str(tmp_path)]) == 0
        content = json.loads((tmp_path / "+".join(names) / "results.json").read_text())
        assert [study["study"]["name"] for study in content["studies"]] == names


def test_the_figures_of_a_page_are_read_back(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn", "gn"), repeats=2, epochs=2)
    figures = FigureSet(results=results, registry=Registry.installed())
    drawn = replace(chart_of(figures, "confusion-matrix"), number=0, title="")
    grid = replace(
        drawn, name="maps", plugin="maps", spec="", columns=("image", "early <layer>"), caption="a & b",
        pictures=(PictureRow(caption="bn: cat", sources=(PIXEL, PIXEL)), PictureRow(caption="gn", sources=(PIXEL,))),
    )  # fmt: skip
    part = Section(number=1, name="s", title="S", blocks=(drawn, grid))
    report = replace(compose(results, summarize(results)), sections=(part,))
    found = kept_figures(render_html(report))
    assert found.keys() == {"confusion-matrix", "maps"}
    assert json.loads(found["confusion-matrix"].spec) == json.loads(drawn.spec)
    assert replace(found["confusion-matrix"], spec=drawn.spec, shows=drawn.shows) == drawn
    assert replace(found["maps"], alt_text=grid.alt_text, shows=grid.shows) == grid


def test_what_was_observed_of_models_is_shown_as_the_earlier_page_has_it(tmp_path: Path) -> None:
    results = complete(tmp_path, ("bn", "gn"), repeats=2, epochs=2)
    kept = replace(chart_of(FigureSet(results=results, registry=Registry.installed()),
                            "confusion-matrix"), plugin="feature-quantiles", caption="as it was")  # fmt: skip
    figures = FigureSet(results=results, registry=Registry.installed(), kept={"feature-quantiles": kept})
    assert chart_of(figures, "feature-quantiles").caption == "as it was"
    assert chart_of(replace(figures, kept={"learning-curves": kept}), "learning-curves").caption != "as it was"


def test_what_was_read_is_let_go_of_once_what_is_shown_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[int] = []

    def reading(*_: object) -> StudyResults:
        results = complete(tmp_path / "trials", ("bn",), repeats=1, epochs=2)
        read.append(id(results.trials))
        return results

    def built(shown: list[StudyResults], *_: object) -> None:
        gc.unfreeze()
        alive = {id(one.trials) for one in gc.get_objects() if type(one) is StudyResults}
        assert id(shown[0].trials) in alive and read[0] not in alive
        raise ReportError("enough is seen")

    monkeypatch.setattr(benchkit.ledger, "read_results", reading)
    monkeypatch.setattr(write_module, "_built", built)
    assert main(["report", "--out", str(tmp_path / "out")]) == 2
    assert "enough is seen" in capsys.readouterr().err and read


def test_a_page_whose_figures_load_something_is_refused() -> None:
    spec = '{"data": {"url": "https://example.org/a.csv"}, "mark": "bar"}'
    page = f'<figure class="figure" id="figure-a"><script type="application/json" class="spec">{spec}</script></figure>'
    with pytest.raises(ReportError):
        kept_figures(page)
    with pytest.raises(ReportError, match="damaged"):
        kept_figures(page.replace('{"data"', '{{"data"'))


PIXEL = "data:image/png;base64,iVBORw0KGgo="


def chart_of(figures: FigureSet, plugin: str) -> FigureBlock:
    block = figures.block(plugin)
    assert isinstance(block, FigureBlock)
    return block


@pytest.mark.parametrize(("torch", "frozen"), [("", True), ("import torch\n", False)])
def test_a_report_ends_without_a_last_look_for_garbage_unless_pytorch_is_there(torch: str, frozen: bool) -> None:
    script = (
        f"{torch}import atexit, gc\nfrom benchkit.cli import main\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0))\nmain(['report', '--workspace', 'none'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == str(frozen)


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_made(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(write_module, "_built", None)
    (tmp_path / "file").touch()
    assert main(["report", "--out", str(tmp_path / "file" / "in"), "-w", str(tmp_path)]) == 2
    assert f"{tmp_path / 'file'} is a file, expected a folder" in capsys.readouterr().err
    write_module.check_folder(tmp_path / "new" / "out")
    assert [path.name for path in tmp_path.iterdir() if path.name != "trials"] == ["file"]

    def refuse(dir: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(write_module.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ReportError, match=f"nothing can be written into {tmp_path}: Read-only file system"):
        write_module.check_folder(tmp_path / "new" / "out")


def test_a_full_disk_is_one_error_that_names_the_file(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["report", "--format", "json", "--out", str(tmp_path / "out"), "-w", str(tmp_path)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"error: {tmp_path / 'out'}") and told[0].endswith(": No space left on device")


def test_a_pdf_that_has_no_room_among_temporary_files_costs_itself_alone(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("benchkit.report.files.pdf._put", refuse)
    assert main(["report", "--format", "html,pdf", "--out", str(tmp_path / "out"), "-w", str(tmp_path)]) == 2
    assert (tmp_path / "out" / "synthetic-norms.html").is_file()
    told = capsys.readouterr().err
    assert "the PDF could not be made" in told and "No space left on device" in told and "TMPDIR" in told


def test_a_report_that_is_told_to_stop_ends_as_by_ctrl_c(
    asked: list[tuple[Path, str | None, str | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(write_module, "_built", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["report", "--format", "json", "--out", str(tmp_path / "out"), "-w", str(tmp_path)]) == 143
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_damaged_predictions_cost_no_report(tmp_path: Path, content: bytes) -> None:
    results = complete(tmp_path / "trials", ("bn", "gn"), repeats=2, epochs=2)
    damaged = results.trials[0]
    (damaged.folder / "predictions.safetensors").write_bytes(content)
    written = write_report(results, tmp_path / "out", "html", registry=Registry.installed())
    capsule = read_capsule(open_report(written.paths[0]).capsule)
    without = [trial.predictions == "" for trial in capsule.trials[0]]
    assert without == [trial is damaged for trial in results.trials]
