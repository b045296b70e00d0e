"""One report in all formats: the same numbers, no network, nothing unescaped, every kind of results."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import zlib
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pypdf
import pytest
from printed_pages import half_empty
from synthetic_results import FACTORIES, HOSTILE, complete

from benchkit.registry import Registry
from benchkit.report.write import Written, write_report
from benchkit.results import StudyResults, Trial


@dataclass(frozen=True, repr=False)
class Made:
    """A report on disk, read back."""

    results: StudyResults
    written: Written
    html: str
    folder: Path

    @property
    def pdf(self) -> Path:
        return self.folder / "synthetic-norms.pdf"

    @property
    def exported(self) -> dict:  # type: ignore[type-arg]
        return json.loads((self.folder / "synthetic-norms" / "results.json").read_text())


def make(results: StudyResults, folder: Path, *, pdf: bool = True) -> Made:
    written = write_report(results, folder, *(("html", "pdf") if pdf else ("html",)), registry=Registry.installed())
    return Made(results, written, (folder / "synthetic-norms.html").read_text(), folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("hostile")
    return make(complete(folder / "trials", HOSTILE, repeats=2, epochs=4), folder)


CAPSULE = "data:application/zip;base64,"
FILES = ("data:application/toml;base64,", "data:application/x-bibtex;base64,")
"""How the address of the one file inside the page starts, which a reader may save."""


class Text(HTMLParser):
    """The text that a reader of the page sees, and the names of its elements and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)

    @property
    def plain(self) -> str:
        return squeezed(" ".join(self.parts))


def squeezed(text: str) -> str:
    """Return text without blanks: line breaks and hyphenation points differ between formats."""
    return re.sub(r"\s+", "", text)


def pdf_text(path: Path) -> str:
    return squeezed(" ".join(page.extract_text() for page in pypdf.PdfReader(path).pages))


def test_all_formats_show_the_same_numbers(hostile: Made) -> None:
    page, printed = Text(hostile.html).plain, pdf_text(hostile.pdf)
    shown = 0
    for table in hostile.exported["tables"]:
        for row in table["rows"]:
            for cell in row.values():
                for text in filter(None, (cell["text"], cell["detail"])):
                    assert squeezed(text) in page, text
                    if not table["folded"] and not set(text) & set("<>{}[]$=~^\\|"):
                        assert squeezed(text) in printed, text
                        shown += 1
    assert shown > 100
    for sentence in hostile.exported["answer"]:
        assert squeezed(sentence) in page
        assert squeezed(sentence) in printed


def test_csv_and_json_agree_to_full_precision(hostile: Made) -> None:
    (ranking,) = [table for table in hostile.exported["tables"] if table["name"] == "ranking"]
    path = hostile.folder / "synthetic-norms" / "tables" / "01-ranking.csv"
    rows = list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
    estimates = {row["label"]: row["estimate"] for row in hostile.exported["numbers"]["ranking"]["rows"]}
    for row, exported in zip(rows, ranking["rows"], strict=True):
        found = estimates[exported["condition"]["value"]]
        assert float(row["mean"]) == exported["mean"]["value"] == found["mean"]
        assert float(row["mean_low"]) == found["low"]
        assert exported["mean"]["text"] == f"{100 * found['mean']:.2f}"


def unlatex(row: str) -> list[str]:
    """Return the texts of a LaTeX table's row: columns joined where numbers were parted, commands undone."""
    row = row.strip().removesuffix(r"\\")
    row = row.replace("{[}", "[").replace("{]}", "]").replace("$-$", "\N{MINUS SIGN}").replace("--", "\N{EN DASH}")
    row = re.sub(r"\\textbf\{([^{}]*)\}", r"\1", row)
    row = re.sub(r"\\multicolumn\{\d\}\{\w\}\{([^{}]*)\}", r"\1", row)
    row = re.sub(r" & (?=[.,~])", "", row.replace(r" \& ", " and ").replace(r"\textless{}", "<"))
    return [cell.strip() for cell in row.split(" & ")]


