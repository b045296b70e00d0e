"""`benchkit verify`: what holds, what was changed, what cannot be read."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pikepdf
import pypdf
import pytest
from capsule_edits import capsule_in, edited, members, put_into, resealed, sha256, zipped
from synthetic_results import ENVIRONMENT, complete, with_search

from benchkit.cli import main
from benchkit.registry import Registry
from benchkit.report.page_text import unpacked
from benchkit.report.write import write_report
from benchkit.results import StudyResults
from benchkit.verify.recomputed import differing_columns, same_csv

NAME = "synthetic-norms"


def report(results: StudyResults, folder: Path, *, pdf: bool = False) -> Path:
    written = write_report(results, folder, *(("html", "pdf") if pdf else ("html",)), registry=Registry.installed())
    assert written.error is None
    return folder / f"{NAME}.html"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    report(complete(folder / "trials", ("bn", "gn"), repeats=3, epochs=3), folder, pdf=True)
    return folder


@pytest.fixture
def html(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made / f"{NAME}.html", tmp_path))


@pytest.fixture
def pdf(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made / f"{NAME}.pdf", tmp_path))


@pytest.fixture
def verify(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, tuple[str, str]]]]:
    """Verify a file where no data set is prepared; return the exit code, and state and words of each check."""
    monkeypatch.setenv("BENCHKIT_DATA", str(tmp_path / "no-data"))

    def run(path: Path, *options: str) -> tuple[int, dict[str, tuple[str, str]]]:
        code = main(["verify", str(path), "--json", *options])
        checks = json.loads(capsys.readouterr().out)["checks"]
        return code, {one["check"]: (one["state"], "\n".join([one["told"], *one["problems"]])) for one in checks}

    return run


def failed(checks: Mapping[str, tuple[str, str]]) -> list[str]:
    return [name for name, (state, _) in checks.items() if state == "fails"]


def test_both_files_hold_and_carry_the_same_capsule(html: Path, pdf: Path, verify: Any) -> None:
    reader = pypdf.PdfReader(pdf)
    assert reader.attachments["capsule.zip"] == [capsule_in(html)]
    for path, own in ((html, {"tables as shown", "data in the page"}), (pdf, {"attachments"})):
        code, checks = verify(path)
        assert code == 0 and failed(checks) == []
        holding = {name for name, (state, _) in checks.items() if state == "holds"}
        assert holding >= {"capsule", "capsule's members", "numbers", "sentences", "settings", "seeds", *own}
        assert checks["figures"][0] == "unchecked"
        assert checks["data digits"] == ("unchecked", "not prepared here (fingerprint 000000000000)")


def test_one_digit_in_a_table_of_the_page(html: Path, verify: Any) -> None:
    text = html.read_text()
    row = re.search(r'id="table-ranking".*?<td[^>]*>(\d\d\.\d\d)<', text, re.S)
    assert row
    changed = row[1][:-1] + str((int(row[1][-1]) + 1) % 10)
    html.write_text(text[: row.start(1)] + changed + text[row.end(1) :])
    code, checks = verify(html)
    assert code == 1 and failed(checks) == ["page", "tables as shown", "numbers"]
    assert checks["tables as shown"][1].endswith("table-ranking (table 1) was changed")
    assert f"table 1 (ranking), row 1: shows '{changed}" in checks["numbers"][1]
    assert f"the trials give '{row[1]}" in checks["numbers"][1]


def test_a_changed_sentence_and_changed_data(html: Path, verify: Any) -> None:
    text = html.read_text()
    answer = re.search(r'<h2 class="answer-title">.*?<p>(.*?)</p>', text, re.S)
    assert answer
    # The same sentence stands among the findings, where it is left as it was.
    html.write_text(resealed(text.replace(answer[1], "gn is best by far.", 1)))
    code, checks = verify(html)
    assert code == 1 and failed(checks) == ["sentences"] and answer[1] in unescape(checks["sentences"][1])
    caption = re.search(r'<span class="caption">(.*?)</span>', text)
    assert caption
    html.write_text(resealed(text.replace(caption[1], "Not so.")))
    assert failed(verify(html)[1]) == ["sentences"]
    payload = re.search(r'id="table-ranking".*?class="payload">(.*?)</script>', text, re.S)
    assert payload
    changed = re.sub(r"\d\.\d+", "0.99", json.dumps(unpacked(payload[1])), count=1)
    html.write_text(text[: payload.start(1)] + changed + text[payload.end(1) :])
    code, checks = verify(html)
    assert code == 1 and failed(checks) == ["page", "data in the page", "numbers"]
    assert "its CSV has other numbers" in checks["numbers"][1]


def test_what_no_other_check_reads_is_the_page_s(html: Path, verify: Any) -> None:
    text = html.read_text()
    for before, after in (('aria-label="', 'aria-label="Not '), (" data-v=", " data-v=1"), ("<!-- sha256", "<!-- sha")):
        assert before in text
        html.write_text(text.replace(before, after, 1))
        assert failed(verify(html)[1]) == ["page"], before


@pytest.mark.parametrize("suffix", ["html", "pdf"])
def test_files_beside_a_report_are_checked_with_it(made: Path, tmp_path: Path, verify: Any, suffix: str) -> None:
    page = Path(shutil.copy(made / f"{NAME}.{suffix}", tmp_path))
    folder = shutil.copytree(made / NAME, tmp_path / NAME)
    (folder / "index.md").write_text("What a later command wrote.")
    assert verify(page)[1]["files beside it"][0] == "holds"
    (folder / "results.json").write_text((folder / "results.json").read_text().replace('"mean": 0.', '"mean": 0.9', 1))
    code, checks = verify(page)
    assert code == 1 and failed(checks) == ["files beside it"]
    assert checks["files beside it"][1].endswith("results.json was changed")


def test_tables_that_are_taken_away_or_added(html: Path, verify: Any) -> None:
    text = html.read_text()
    html.write_text(text.replace('id="table-cost"', 'id="table-price"'))
    code, checks = verify(html)
    assert code == 1
    assert "table-price is not in the capsule" in checks["tables as shown"][1]
    assert "table-cost (table" in checks["tables as shown"][1]


def better(trials: list[dict[str, Any]]) -> None:
    """Change one digit of one trial's accuracy."""
    for trial in trials[:1]:
        found = trial["metrics"]["test"]
        found["accuracy"] += 0.01


