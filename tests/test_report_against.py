"""A report held against an earlier state: what it accepts as one, what it shows, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_results import HOSTILE, complete, rescored

import benchkit.ledger
from benchkit.analysis.summary import record_of
from benchkit.errors import ReportError
from benchkit.report.context.against import MOST_LINES, file_difference, read_record
from benchkit.report.context.numbers import several_intervals_words
from benchkit.report.write import ReportOptions, write_reports
from benchkit.results import StudyResults

LABELS = ("bn", "gn", "ln", HOSTILE[0])
THEN = {"bn": [0.80, 0.81, 0.79], "gn": [0.75, 0.78, 0.74], "ln": [0.70, 0.71, 0.72]}
NOW = {"bn": [0.85, 0.862, 0.842], "gn": [0.76, 0.77, 0.75]}


@pytest.fixture(scope="module")
def then(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResults, Path]:
    folder = tmp_path_factory.mktemp("then")
    results = rescored(complete(folder / "trials", LABELS, epochs=3), THEN)
    write_reports([results], folder / "out", ReportOptions(formats=frozenset({"html"})))
    return results, folder / "out"


def test_html_json_and_the_folder_of_a_report_carry_the_same_record(then: tuple[StudyResults, Path]) -> None:
    results, out = then
    known = record_of(results)
    for name in ("synthetic-norms.html", "synthetic-norms/results.json", "synthetic-norms"):
        assert read_record(out / name, "synthetic-norms") == known
    assert read_record(out / "synthetic-norms.html", "renamed") == known  # a single study is taken whatever its name


def test_a_workspace_is_read_through_its_ledger(
    then: tuple[StudyResults, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ledger.db").touch()
    results, _ = then

    class Held:
        def __init__(self, place: Path) -> None:
            assert place == tmp_path

        def studies(self) -> tuple[str, ...]:
            return ("other", "synthetic-norms")

    monkeypatch.setattr(benchkit.ledger, "UntouchedLedger", Held)
    monkeypatch.setattr(benchkit.ledger, "read_results", lambda place, name, storage: results)
    assert read_record(tmp_path, "synthetic-norms") == record_of(results)
    told = replace(results, study=replace(results.study, source='root = "/home/jane/data"'))
    monkeypatch.setattr(benchkit.ledger, "read_results", lambda place, name, storage: told)
    assert read_record(tmp_path, "synthetic-norms").source == 'root = "~/data"'
    with pytest.raises(ReportError, match=r"no study 'synthetic-normz' .did you mean 'synthetic-norms'"):
        read_record(tmp_path, "synthetic-normz")


def test_the_report_shows_what_changed(then: tuple[StudyResults, Path], tmp_path: Path) -> None:
    _, out = then
    fresh = rescored(complete(tmp_path / "trials", ("bn", "gn", HOSTILE[1]), epochs=4), NOW)
    write_reports([fresh], tmp_path, ReportOptions(formats=frozenset({"html"}), against=out / "synthetic-norms.html"))
    content = json.loads((tmp_path / "synthetic-norms" / "results.json").read_text())
    changes = content["changes"]
    assert [row["label"] for row in changes["main"]] == ["bn", "gn"]
    assert changes["gone"] == ["ln", HOSTILE[0]]
    assert changes["added"] == [HOSTILE[1]]
    assert {"kind": "setting", "name": "train.epochs", "old": "3", "new": "4"} in changes["properties"]
    (table,) = [one for one in content["tables"] if one["name"] == "changed-main"]
    rows = list(csv.DictReader(io.StringIO(table["csv"], newline="")))
    for row, known in zip(rows, changes["main"], strict=True):
        assert float(row["difference"]) == known["difference"]
        assert float(row["p_holm"]) == known["p_adjusted"]
        assert row["verdict_test"] == "paired"
    page = (tmp_path / "synthetic-norms.html").read_text()
    assert "Changes since then" in page
    assert "Beyond chance, test accuracy has changed for “bn” (+5.13 points)" in page
    assert "+epochs = 4" in page
    assert HOSTILE[0] not in page
    assert "Compared with" in page
    assert "Biometrika 34, 28-35" in page  # Welch's test tells which conditions may be the best


@pytest.mark.slow
def test_several_studies_are_each_compared_with_their_own_past(then: tuple[StudyResults, Path], tmp_path: Path) -> None:
    results, _ = then
    pair = [replace(results, study=replace(results.study, name=name)) for name in ("first", "second")]
    write_reports(pair, tmp_path / "old", ReportOptions(formats=frozenset({"html"})))
    old = tmp_path / "old" / "first+second.html"
    write_reports(pair, tmp_path / "new", ReportOptions(formats=frozenset({"html"}), against=old))
    content = json.loads((tmp_path / "new" / "first+second" / "results.json").read_text())
    assert [one["changes"]["old_study"] for one in content["studies"]] == ["first", "second"]
    assert all(row["verdict"] == "identical" for one in content["studies"] for row in one["changes"]["main"])
    with pytest.raises(ReportError, match="no study 'third'"):
        read_record(old, "third")


def test_nothing_comparable_is_one_error(then: tuple[StudyResults, Path], tmp_path: Path) -> None:
    _, out = then
    other = complete(tmp_path / "trials", ("none",), epochs=2)
    with pytest.raises(ReportError, match="nothing to compare") as caught:
        write_reports(
            [other], tmp_path / "new", ReportOptions(formats=frozenset({"html"}), against=out / "synthetic-norms.html")
        )
    assert caught.value.problems[1] == "now: none"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Expecting"),
        ("{}", "carries no record"),
        ('{"record": {"version": 99, "conditions": []}}', "version 99"),
        ('{"record": 3}', "no record of a study"),
        ('{"studies": 3}', "carries no record"),
        ("<html></html>", "carries no record"),
        ('<script type="application/json" class="record">{"a"</script>', "Expecting"),
        ("\udcff", "read as text"),
    ],
)
def test_what_is_no_report_is_refused_in_words(text: str, words: str, tmp_path: Path) -> None:
    place = tmp_path / "old"
    place.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ReportError, match=words) as caught:
        read_record(place, "norms")
    assert str(caught.value).startswith(f"--against {place}")


def test_a_folder_without_a_ledger_is_no_workspace_and_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="neither a ledger nor"):
        read_record(tmp_path, "norms")
    assert list(tmp_path.iterdir()) == []


def test_long_differences_of_study_files_are_cut() -> None:
    assert file_difference("a\nb\n", "a\nb\n") == []
    assert "+c" in file_difference("a\nb\n", "a\nb\nc\n")
    lines = file_difference("\n".join(map(str, range(500))), "")
    assert len(lines) == MOST_LINES + 1
    assert lines[-1] == f"... {500 + 3 - MOST_LINES} more lines"


def test_another_study_is_told_in_page_and_terminal(then: tuple[StudyResults, Path], tmp_path: Path) -> None:
    results, out = then
    other = replace(results, study=replace(results.study, name="other"))
    options = ReportOptions(formats=frozenset({"json"}), against=out / "synthetic-norms.html")
    told = "Then is another study, “synthetic-norms”, and now “other”"
    (note,) = write_reports([other], tmp_path, options).notes
    assert told in note
    content = json.loads((tmp_path / "other" / "results.json").read_text())
    assert [one["tone"] for one in content["findings"] if told in one["sentence"]] == ["warning"]
    assert write_reports([results], tmp_path, options).notes == ()


def test_intervals_over_folds_are_said_to_be_that() -> None:
    seeds, folds = several_intervals_words([("a", 0.0), ("b", 0.0)]), several_intervals_words([("a", 0.25)])
    assert seeds == "Brackets: 95 % t interval of the mean over repeats (random seeds), not over test images."
    assert "over folds" in folds and "√(1/n + 0.25)" in folds and "seeds" not in folds
    assert several_intervals_words([("a", 0.25), ("b", 0.0), ("c", 0.25)]) == f"a and c: {folds} b: {seeds}"
