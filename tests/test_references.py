"""References: told apart in every usual form, each work once, in the order of family names, and as BibTeX."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_results import empty

from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.report.context.blocks import FigureBlock, Paragraph, Section, TableBlock, table_block
from benchkit.report.context.glossary import (
    UsedPlugin,
    bibtex,
    cited,
    glossary_terms,
    listed,
    literature,
    numbers_of,
    reference_terms,
    used_plugins,
    work_of,
)
from benchkit.report.tables.table import Column, Table, label
from benchkit.study.studyfile import parse_study


@pytest.mark.parametrize(("text", "authors", "title", "year"), [
    ("S. Ioffe and C. Szegedy, Batch Normalization: Less Shift, ICML 2015",
     ("S. Ioffe", "C. Szegedy"), "Batch Normalization: Less Shift", "2015"),
    ("Holm, S. (1979). A simple procedure. Scandinavian Journal of Statistics 6, 65-70.",
     ("Holm, S.",), "A simple procedure", "1979"),
    ("Lin, T.-Y., Zitnick, C. L. Microsoft COCO: Objects. ECCV 2014.",
     ("Lin, T.-Y.", "Zitnick, C. L."), "Microsoft COCO: Objects", "2014"),
    ("Hutter, Hoos, Leyton-Brown. An Efficient Approach. ICML 2014.",
     ("Hutter", "Hoos", "Leyton-Brown"), "An Efficient Approach", "2014"),
    ("Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927",
     ("Wilson",), "Probable Inference, the Law of Succession, and Statistical Inference", "1927"),
    ("Zeiler and Fergus, Visualizing and Understanding Networks, ECCV 2014",
     ("Zeiler", "Fergus"), "Visualizing and Understanding Networks", "2014"),
    ("C. Szegedy et al., Going Deeper, CVPR 2015, section 6", ("C. Szegedy", "others"), "Going Deeper", "2015"),
    ("R. Tibshirani, Regression Shrinkage and Selection via the Lasso, Journal B 58, 1996",
     ("R. Tibshirani",), "Regression Shrinkage and Selection via the Lasso", "1996"),
    ("Student (1908). The probable error of a mean. Biometrika 6, 1-25.",
     ("Student",), "The probable error of a mean", "1908"),
    ("the manual", (), "the manual", ""),
    ("", (), "", ""),
])  # fmt: skip
def test_a_reference_is_told_apart(text: str, authors: tuple[str, ...], title: str, year: str) -> None:
    work = work_of(text)
    assert (work.authors, work.title, work.year) == (authors, title, year)


REFERENCES = [
    (
        "S. Ioffe and C. Szegedy, Batch Normalization: Less Covariate Shift, ICML 2015",
        "https://arxiv.org/abs/1502.03167",
    ),
    ("Ioffe and Szegedy, Batch Normalization: Less Covariate Shift, ICML 2015", "https://arxiv.org/abs/1502.03167"),
    ("Wilson, E. B. (1927). Probable inference and the law of succession. JASA 22, 209-212.", ""),
    ("Wilson, Probable Inference, the Law of Succession, JASA 22, 1927", "https://doi.org/10.1080/1"),
    ("J. L. Ba, J. R. Kiros and G. E. Hinton, Layer Normalization, 2016", "https://arxiv.org/abs/1607.06450"),
    ("E. D. Cubuk and Q. V. Le, AutoAugment: Strategies from Data, CVPR 2019", "https://a.b/1"),
    ("E. D. Cubuk and Q. V. Le, RandAugment: Reduced Search Space, CVPR 2019", "https://a.b/2"),
]


def test_a_work_stands_once_in_the_order_of_family_names() -> None:
    works = listed(REFERENCES)
    assert [work.family for work in works] == ["Ba", "Cubuk", "Cubuk", "Ioffe", "Wilson"]
    assert works[3].text == REFERENCES[0][0]
    assert works[4].url == "https://doi.org/10.1080/1"  # which only the second of the two references gives
    numbers = numbers_of(works, REFERENCES)
    assert [numbers[text] for text, _ in REFERENCES] == [4, 4, 5, 5, 1, 2, 3]


def test_bibtex_has_an_entry_of_its_own_for_each_work() -> None:
    works = listed([*REFERENCES, ("O. Reilly, 50% {of} $x_1$ & #2 \\ ~, 2001", "https://a.b/x_y")])
    text = bibtex(works)
    keys = re.findall(r"^@misc\{(\w+),$", text, flags=re.MULTILINE)
    assert keys == ["ba2016", "cubuk2019", "cubuk2019a", "ioffe2015", "reilly2001", "wilson1927"]
    assert "  author = {S. Ioffe and C. Szegedy},\n  title = {{Batch Normalization: Less Covariate Shift}},\n" in text
    assert "  url = {https://a.b/x_y},\n" in text
    # No part of a reference stands twice: a bibliography prints every field.
    assert re.findall(r"howpublished = \{(.*)\}", text) == ["CVPR", "CVPR", "ICML", "JASA 22, 209-212"]
    assert "note =" not in text and text.count("Batch Normalization") == 1
    assert r"50\% \{of\} \$x\_1\$ \& \#2 \textbackslash  \~{}" in text
    for entry in text.split("\n\n"):
        bare = re.sub(r"\\[{}]", "", entry)
        assert bare.count("{") == bare.count("}")


def plugin(kind: str, name: str, reference: str) -> UsedPlugin:
    return UsedPlugin(kind=kind, name=name, origin="o", title="t", summary="s", reference=reference, url="")


def table_of(caption: str, *cells: str) -> TableBlock:
    table = Table(columns=(Column(key="a", heading="Condition"),), rows=tuple((label(cell),) for cell in cells))
    return table_block("one", "One", caption, table)


FIGURE = FigureBlock(
    number=1, name="f", plugin="health", title="f", caption="Bars: 95 % t interval.", alt_text="", spec="",
    print_source="", columns=(), pictures=(), data=(),
)  # fmt: skip


def test_only_what_the_text_uses_is_explained_and_cited() -> None:
    plugins = [
        plugin("norms", "bn", "S. Ioffe and C. Szegedy, Batch Normalization, ICML 2015"),
        plugin("norms", "gn", "Y. Wu and K. He, Group Normalization, ECCV 2018"),
        plugin("figures", "health", "J. L. Ba and G. E. Hinton, Health, 2016"),
        plugin("figures", "maps", "Zeiler and Fergus, Maps, ECCV 2014"),
    ]
    blocks = (table_of("p after Holm's correction.", "bn(eps=1)", "torch-gn"), FIGURE, Paragraph(text="d_z"))
    parts = [Section(number=1, name="s", title="S", blocks=blocks)]
    known = literature(plugins, parts, [])
    assert [one.name for one in known.plugins] == ["bn", "health"]
    assert [term.name for term in glossary_terms(known)] == ["bn", "t interval", "p (Holm)", "d_z"]
    families = [term.text.split()[0] for term in reference_terms(known)]
    assert families == ["J.", "Cohen,", "Holm,", "S.", "Student"]  # Ba, Cohen, Holm, Ioffe, Student
    table, figure, _ = cited(parts, known)[0].blocks
    assert [link.text for link in table.cited] == ["3"] and table.cited[0].target == "reference-3"  # type: ignore[union-attr]
    assert [link.text for link in figure.cited] == ["1", "5"]  # type: ignore[union-attr]
    assert [term.anchor for term in reference_terms(known)] == [f"reference-{n}" for n in range(1, 6)]


TRAINED = """
title = "One network, one way to train it"
[data]
name = "digits"
[model]
name = "{model}"
norm = "gn"
[train]
optimizer = {{ name = "torch:Rprop", lr = 0.01 }}
schedule = {{ name = "polynomial" }}
loss = {{ name = "focal" }}
[[regularizers]]
name = "grad-clip"
"""


@pytest.mark.parametrize(("model", "norm"), [("net3", []), ("resnet", ["gn"])])
def test_what_acts_in_training_is_explained_and_cited_though_no_text_names_it(model: str, norm: list[str]) -> None:
    study = parse_study(TRAINED.format(model=model), name="one-way")
    results = replace(empty(), study=study, conditions=make_plan(study).conditions)
    known = literature(used_plugins(results, Registry.installed()), [], [])
    named = ["digits", model, *norm, "torch:Rprop", "polynomial", "focal", "grad-clip"]  # net3 has no norm: its card
    assert [term.name for term in glossary_terms(known)] == named
    works = "\n".join(work.text for work in known.works)
    assert "Focal Loss" in works and "Difficulty of Training Recurrent Neural Networks" in works
    assert ("Group Normalization" in works) is bool(norm)


def test_marks_of_code_and_the_folder_of_a_plugin_file_do_not_reach_the_glossary(tmp_path: Path) -> None:
    source = """
from dataclasses import dataclass
from benchkit import card

@card(title="A `mild` clip", summary="Gradients of `weights` alone, `a * b`.")
@dataclass(frozen=True)
class Mild:
    def clip(self, parameters, state=None): ...

PLUGINS = {"benchkit.regularizers": {"mild": Mild}}
"""
    file = tmp_path / "mild_clip.py"
    file.write_text(source)
    study = parse_study(TRAINED.format(model="net3").replace("grad-clip", "mild"), name="one-way")
    results = replace(empty(), study=study, conditions=make_plan(study).conditions)
    terms = glossary_terms(literature(used_plugins(results, Registry.installed([file])), [], []))
    mild = next(term for term in terms if term.name == "mild")
    assert (mild.text, mild.origin) == ("A mild clip. Gradients of weights alone, a * b.", "mild_clip.py")


def test_a_journal_and_its_volume_are_no_part_of_a_title() -> None:
    text = "N. Srivastava and G. Hinton, Dropout: A Simple Way to Prevent Overfitting, JMLR 15, 2014"
    assert "  title = {{Dropout: A Simple Way to Prevent Overfitting}},\n  howpublished = {JMLR 15},\n" in bibtex(
        [work_of(text)]
    )