@pytest.mark.parametrize(
    ("digests", "digest", "expected"),
    [
        (False, False, ["capsule", "capsule's members", "page", "numbers", "sentences"]),
        (True, False, ["capsule", "page", "numbers", "sentences"]),
        (True, True, ["numbers", "sentences"]),
    ],
)
def test_one_number_in_the_capsule(html: Path, verify: Any, digests: bool, digest: bool, expected: list[str]) -> None:
    changed = edited(capsule_in(html), {f"1-{NAME}/trials.json": better}, digests=digests)
    put_into(html, changed, digest=digest)
    code, checks = verify(html)
    assert code == 1 and failed(checks) == expected
    assert "table 1 (ranking)" in checks["numbers"][1]


def test_settings_and_seeds_must_fit(html: Path, verify: Any) -> None:
    def settings(head: dict[str, Any]) -> None:
        head["studies"][0]["conditions"][0]["settings"]["train"]["epochs"] = 4

    def seeds(trials: list[dict[str, Any]]) -> None:
        trials[0]["seeds"]["order"] += 1

    put_into(html, edited(capsule_in(html), {"capsule.json": settings, f"1-{NAME}/trials.json": seeds}))
    code, checks = verify(html)
    assert code == 1 and {"settings", "seeds"} <= set(failed(checks))


def test_numbers_that_no_summary_takes(html: Path, verify: Any) -> None:
    def broken(trials: list[dict[str, Any]]) -> None:
        trials[0]["metrics"]["test"].update(accuracy=7.0, n=-3)

    put_into(html, edited(capsule_in(html), {f"1-{NAME}/trials.json": broken}))
    assert verify(html)[0] == 1


def test_one_digit_in_an_attachment_of_the_pdf(pdf: Path, verify: Any) -> None:
    name = "tables-01-ranking.csv"
    with pikepdf.open(pdf, allow_overwriting_input=True) as document:
        content = document.attachments[name].get_file().read_bytes()
        found = re.search(rb"0\.\d+", content)
        assert found
        digit = b"1" if found[0][3:4] == b"2" else b"2"
        changed = content.replace(found[0], found[0][:3] + digit + found[0][4:], 1)
        document.attachments[name] = pikepdf.AttachedFileSpec(document, changed, filename=name)
        document.save()
    code, checks = verify(pdf)
    assert code == 1 and failed(checks) == ["attachments", "numbers"]
    assert f"{name} was changed" in checks["attachments"][1]
    assert "table 1 (ranking): its CSV has other numbers" in checks["numbers"][1]


def test_a_row_that_the_pdf_does_not_show(pdf: Path, verify: Any) -> None:
    with pikepdf.open(pdf, allow_overwriting_input=True) as document:
        pages = [number for number, page in enumerate(pypdf.PdfReader(pdf).pages) if "Rank" in page.extract_text()]
        del document.pages[pages[-1]]
        document.save()
    code, checks = verify(pdf)
    assert code == 1 and "numbers" in failed(checks)
    assert "no row reads 1 | bnbest |" in checks["numbers"][1]