@pytest.mark.parametrize("name", ["01-ranking", "02-metrics-test", "03-metrics-val"])
def test_markdown_latex_and_csv_show_the_numbers_of_json(hostile: Made, name: str) -> None:
    folder = hostile.folder / "synthetic-norms" / "tables"
    (table,) = [table for table in hostile.exported["tables"] if f"{table['number']:02d}-{table['name']}" == name]
    lines = (folder / f"{name}.md").read_text().splitlines()[-len(table["rows"]) :]
    rows = (
        (folder / f"{name}.tex").read_text().partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    )
    values = list(csv.DictReader(io.StringIO((folder / f"{name}.csv").read_text(), newline="")))
    shown = 0
    for row, line, tex, raw in zip(table["rows"], lines, rows, values, strict=True):
        cells, set_in_tex = re.sub(r"\\(.)", r"\1", line).replace("**", ""), " ".join(unlatex(tex))
        for key, cell in row.items():
            if isinstance(cell["value"], float):
                assert cell["text"] in cells
                assert f" {cell['detail']}" in f" {cells}"
                assert cell["text"] in set_in_tex
                assert cell["detail"].replace(",", "") in set_in_tex.replace(",", "")
                assert float(raw[key]) == cell["value"]
                scale = 1 if key in ("loss", "p_worse_holm", "superiority") else 100
                wanted = float(cell["text"].replace("\N{MINUS SIGN}", "-").replace("< ", ""))
                assert wanted == pytest.approx(scale * cell["value"], abs=0.0051)
                shown += 1
    assert shown >= 10


