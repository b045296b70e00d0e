"""Several studies in one report: unique names, numbers counted through, the same numbers in every format."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import pypdf
import pytest
from figure_checks import assert_plain, validate_spec
from synthetic_results import HOSTILE, complete, empty

from benchkit.analysis.agreement import agree
from benchkit.analysis.summary import summarize
from benchkit.capsule import read_capsule
from benchkit.capsule.reading import results_of
from benchkit.plan import INTERIM_ANALYSES
from benchkit.report.figures.agreement_chart import AgreementChart, agreement_data
from benchkit.report.figures.drawing import chart_spec, spec_to_svg
from benchkit.report.figures.figure_set import FigureSet
from benchkit.report.several import chapter_names, common_stem, shared_table, study_groups
from benchkit.report.write import ReportOptions, write_reports
from benchkit.results import Decision, StudyResults
from benchkit.verify import open_report
from benchkit.verify.consistency import digest_checks
from benchkit.verify.recomputed import recomputed_checks

STEM = "norms-cifar10+norms-digits"


def named(results: StudyResults, name: str, data: str) -> StudyResults:
    settings = {**results.study.settings, "data": {**results.study.settings["data"], "name": data}}
    study = replace(results.study, name=name, title=f"Normalisation on {data}", settings=settings)
    return replace(results, study=study)


def three(folder: Path) -> list[StudyResults]:
    return [
        named(complete(folder / "a", ("bn", "gn", "ln", "none"), epochs=3, repeats=2), "norms-cifar10", "cifar10"),
        named(complete(folder / "b", ("gn", "bn", "ln"), epochs=3), "norms-birds25", "birds25"),
        named(complete(folder / "c", ("bn", "gn", "ln", HOSTILE[0]), epochs=3), "norms-digits", "digits"),
    ]


@dataclass(frozen=True)
class Common:
    """A common report on disk, read back."""

    html: str
    pdf: pypdf.PdfReader
    content: dict  # type: ignore[type-arg]
    folder: Path


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Common:
    folder = tmp_path_factory.mktemp("several")
    written = write_reports(three(folder / "trials")[::2], folder / "out", ReportOptions())
    assert written.error is None
    assert written.problems == ()
    out = folder / "out"
    assert sorted(path.name for path in out.iterdir()) == [STEM, f"{STEM}.html", f"{STEM}.pdf"]
    content = json.loads((out / STEM / "results.json").read_text())
    return Common((out / f"{STEM}.html").read_text(), pypdf.PdfReader(out / f"{STEM}.pdf"), content, out / STEM)


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_the_json_keeps_to_its_schema(common: Common) -> None:
    schema = json.loads((common.folder / "results.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(common.content)
    assert len(common.content["studies"]) == 2


def test_every_anchor_is_unique_and_every_link_leads_somewhere(common: Common) -> None:
    ids = re.findall(r'\sid="([^"]+)"', common.html)
    assert len(ids) == len(set(ids)) > 50
    assert set(re.findall(r'href="#([^"]+)"', common.html)) <= set(ids)


def test_figures_and_tables_are_counted_through(common: Common) -> None:
    parts = [common.content, *common.content["studies"]]
    for kind, word in (("tables", "Table"), ("figures", "Figure")):
        numbers = [block["number"] for part in parts for block in part[kind]]
        assert numbers == list(range(1, len(numbers) + 1))
        shown = [int(n) for n in re.findall(rf"<figcaption><strong>{word} (\d+)\.", common.html)]
        assert shown == numbers
    sections = [int(n) for n in re.findall(r'<h2 data-title="(\d+) ', common.html)]
    assert sections == list(range(1, len(sections) + 1))
    assert re.findall(r"Study (\d)\.</span>", common.html) == ["1", "2"]


def test_the_comparison_says_the_same_in_every_format(common: Common) -> None:
    (table,) = [one for one in common.content["tables"] if one["name"] == "shared"]
    rows = list(csv.DictReader(io.StringIO(table["csv"], newline="")))
    agreement = common.content["agreement"]
    printed = squeezed(" ".join(page.extract_text() for page in common.pdf.pages[:8]))
    paths = {path.suffix: path.read_text() for path in (common.folder / "tables").glob("*-shared.*")}
    # LaTeX aligns numbers at the decimal point by two columns: 79 & .40, the best in bold.
    paths[".tex"] = re.sub(r"\\textbf\{([^}]*)\}", r"\1", paths[".tex"]).replace(" & .", ".")
    for row, shown, known in zip(rows, table["rows"], agreement["shared"], strict=True):
        assert row["condition"] == known["label"]
        assert [row["mean_rank"] or None] == [known["mean_rank"] and repr(known["mean_rank"])]
        for study, standing in zip(agreement["studies"], known["standings"], strict=True):
            text = shown[f"mean_{study}"]["text"]
            if standing is not None:
                assert float(row[f"mean_{study}"]) == standing["estimate"]["mean"]
                assert text == f"{100 * standing['estimate']['mean']:.2f}"
            assert text in paths[".md"] or standing is None
            assert text in paths[".tex"] or standing is None
            assert text in common.html and squeezed(text) in printed
    for sentence in common.content["answer"]:
        assert squeezed(sentence) in printed


def test_every_study_is_there_whole(common: Common) -> None:
    names = [study["study"]["name"] for study in common.content["studies"]]
    assert names == ["norms-cifar10", "norms-digits"]
    for name in names:
        for section in (
            "findings",
            "results",
            "training",
            "images",
            "cost",
            "coverage",
            "reproduce",
            "terms",
        ):
            assert f'id="{name}--{section}"' in common.html
        assert (common.folder / name / "study.toml").is_file()
    tables = {path.stem.partition("-")[2] for path in (common.folder / "tables").glob("*.csv")}
    assert {f"{name}--ranking" for name in names} <= tables
    titles = [item.title for item in common.pdf.outline if not isinstance(item, list)]
    assert len(titles) == 3  # the report and its two chapters, sections below them
    assert {"results.json", "norms-digits-study.toml"} <= set(common.pdf.attachments)


@pytest.mark.parametrize("suffix", ["html", "pdf"])
def test_the_report_holds_against_its_capsule(common: Common, suffix: str, tmp_path: Path) -> None:
    opened = open_report(common.folder.parent / f"{STEM}.{suffix}")
    capsule = read_capsule(opened.capsule)
    studies = [results_of(capsule, place, tmp_path / str(place)) for place in range(2)]
    checks = [*digest_checks(opened, capsule), *recomputed_checks(opened, capsule, studies)]
    assert [(check.name, check.problems[:3]) for check in checks if check.state == "fails"] == []
    assert {"numbers of norms-cifar10", "numbers of norms-digits"} <= {check.name for check in checks}


def test_links_of_findings_lead_to_their_own_part(common: Common) -> None:
    for place, target_of in {
        "together": r"(figure|table)-[a-z-]+$",
        "norms-cifar10--findings": r"(figure|table)-norms-cifar10--",
        "norms-digits--findings": r"(figure|table)-norms-digits--",
    }.items():
        part = common.html.partition(f'id="{place}"')[2].partition("</section>")[0]
        links = re.findall(r'href="#((?:figure|table)-[^"]+)"[^>]*>(Figure \d+|Table \d+)<', part)
        assert links, place
        for target, text in links:
            assert re.match(target_of, target)
            shown = re.search(r"<figcaption><strong>(\w+ \d+)", common.html.partition(f'id="{target}"')[2])
            assert shown is not None and shown[1] == text


def test_hostile_labels_stay_text(common: Common) -> None:
    assert HOSTILE[0] not in common.html
    assert "alert(1)" in common.html
    assert dict(common.content["agreement"]["alone"])["norms-digits"] == [HOSTILE[0]]


def test_studies_without_results_or_without_shared_conditions_make_a_report_too(tmp_path: Path) -> None:
    apart = [named(empty(), "first", "digits"), named(complete(tmp_path / "t", ("x",), epochs=2), "second", "mnist")]
    written = write_reports(apart, tmp_path / "out", ReportOptions(formats=frozenset({"html"}), name="both"))
    page = (tmp_path / "out" / "both.html").read_text()
    assert written.paths[0].name == "both.html"
    assert "share no condition" in page
    assert "figure-agreement" not in page


def test_names_of_chapters_and_files() -> None:
    assert chapter_names(["a", "A", "b"]) == ("a", "a-2", "b")
    assert common_stem(["norms cifar", "../b"]) == "norms-cifar+b"
    assert common_stem(["x" * 100, "y" * 100, "z"]) == f"{'x' * 100}+2-more"


@pytest.mark.parametrize(
    ("count", "groups"),
    [(2, [[0, 1]]), (4, [[0, 1, 2, 3]]), (5, [[0, 1, 2], [3, 4]]), (9, [[0, 1, 2], [3, 4, 5], [6, 7, 8]])],
)
def test_many_studies_are_parted_evenly(count: int, groups: list[list[int]]) -> None:
    assert [list(group) for group in study_groups(count)] == groups


def test_the_figure_is_plain_data_and_fits_the_page(tmp_path: Path) -> None:
    studies = [(one.study.name, summarize(one).ranking) for one in three(tmp_path)]
    for several in (studies, studies * 2):
        agreement = agree(
            [(f"{name} {place}", ranking) for place, (name, ranking) in enumerate(several)], "test.accuracy"
        )
        data = agreement_data(agreement, ("bn", "gn", "ln", "none"))
        assert_plain(data)
        chart = AgreementChart()
        spec = chart_spec(chart.draw(data), description=chart.alt_text(data))
        validate_spec(spec)
        svg = spec_to_svg(spec)
        assert float(svg.partition('width="')[2].partition('"')[0]) <= 670
        assert "half of Nemenyi's critical difference" in chart.caption(data)
        ranks = {row.condition: row.rank for row in data.ranks}
        assert sum(ranks.values()) == pytest.approx(6)  # 1 + 2 + 3, however they fall
    assert shared_table(agreement, range(2)).columns[1].key == "mean_rank"


def test_intervals_of_studies_with_looks_are_said_to_be_wider(tmp_path: Path) -> None:
    first, second, _ = three(tmp_path)
    plan = Decision(name=INTERIM_ANALYSES, value="3: 0.025, 6: 0.025", why="", version="")
    wide = ", of norms-birds25 so wide that those of all planned looks hold together with 95 %."
    looked = replace(second, decisions=(plan,))
    options = ReportOptions(formats=frozenset({"json", "tables"}))
    for name, given in (("fixed", second), ("looked", looked)):
        written = write_reports([first, given], tmp_path / name, options)
        content = json.loads((written.paths[-1] / "results.json").read_text())
        captions = [table["caption"] for table in content["tables"] if table["name"] in ("studies", "shared")]
        captions += [figure["caption"] for figure in content["figures"] if figure["name"] == "agreement"]
        assert len(captions) == 3
        assert [wide[:-1] in caption for caption in captions] == [name == "looked"] * 3


def test_a_view_that_fails_is_told_with_its_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FigureSet, "view", lambda self, plugin, _: self.problems.append(f"figure {plugin}: no view"))
    studies = three(tmp_path / "trials")[::2]
    written = write_reports(studies, tmp_path / "out", ReportOptions(formats=frozenset({"html"})))
    told = {line.removesuffix(": figure results-forest: no view") for line in written.problems if "forest" in line}
    assert told == {results.study.name for results in studies}