def test_an_attachment_that_is_gone_or_new(pdf: Path, verify: Any) -> None:
    with pikepdf.open(pdf, allow_overwriting_input=True) as document:
        del document.attachments["results.json"]
        document.attachments["more.csv"] = pikepdf.AttachedFileSpec(document, b"1", filename="more.csv")
        document.attachments["x.json"] = pikepdf.AttachedFileSpec(document, b"1", filename="x.json")
        document.save()
    code, checks = verify(pdf)
    assert code == 1 and failed(checks) == ["attachments"]
    assert "results.json is missing" in checks["attachments"][1]
    assert "more.csv is not in the capsule's list" in checks["attachments"][1]


def test_another_machine_is_told_and_fails_only_when_strict(html: Path, verify: Any) -> None:
    def elsewhere(head: dict[str, Any]) -> None:
        (environment,) = head["studies"][0]["environments"]
        environment["versions"] = {"torch": "0.1", "no-such-distribution": "1"}
        source = {"kind": "norms", "name": "gn", "distribution": "benchkit", "version": "0", "source": "0" * 12}
        environment["sources"] = {"model.norm": source, "model": {**source, "kind": "models", "name": "gone"}}

    put_into(html, edited(capsule_in(html), {"capsule.json": elsewhere}, digests=True), digest=True)
    code, checks = verify(html)
    assert code == 0
    assert checks["versions"][0] == checks["plugins"][0] == "differs"
    assert "torch 0.1, here 2." in checks["versions"][1]
    assert "no-such-distribution 1, not installed here" in checks["versions"][1]
    assert "had source 000000000000, here it is" in checks["plugins"][1]
    assert "gone of benchkit 0 is not installed here" in checks["plugins"][1]
    assert verify(html, "--strict")[0] == 1


def test_prepared_data_are_compared(html: Path, verify: Any, tmp_path: Path) -> None:
    from benchkit_datasets.digits import digits

    digits(tmp_path / "no-data")
    code, checks = verify(html)
    assert code == 0 and checks["data digits"][0] == "differs"
    fingerprint = re.search(r"here with (\w{12})", checks["data digits"][1])
    assert fingerprint


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_file_of_the_folder_beside_a_report_is_not_it(
    made: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for name in ("capsule.zip", "results.json"):
        assert main([command, str(made / NAME / name)]) == 2
        assert "name the .html or .pdf file of a report by benchkit, and no file of the" in capsys.readouterr().err


def test_what_is_no_report_is_told(html: Path, pdf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = html.read_text()
    empty = io.BytesIO()
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.write(empty)
    for content, told in (
        (b"hello", "neither HTML nor PDF"),
        (b"<html><body>other</body></html>", "no report by benchkit"),
        (re.sub(r"<a id=.capsule.zip.*?</a>", "", text).encode(), "holds no capsule"),
        (text.replace("base64,UEs", "base64,???").encode(), "the capsule is damaged"),
        (b"<html>\xff\xfe", "damaged"),
        (pdf.read_bytes()[:5000], "damaged, or no PDF"),
        (b"%PDF-1.7\nnonsense", "damaged, or no PDF"),
        (empty.getvalue(), "no report by benchkit"),
    ):
        path = tmp_path / "other.html"
        path.write_bytes(content)
        assert main(["verify", str(path)]) == 2
        assert told in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "absent.html")]) == 2


