"""`--set` and `--only`."""

from __future__ import annotations

import pytest
from tiny_study import FACTOR, SEARCH, study_of

from benchkit.errors import StudyError
from benchkit.plan import parse_only
from benchkit.study.tree import parse_value

DROPOUT = '[[regularizers]]\nname = "dropout"\nrate = 0.5\n'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("0.1", 0.1),
        ("1e-3", 1e-3),
        ("true", True),
        ('["bn", "gn"]', ["bn", "gn"]),
        ('{ name = "gn", groups = 4 }', {"name": "gn", "groups": 4}),
        ("bn", "bn"),
        ("timm:resnet18", "timm:resnet18"),
        ("0.1.2", "0.1.2"),
        ("", ""),
    ],
)
def test_values_are_toml_where_they_can_be_and_text_otherwise(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_overrides_reach_every_part_of_a_study() -> None:
    overrides = (
        "train.epochs=7",
        "train.optimizer.lr=0.5",
        "model.norm={ name = 'gn', groups = 2 }",
        "regularizers.dropout.rate=0.25",
        "repeats.n=6",
        "search.trials=9",
        "search.space.train.epochs=[1, 2]",
        "search.space.train.optimizer.lr=false",
        'factors."train.optimizer.lr"=[0.7]',
        "title=Other = title",
        "confirm.n=2",
    )
    study = study_of(DROPOUT, FACTOR, SEARCH, overrides=overrides)
    assert study.settings["train"] | {"optimizer": 0} == {
        "epochs": 7, "batch_size": 20, "precision": "float32", "optimizer": 0,
    }  # fmt: skip
    assert study.settings["train"]["optimizer"] == {"name": "sgd", "lr": 0.5}
    assert study.settings["model"]["norm"] == {"name": "gn", "groups": 2}
    assert study.settings["regularizers"] == [{"name": "dropout", "rate": 0.25}]
    assert (study.repeats, study.confirm, study.title) == (6, 2, "Other = title")
    assert study.search is not None and study.search.trials == 9
    assert [one.path for one in study.search.space] == ["train.epochs"]
    assert [level.label for level in study.factors[0].levels] == ["0.7"]
    assert study.overrides == overrides


def test_false_takes_things_away() -> None:
    overrides = ("regularizers.dropout=false", "factors.train.optimizer.lr=false", "search=false", "confirm=false")
    study = study_of(DROPOUT, FACTOR, SEARCH, "[confirm]\nn = 9\n", overrides=overrides)
    assert study.settings["regularizers"] == [] and study.factors == () and study.search is None and study.confirm == 0


def test_zero_is_a_value_not_a_removal() -> None:
    with pytest.raises(StudyError) as caught:
        study_of(FACTOR, overrides=("factors.train.optimizer.lr=0",))
    assert caught.value.problems == ("factors.train.optimizer.lr: got 0, expected a list of levels",)


def test_all_wrong_overrides_are_told_at_once_with_the_nearest_match() -> None:
    overrides = ("train.epochs", "regularizers.dropot.rate=1", "train.epoch=3", "factors.model.nrm=false", "title.x=1")
    with pytest.raises(StudyError) as caught:
        study_of(DROPOUT, '[factors]\n"model.norm" = ["bn", "gn"]\n', overrides=overrides)
    told = "\n".join(caught.value.problems)
    assert "--set train.epochs: expected KEY=VALUE" in told
    assert "the study has no regularizer 'dropot' (did you mean 'dropout'?); known: dropout" in told
    assert "train.epoch: unknown key (did you mean 'epochs'?)" in told
    assert "there is no 'model.nrm' to leave out (did you mean 'model.norm'?)" in told
    assert "title is 'Tiny', not a table" in told


def test_only_is_read_with_labels_that_hold_commas() -> None:
    read = parse_only(["model.norm=bn, gn(groups=4, eps=0.1)", "model.norm=bn", "lr=0.1"])
    assert read == {"model.norm": ("bn", "gn(groups=4, eps=0.1)"), "lr": ("0.1",)}


def test_all_unreadable_choices_are_told_at_once() -> None:
    with pytest.raises(StudyError) as caught:
        parse_only(["model.norm", "=gn", "model.norm=gn,", "lr=0.1"])
    assert [line.split(":")[0] for line in caught.value.problems] == [
        "--only model.norm", "--only =gn", "--only model.norm=gn,",
    ]  # fmt: skip
