"""Conditions of one label in several studies: the same only where their settings are, and differences are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from figure_results import metrics, trial

from benchkit.analysis.agreement import Agreement, agree, agreement_findings, find_namesakes
from benchkit.analysis.ranking import rank
from benchkit.plan import make_plan
from benchkit.results import Outcome, StudyResults
from benchkit.study.studyfile import parse_study

STUDY = """
title = "t"
[data]
name = "{data}"
[model]
{model}
[train]
epochs = {epochs}
{factors}
"""
NORMS = '[factors]\n"model.norm" = [{{ label = "a", value = {{ name = "gn", groups = {groups} }} }}, "bn"]'


def results(
    name: str, *, data: str = "digits", model: str = 'name = "mlp"', epochs: int = 3, factors: str = ""
) -> StudyResults:
    study = parse_study(STUDY.format(data=data, model=model, epochs=epochs, factors=factors), name=name)
    conditions = make_plan(study).conditions
    trials = [
        trial(one, index, outcome=Outcome(state="done", metrics={"test": metrics(0.5 + 0.1 * place + 0.01 * index)}))
        for place, one in enumerate(conditions)
        for index in range(2)
    ]
    return StudyResults(study=study, conditions=conditions, trials=tuple(trials), class_names=("x", "y"))


def compared(*studies: StudyResults) -> Agreement:
    rankings = [(one.study.name, rank(one, "test.accuracy")) for one in studies]
    return agree(rankings, "test.accuracy", find_namesakes(studies))


def said(agreement: Agreement) -> Mapping[str, Sequence[str]]:
    return {finding.rule: finding.sentence for finding in agreement_findings(agreement)}


def test_default_from_scratch_and_default_pretrained_are_not_the_same() -> None:
    scratch = results("scratch", model='name = "timm:resnet18"')
    tuned = results("tuned", model='name = "timm:resnet18"\npretrained = true')
    found = compared(scratch, tuned)
    assert (found.common, found.shared) == ((), ())
    assert found.namesakes[0].differences == (("model.pretrained", ("not given", "true")),)
    assert said(found)["namesakes"] == (
        "“default” is not the same condition in scratch and in tuned, so it is not compared between them: "
        "model.pretrained is not given or true."
    )


def test_an_empty_list_of_regularizers_is_said_to_be_one() -> None:
    norms = '[factors]\n"model.norm" = [{ label = "none", value = "none" }, "bn"]'
    lists = '[factors]\n"regularizers" = [{ label = "none", value = [] }, { label = "L2", value = ["weight-decay"] }]'
    sentence = said(compared(results("one", factors=norms), results("other", factors=lists)))["namesakes"]
    assert "regularizers is not given or empty" in sentence, sentence


def test_other_data_alone_leave_a_condition_the_same() -> None:
    found = compared(results("one"), results("other", data="mnist"))
    assert (found.common, found.namesakes) == (("default",), ())


def test_a_default_that_one_file_spells_out_leaves_a_condition_the_same() -> None:
    found = compared(results("one"), results("other", factors='precision = "auto"'))
    assert (found.common, found.namesakes) == (("default",), ())


def test_a_level_is_the_same_where_what_it_sets_is_whatever_the_bases_are() -> None:
    same = NORMS.format(groups=2)
    found = compared(results("one", factors=same), results("other", factors=same, epochs=5))
    assert (set(found.common), found.namesakes) == ({"a", "bn"}, ())


def test_levels_of_one_label_with_other_values_are_told_apart() -> None:
    first, second = (results(name, factors=NORMS.format(groups=n)) for name, n in (("one", 2), ("other", 4)))
    found = compared(first, second, replace(second, study=replace(second.study, name="third")))
    assert found.common == ("bn",)
    (one,) = found.namesakes
    assert (one.label, one.groups) == ("a", (("one",), ("other", "third")))
    assert one.differences == (("model.norm.groups", ("2", "4")),)
    assert [row.label for row in found.shared] == ["bn", "a (other and third)"]