def test_a_bomb_in_a_page_is_not_read(html: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_into(html, zipped({"capsule.json": b" " * (300 * 2**20)}))
    assert main(["verify", str(html)]) == 2
    assert "unpacks to more than" in capsys.readouterr().err


def test_escapes_in_names_do_not_reach_the_terminal(html: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def hostile(head: dict[str, Any]) -> None:
        head["generator"] = "benchkit \x1b[2J\x1b]0;x\x07"
        head["studies"][0]["conditions"][0]["label"] = "\x1b[31mred"
        head["studies"][0]["environments"][0]["versions"] = {"\x1b[2Jtorch": "\u202e1"}

    put_into(html, edited(capsule_in(html), {"capsule.json": hostile}))
    assert main(["verify", str(html)]) == 1
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err and "\u202e" not in told.out
    assert "?[31mred" in told.out


def test_a_name_with_a_comma_is_that_of_one_study(html: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def named(head: dict[str, Any]) -> None:
        head["studies"][0]["name"] = "a, b"

    put_into(html, edited(capsule_in(html), {"capsule.json": named}))
    main(["verify", str(html), "--json"])
    assert json.loads(capsys.readouterr().out)["studies"] == ["a, b"]


def test_a_search_holds_too(tmp_path: Path, verify: Any) -> None:
    code, checks = verify(report(with_search(tmp_path / "trials"), tmp_path))
    assert code == 0 and failed(checks) == []
    assert checks["numbers"][1].startswith("16 tables")


def test_columns_of_another_version_are_compared_where_both_have_them() -> None:
    earlier = "condition,val,metric,verdict\r\nbn,0.5,0.9,tied\r\n"
    assert (
        differing_columns(earlier, "condition,val_loss,test_accuracy,verdict,p\r\nbn,0.5,0.9,may be best,1\r\n") == []
    )
    wanted = "condition,val_loss,test_accuracy\r\nbn,0.5,0.8\r\n"
    assert differing_columns(earlier, wanted) == ["test_accuracy"]
    assert differing_columns(earlier, "condition,val_loss\r\nbn,0.4\r\n") == ["val_loss"]
    assert differing_columns(earlier, "condition,val_loss\r\ngn,0.5\r\n") is None  # other rows
    assert differing_columns(earlier, "condition,val_loss\r\nbn,0.5\r\ngn,0.5\r\n") is None
    assert differing_columns(earlier, "a,b\r\n1,2\r\n") is None
    assert differing_columns("a,b\r\n1\r\n", "a,b\r\n1,2\r\n") is None


def _by_another_version(head: dict[str, Any]) -> None:
    head["shown"]["wording"] = "0" * 64


def test_of_another_version_numbers_are_compared_and_words_are_not(html: Path, verify: Any) -> None:
    put_into(html, edited(capsule_in(html), {"capsule.json": _by_another_version}), digest=True)
    code, checks = verify(html)
    assert code == 0
    assert checks["sentences"][0] == "unchecked" and "are worded as this benchkit words them" in checks["sentences"][1]

    def better(trials: list[dict[str, Any]]) -> None:
        trials[0]["metrics"]["test"]["accuracy"] += 0.01

    name = next(name for name in members(capsule_in(html)) if name.endswith("trials.json"))
    put_into(html, edited(capsule_in(html), {name: better}, digests=True), digest=True)
    assert verify(html)[1]["numbers"][0] == "fails"


@pytest.mark.parametrize("name", ["quickstart", "regularization-mnist"])
def test_a_committed_report_of_an_earlier_version_holds(name: str, tmp_path: Path, verify: Any) -> None:
    """Apart from its folder, which a later report of that name may have filled since."""
    code, checks = verify(shutil.copy(Path(__file__).parents[1] / "reports" / f"{name}.html", tmp_path))
    assert (code, failed(checks)) == (0, [])


def test_csv_numbers_may_differ_by_rounding_alone() -> None:
    assert same_csv("a,0.1\r\n", "a,0.10000000000000001\r\n")
    assert same_csv("a,0.30000000000000004\r\n", "a,0.3\r\n")
    assert not same_csv("a,0.3\r\n", "a,0.3000001\r\n")
    assert not same_csv("a,0.3\r\n", "b,0.3\r\n")
    assert not same_csv("a,0.3\r\n", "a,0.3\r\nb,0.3\r\n")


def test_help_says_what_exit_codes_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--retrain" in text and "Exit code 0" in text and "No code comes from a report" in text


def test_each_trial_names_where_it_ran(tmp_path: Path, verify: Any) -> None:
    results = complete(tmp_path / "trials", ("bn",), repeats=2, epochs=1)
    first, second = results.trials
    assert second.outcome
    other = replace(second.outcome, environment={**ENVIRONMENT, "device": "other card", "python": "3.13.1"})
    page = report(replace(results, trials=(first, replace(second, outcome=other))), tmp_path)
    from benchkit.capsule import read_capsule

    capsule = read_capsule(capsule_in(page))
    assert [trial.environment for trial in capsule.trials[0]] == [0, 1]
    assert capsule.head.studies[0].environments[1]["device"] == "other card"
    assert sha256(capsule.content) in page.read_text()
    assert verify(page)[0] == 0


def test_a_later_report_into_its_folder_is_no_change_by_hand(tmp_path: Path, verify: Any) -> None:
    results = complete(tmp_path / "trials", ("bn", "gn"), repeats=3, epochs=3)
    page, folder = report(results, tmp_path), tmp_path / NAME
    write_report(results, tmp_path, "json", registry=Registry.installed())
    code, checks = verify(page)
    assert code == 0 and checks["files beside it"][0] == "differs"
    assert "were written by a later `benchkit report`" in checks["files beside it"][1]
    assert verify(page, "--strict")[0] == 1
    (folder / "results.json").write_text((folder / "results.json").read_text().replace('"mean": 0.', '"mean": 0.9', 1))
    code, checks = verify(page)
    assert code == 1 and failed(checks) == ["files beside it"]
    assert checks["files beside it"][1].endswith("results.json was changed")