def test_json_keeps_to_its_schema(hostile: Made) -> None:
    folder = hostile.folder / "synthetic-norms"
    schema = json.loads((folder / "results.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(hostile.exported)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(hostile.exported["files"]) | {"results.json", "index.md"} == there


def without_kappa(trial: Trial) -> Trial:
    """Return a trial that names one class of one alone: its kappa is 0/0."""
    assert trial.outcome
    kappas = {"bn": 0.5, "gn": None if trial.index == 1 else 0.4}
    value = kappas.get(trial.condition.label)
    test = replace(trial.outcome.metrics["test"], more={} if value is None else {"cohen_kappa": value})
    notes = ("test.cohen_kappa is undefined: all labels and all predictions are of one class",) if value is None else ()
    metrics = {**trial.outcome.metrics, "test": test}
    return replace(trial, outcome=replace(trial.outcome, metrics=metrics, notes=notes))


def test_an_undefined_metric_is_null_beside_its_reason(tmp_path: Path) -> None:
    results = complete(tmp_path / "trials", ("bn", "gn", "ln"), epochs=2)
    report = replace(results.study.report, metric="test.cohen_kappa")
    study = replace(results.study, report=report)
    made = make(replace(results, study=study, trials=tuple(map(without_kappa, results.trials))), tmp_path, pdf=False)
    why = "all labels and all predictions are of one class"
    reasons = {"bn": None, "gn": f"undefined in 1 of 3 repeats: {why}", "ln": f"undefined in 3 of 3 repeats: {why}"}
    for name, key in (("ranking", "mean"), ("metrics-test", "cohen_kappa")):
        (table,) = [table for table in made.exported["tables"] if table["name"] == name]
        cells = {row["condition"]["value"]: row[key] for row in table["rows"]}
        assert {label: cell.get("reason") for label, cell in cells.items()} == reasons
        assert {label: cell["value"] for label, cell in cells.items()} == {"bn": 0.5, "gn": 0.4, "ln": None}
    scores = {one["label"]: one for one in made.exported["numbers"]["scores"]}
    assert scores["gn"]["metrics"]["test.cohen_kappa"]["n"] == 2
    assert scores["ln"]["undefined"] == {"test.cohen_kappa": reasons["ln"]}
    schema = json.loads((made.folder / "synthetic-norms" / "results.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(made.exported)
    assert "NaN" not in (made.folder / "synthetic-norms" / "results.json").read_text()


def test_the_index_names_every_file(hostile: Made) -> None:
    folder = hostile.folder / "synthetic-norms"
    text = (folder / "index.md").read_text()
    linked = set(re.findall(r"\]\(([^)]+)\)", text))
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert linked == there - {"index.md", "tables/tables.tex"}
    assert "<script>" not in text.replace("\\<", "")
    assert "> **Synthetic numbers.**" in text


def test_an_earlier_reports_files_go_and_other_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "synthetic-norms"
    (folder / "tables").mkdir(parents=True)
    for name in ("99-old.csv", "mine.csv", "99-old.txt"):
        (folder / "tables" / name).write_text("x")
    make(FACTORIES["empty"](tmp_path), tmp_path, pdf=False)
    left = {path.name for path in (folder / "tables").iterdir()}
    assert {"mine.csv", "99-old.txt"} <= left
    assert "99-old.csv" not in left


def test_the_front_matter_is_on_the_first_page(tmp_path: Path) -> None:
    front = (
        '[report]\nauthors = ["Ada <b>", "B. Borel"]\nabstract = "First <i>.\\n\\nSecond."\nkeywords = ["a & b", "c"]\n'
    )
    results = complete(tmp_path / "trials", ("bn",), repeats=1, epochs=2, extra=front)
    logo = tmp_path / "logo.svg"
    logo.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>')
    report = replace(results.study.report, logo=logo)
    made = make(replace(results, study=replace(results.study, report=report)), tmp_path)
    page = Text(made.html)
    assert {("name", "keywords"), ("content", "a & b, c"), ("content", "Ada <b> and B. Borel")} <= set(page.attributes)
    assert "First<i>." in page.plain and "Second." in page.plain
    logos = re.findall(r'<img class="logo"[^>]*src="([^",]*,)', made.html)
    assert logos == ["data:image/svg+xml;base64,"]
    reader = pypdf.PdfReader(made.pdf)
    first = squeezed(reader.pages[0].extract_text())
    assert "First<i>.Second." in first and "Ada<b>andB.Borel" in first
    assert reader.metadata is not None
    assert reader.metadata.author == "Ada <b> and B. Borel"
    assert reader.metadata["/Keywords"] == "a & b, c"
    assert made.exported["study"]["authors"] == ["Ada <b>", "B. Borel"]
    logo.unlink()
    again = make(made.results, tmp_path, pdf=False)
    assert len(again.written.problems) == 1 and "report.logo" in again.written.problems[0]
    assert "img" not in Text(again.html).elements


def test_the_page_needs_no_network(hostile: Made) -> None:
    page = Text(hostile.html)
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.elements)
    sources = [value for name, value in page.attributes if name in ("src", "srcset", "poster", "data", "action")]
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)  # for pages without script
    addresses = [value for name, value in page.attributes if name == "href" and not value.startswith("#")]
    assert all(
        address.startswith(("https://", "http://", CAPSULE, *FILES)) for address in addresses
    )  # to be clicked only
    assert sum(address.startswith(CAPSULE) for address in addresses) == 1
    style = "".join(re.findall(r"<style>(.*?)</style>", hostile.html, re.DOTALL))
    assert re.findall(r"url\((?!\"data:)", style) == []
    assert "@import" not in style
    assert any(value.startswith("default-src 'none'") for _, value in page.attributes)


def test_only_the_reports_own_scripts_may_run(hostile: Made) -> None:
    import hashlib

    scripts = re.findall(r'<script type="module">(.*?)</script>', hostile.html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts]
    (policy,) = [value for _, value in Text(hostile.html).attributes if value.startswith("default-src")]
    assert re.findall(r"'sha256-([^']+)'", policy) == digests
    assert len(scripts) == 2
    assert "unsafe-eval" not in policy


def test_hostile_names_stay_text(hostile: Made) -> None:
    page = Text(hostile.html)
    kinds = [value for name, value in page.attributes if (name == "type" and "/" in value) or value == "module"]
    assert set(kinds) <= {"module", "application/json"}
    assert page.elements.count("script") == sum(kind in ("module", "application/json") for kind in kinds)
    assert "<script>alert(1)" not in hostile.html
    assert squeezed("{{7*7}}") in page.plain
    assert "=SUM(A1)" in page.plain
    tex = (hostile.folder / "synthetic-norms" / "tables" / "01-ranking.tex").read_text()
    assert r"50\% \& \$x\_1\textasciicircum{}2\$" in tex
    assert squeezed("<script>alert(1)</script>") in pdf_text(hostile.pdf)


def test_embedded_data_can_be_read_back(hostile: Made) -> None:
    blocks = re.findall(r'<script type="application/json" class="(\w+)">(.*?)</script>', hostile.html, re.DOTALL)
    assert {kind for kind, _ in blocks} == {"payload", "record", "spec", "views", "choices", "trials"}
    for kind, text in blocks:
        content = json.loads(text)
        assert content
        if "packed" in content:
            content = json.loads(zlib.decompress(base64.b64decode(content["packed"])))
        if kind == "spec":
            assert "$schema" not in content
            assert "http" not in json.dumps(content)


def test_the_pdf_is_a_document(hostile: Made) -> None:
    reader = pypdf.PdfReader(hostile.pdf)
    root = reader.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"]
    assert root["/Lang"] == "en"
    assert reader.metadata is not None
    assert reader.metadata.title == hostile.results.study.title
    titles = [item.title for item in reader.outline if not isinstance(item, list)]
    assert titles[0] == hostile.results.study.title
    assert reader.page_labels == [str(1 + place) for place in range(len(reader.pages))]
    assert root["/PageLabels"]["/Nums"][1]["/S"] == "/D"
    assert root["/ViewerPreferences"]["/DisplayDocTitle"]
    about = reader.xmp_metadata
    assert about is not None
    assert about.dc_title == {"x-default": hostile.results.study.title}
    assert b'pdfuaid:part="1"' in root["/Metadata"].get_object().get_data()
    last = len(reader.pages)
    assert f"Page{last}of{last}" in squeezed(reader.pages[-1].extract_text())
    assert "Page1of" not in squeezed(reader.pages[0].extract_text())
    assert {"results.json", "study.toml"} <= set(reader.attachments)
    assert any(name.startswith("tables-01-ranking") for name in reader.attachments)
    assert json.loads(reader.attachments["results.json"][0]) == hostile.exported


def test_no_page_is_less_than_half_full_without_reason(hostile: Made) -> None:
    assert half_empty(hostile.pdf) == []


def test_the_running_head_names_the_section_that_a_page_begins_in(hostile: Made) -> None:
    reader = pypdf.PdfReader(hostile.pdf)
    (sections,) = (item for item in reader.outline if isinstance(item, list))
    starts = [
        (reader.get_destination_page_number(one), 842 - float(one.top), squeezed(str(one.title)))
        for one in sections
        if not isinstance(one, list)
    ]
    assert any(down > 200 for _, down, _ in starts)  # one begins further down its page
    for place, page in enumerate(reader.pages[1:], 1):
        heads: list[str] = []

        def note(text: str, user: list[float], matrix: list[float], *_: object, found: list[str] = heads) -> None:
            if matrix[4] * user[1] + matrix[5] * user[3] + user[5] > 842 - 54:
                found.append(text)

        page.extract_text(visitor_text=note)
        began = [title for number, down, title in starts if number < place or (number == place and down < 90)]
        assert squeezed("".join(heads)).endswith(began[-1] if began else "synthetic)"), place


def test_contents_name_the_pages_where_sections_start(hostile: Made) -> None:
    reader = pypdf.PdfReader(hostile.pdf)
    contents = squeezed(reader.pages[0].extract_text()).partition("Contents")[2]
    assert contents
    for number, title in enumerate(("Findings", "Results", "Training"), 1):
        found = re.search(rf"{number}{title}[. ]*?\.+(\d+?)(?=\d?{number + 1}[A-Z])", contents)
        assert found, title
        assert squeezed(f"{number} {title}") in squeezed(reader.pages[int(found[1]) - 1].extract_text())


def test_the_pdf_embeds_only_the_shipped_fonts(hostile: Made) -> None:
    fonts = set()
    for page in pypdf.PdfReader(hostile.pdf).pages:
        for font in page.get("/Resources", {}).get("/Font", {}).values():
            fonts.add(str(font.get_object()["/BaseFont"]).rpartition("+")[2])
    assert fonts
    assert all(name.startswith(("Inter", "JetBrains")) for name in fonts), fonts


@pytest.mark.parametrize("kind", sorted(FACTORIES))
def test_every_kind_of_results_becomes_a_page_and_json_alone_says_the_same(kind: str, tmp_path: Path) -> None:
    made = make(FACTORIES[kind](tmp_path / "trials"), tmp_path, pdf=False)
    write_report(made.results, tmp_path / "alone", "json")
    alone = replace(made, folder=tmp_path / "alone").exported
    assert alone == {**made.exported, "figures": [], "files": alone["files"]} and alone["tables"]
    assert made.written.problems == ()
    page = Text(made.html).plain
    for banner in made.exported["banners"]:
        assert squeezed(banner["text"]) in page
    assert ("Notcomplete" in page) == (kind in ("empty", "unfinished"))
    assert ('id="images"' in made.html) == (kind != "empty")  # no heading over nothing


def test_an_empty_study_prints(tmp_path: Path) -> None:
    made = make(FACTORIES["empty"](tmp_path), tmp_path)
    text = pdf_text(made.pdf)
    assert "Thereisnoanswer:norepeat" in text
    assert "0of12plannedtrialshavearesult" in text


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    results = complete(tmp_path / "trials", ("bn", "gn"), repeats=2, epochs=3)
    first, second = (make(results, tmp_path / name) for name in ("one", "two"))
    assert first.html == second.html
    assert first.exported == second.exported
    assert first.pdf.read_bytes() == second.pdf.read_bytes()
