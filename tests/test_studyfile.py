"""Study files: what a good one becomes, and that a bad one is told of in full."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_study
from tiny_study import FACTOR, SEARCH, study_of

from benchkit import plan
from benchkit.errors import StudyError
from benchkit.registry import Registry
from benchkit.study import Goal, Search, SearchRange
from benchkit.study.studyfile import find_study, parse_study, read_study
from benchkit.study.tree import label_of


def problems_of(*parts: str, **more: object) -> str:
    with pytest.raises(StudyError) as caught:
        study_of(*parts, **more)  # type: ignore[arg-type]
    return "\n".join(caught.value.problems) or caught.value.what


def test_a_study_file_becomes_a_study() -> None:
    study = study_of(FACTOR, SEARCH, '[confirm]\nn = 4\n[report]\nfigures = [{ name = "x", k = 2 }]\n', repeats=5)
    assert (study.name, study.title, study.seed, study.repeats, study.confirm) == ("tiny", "Tiny", 3, 5, 4)
    assert study.settings["model"] == {"name": "mlp", "hidden": [8]}
    assert [level.label for level in study.factors[0].levels] == ["0.1", "0.3"]
    assert study.factors[0].levels[1].settings == {"train.optimizer.lr": 0.3}
    assert study.search is not None and study.search.goals == (Goal(metric="val.loss", direction="minimize"),)
    assert study.search.space == (SearchRange(path="train.optimizer.lr", low=0.01, high=1.0, log=True),)
    assert study.report.figures == (("x", {"k": 2}),)


def test_confirm_is_as_many_as_repeats_after_a_search_and_none_without_one() -> None:
    assert study_of(SEARCH, repeats=4).confirm == 4
    assert study_of(FACTOR, repeats=4).confirm == 0
    assert study_of(SEARCH, "[confirm]\nn = 0\n").confirm == 0


def test_every_problem_is_told_at_once() -> None:
    text = """
titel = "x"
seed = "one"
[data]
name = "digits"
val_size = -1
[model]
norm = 3
[train]
epochs = 0
batch_size = "many"
optimiser = { name = "sgd" }
optimizer = { name = "sdg", lr = nan }
schedule = { name = "cosine", warmup = 2 }
[factors]
"train.epochs" = []
"train.optimizer.lr" = [0.1, 0.1]
[search]
trials = 0
goal = "test.accuracy"
sampler = "tpe2"
space."train.optimizer.lr" = { low = 1.0, high = 0.1 }
[repeats]
m = 3
[report]
metric = "test.acuracy"
"""
    with pytest.raises(StudyError) as caught:
        parse_study(text, name="x", path=Path("x.toml"))
    lines = caught.value.problems
    expected = {
        "titel": "did you mean 'title'?",
        "title": "is missing",
        "seed": "got 'one', expected a whole number",
        "data.val_size": "got -1, expected at least 0",
        "model": "got {}, expected a plugin's name",
        "model.norm": "got 3, expected a plugin's name",
        "train.batch_size": "got 'many', expected a whole number",
        "train.optimiser": "did you mean 'optimizer'?",
        "train.optimizer.lr": "got nan, expected a number",
        "train.schedule.warmup": "got 2, expected 0 to 1",
        "factors.train.epochs": "got [], expected a list of levels",
        "factors.train.optimizer.lr": "level '0.1' stands twice",
        "search.goal": "never test",
        "search.space.train.optimizer.lr": "low below high",
        "repeats": "got {'m': 3}",
        "report.metric": "did you mean 'test.accuracy'?",
    }
    for where, what in expected.items():
        assert any(line.startswith(f"{where}: ") and what in line for line in lines), (where, lines)
    assert caught.value.what.startswith("x.toml: ")


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ('[search]\ntrials = 0\nspace."train.epochs" = [1, 2]\n', "search.trials: got 0, expected 1 to 100,000"),
        ('[search]\ntrials = 1\nsampler = "tpa"\nspace."train.epochs" = [1, 2]\n', "did you mean 'tpe'?"),
        ("[search]\ntrials = 1\n", "search.space: is missing"),
        (
            "[search]\ntrials = 1\nspace.train.optimizer.lr = { low = 0.1, high = 1.0 }\n",
            'expected a range or a list of choices; a path of several names stands in quotes: "train.optimizer.lr"',
        ),
        (
            "[search]\ntrials = 1\nspace.train = { low = 0.1 }\n",
            "search.space.train: got low 0.1 and high None, expected two numbers, low below high",
        ),
        (
            '[factors]\nmodel.norm = ["bn", "gn"]\n',
            'expected a list of levels; a path of several names stands in quotes: "model.norm"',
        ),
        ('[search]\ntrials = 1\ngoal = []\nspace."train.epochs" = [1, 2]\n', "search.goal: is empty"),
        (
            '[search]\ntrials = 1\ngoal = ["val.loss", "val.loss"]\nspace."train.epochs" = [1, 2]\n',
            "'val.loss' stands twice",
        ),
        (
            '[search]\ntrials = 1\ngoal = ["val.loss", "cost.seconds"]\npruner = "median"\n'
            'space."train.epochs" = [1, 2]\n',
            "search.pruner: got 'median': only a single goal",
        ),
        (
            '[search]\ntrials = 1\ngoal = "cost.parameters"\npruner = "median"\nspace."train.epochs" = [1, 2]\n',
            "only a single goal that is read after each epoch can be pruned, such as val.loss",
        ),
        (
            '[search]\ntrials = 1\nsampler = "cma-es"\ngoal = ["val.loss", "cost.seconds"]\n'
            'space."train.epochs" = { low = 1, high = 3 }\n',
            "got 'cma-es' with several goals",
        ),
        ('[search]\ntrials = 1\nsampler = "cma-es"\nspace."train.epochs" = [1, 2]\n', "nothing but choices"),
        (
            '[search]\ntrials = 1\nsampler = "grid"\nspace."train.optimizer.lr" = { low = 0.1, high = 1.0 }\n',
            "a grid needs a list of choices, or a range with a step",
        ),
        ('[search]\ntrials = 1\nsampler = []\nspace."train.epochs" = [1, 2]\n', "search.sampler: is empty"),
        ('[search]\ntrials = 1\nsampler = ["tpe", "tpe"]\nspace."train.epochs" = [1, 2]\n', "'tpe' stands twice"),
        ('[search]\ntrials = 1\nsampler = ["tpe", "rndom"]\nspace."train.epochs" = [1, 2]\n', "mean 'random'?"),
        ('[search]\ntrials = 1\nsampler = ["tpe", 3]\nspace."train.epochs" = [1, 2]\n', "got 3, expected one of tpe"),
        ('[search]\ntrials = 1\nsampler = ["tpe", "cma-es"]\nspace."train.epochs" = [1, 2]\n', "nothing but choices"),
        (
            '[search]\ntrials = 1\nsampler = ["tpe", "grid"]\nspace."train.optimizer.lr" = { low = 0.1, high = 1.0 }\n',
            "a grid needs a list of choices, or a range with a step",
        ),
        ('[search]\ntrials = 1\nsamplers = ["tpe"]\nspace."train.epochs" = [1, 2]\n', "did you mean 'sampler'?"),
        ('[search]\ntrials = 1\nspace."train.epochs" = [1, 1]\n', "a choice stands twice"),
        ('[search]\ntrials = 1\nspace."train.epochs" = [1, 0]\n', "search.space.train.epochs: train.epochs: got 0"),
        (
            '[search]\ntrials = 1\nspace."train.optimizer.momentum" = { low = 0.5, high = 1.5 }\n',
            "search.space.train.optimizer.momentum: train.optimizer.momentum: got 1.5, expected 0 to 1",
        ),
        (
            '[search]\ntrials = 1\nspace."train.optimizer.lr" = { low = 0.0, high = 1.0, log = true }\n',
            "got low 0.0, expected above 0 on a log scale",
        ),
        (
            '[search]\ntrials = 1\nspace."train.optimizer.lr" = { low = 0.1, high = 1.0, step = 0.4 }\n',
            "got step 0.4, which does not lead from 0.1 to 1.0",
        ),
        (
            '[search]\ntrials = 1\nspace."train.optimizer.lr" = { low = 0.1, high = 1.0, step = 0.1, log = true }\n',
            "has both log and step",
        ),
        ('[search]\ntrials = 1\nspace."train.epochs" = { low = 1, high = 5, step = 0.5 }\n', "a whole number of at"),
        (
            '[search]\ntrials = 1\nspace."train.optimizer.lr" = { low = 0.1, high = 1.0, stp = 0.1 }\n',
            "did you mean 'step'?",
        ),
        ('[search]\ntrials = 1\nspace."regularizers.dropout.rate" = [0.1, 0.2]\n', "no regularizer 'dropout'"),
        ('[factors]\n"a" = [{ label = "x" }]\n', "level 'x' needs a value, or a table `set`"),
        ('[factors]\n"a" = [{ label = " ", value = 1 }]\n', "a label is empty"),
        (
            '[factors]\n"train.epochs" = [{ label = "a", value = 2 }, { label = "b", value = 2 }]\n',
            "levels 'a' and 'b' are the same",
        ),
        (
            '[factors]\n"train.epochs" = [2, 3]\nboth = [{ label = "x", set = { "train.epochs" = 4 } }]\n',
            "factors.both: fixes train.epochs, which the factor 'train.epochs' fixes too",
        ),
        ('[factors]\n"regularizers.dropot" = [false]\n', "the study has no regularizer 'dropot'"),
        ("factors = 3\n", "got 3, expected a table of lists"),
        (
            '[[published]]\nsource = "x"\nrows = [{ when = {}, metric = "test.accuracy", value = "high" }]\n',
            "rows[0].val",
        ),
        ('[[published]]\nsource = "x"\nrows = [{ when = {}, metric = "accuracy", value = 1 }]\n', "got 'accuracy'"),
        ("[[published]]\nrows = []\n", "published[0].source: is missing"),
        ('[[published]]\nsource = "x"\nrows = 3\n', "published[0].rows: got 3"),
        ('[report]\nfigures = "x"\n', "report.figures: got 'x', expected a list"),
        ("[report]\nfigures = [{ rate = 1 }]\n", "expected a figure's name"),
        (
            '[smoke]\n"train.metrics" = ["brier"]\n',
            "train.metrics: unknown key (did you mean report.metrics?); known: ",
        ),
        ('[smoke]\n"train.max_lr" = 1\n', "train.max_lr: unknown key (did you mean train.schedule.max_lr?)"),
        ('[smoke]\n"train.epoch" = 1\n', "smoke: train.epoch: unknown key (did you mean 'epochs'?)"),
        ("[confirm]\nn = -1\n", "confirm: got {'n': -1}, expected a table with n, a whole number from 0 to 1000"),
        ('[[regularizers]]\nname = "dropout"\n[[regularizers]]\nname = "dropout"\n', "regularizers.dropout: stands tw"),
    ],
)
def test_a_problem_names_its_place_and_what_was_expected(part: str, told: str) -> None:
    if part.startswith("factors ="):
        with pytest.raises(StudyError) as caught:
            parse_study(part + tiny_study.text_of(), name="x")
        assert told in "\n".join(caught.value.problems)
    else:
        assert told in problems_of(part)


def test_published_levels_that_a_factor_lacks_are_told_with_the_nearest() -> None:
    rows = 'rows = [{ when = { "model.norm" = "torch-bm" }, metric = "test.loss", value = 1 }]\n'
    part = f'[[published]]\nsource = "x"\n{rows}'
    told = problems_of('[factors]\n"model.norm" = ["torch-bn", "gn"]\n', part)
    assert (
        "published[0].rows[0].when.model.norm: got 'torch-bm' (did you mean 'torch-bn'?), expected one of torch-bn, gn"
        in told
    )


def test_text_that_is_not_toml_and_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"x: not valid TOML: Invalid value"):
        parse_study("title = ", name="x")
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(tmp_path)
    (tmp_path / "x.toml").write_bytes(b"title = '\xff'")
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(tmp_path / "x.toml")


def test_a_wrong_goal_is_one_problem_where_a_pruner_is_named() -> None:
    text = 'title = "T"\n[data]\nname = "digits"\n[model]\nname = "mlp"\n[search]\ntrials = 1\ngoal = "test.loss"\n'
    with pytest.raises(StudyError) as caught:
        parse_study(f'{text}pruner = "median"\nspace."train.epochs" = [1, 2]\n', name="t")
    (problem,) = caught.value.problems
    assert problem.startswith("search.goal: got 'test.loss'")


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("bn", "bn"),
        (0.1, "0.1"),
        (1e-5, "1e-05"),
        (0.12345678, "0.12345678"),
        (3, "3"),
        (True, "on"),
        (False, "off"),
        ([32, 64], "32 + 64"),
        ([], "none"),
        ({"name": "gn", "groups": 4, "eps": 1e-3}, "gn(groups=4, eps=0.001)"),
        ({"name": "gn"}, "gn"),
    ],
)
def test_labels_are_short_and_exact(value: object, label: str) -> None:
    assert label_of(value) == label


def test_levels_are_values_tables_labelled_values_or_labelled_sets() -> None:
    study = study_of(
        '[factors]\n"model.norm" = ["bn", { name = "gn", groups = 4 }, { label = "mine", value = "ln" }]\n'
        'size = [{ label = "small", set = { "train.batch_size" = 10, "train.epochs" = 2 } }]\n'
    )
    norm, size = study.factors
    assert [level.label for level in norm.levels] == ["bn", "gn(groups=4)", "mine"]
    assert norm.levels[1].settings == {"model.norm": {"name": "gn", "groups": 4}}
    assert norm.levels[2].settings == {"model.norm": "ln"}
    assert size.levels[0].settings == {"train.batch_size": 10, "train.epochs": 2}


def test_a_search_has_one_sampler_or_compares_several() -> None:
    def search_of(sampler: str, *overrides: str) -> Search:
        found = study_of(SEARCH.replace('"tpe"', sampler), overrides=overrides).search
        assert found is not None
        return found

    several = search_of('["random", "tpe"]')
    assert (several.sampler, several.samplers) == ("random", ("random", "tpe"))
    study = study_of(SEARCH.replace('"tpe"', '["random", "tpe"]'))
    alone = [plan.search_of(study, one) for one in plan.make_plan(study).conditions if one.kind == "search"]
    assert alone == [search_of('"random"'), search_of('"tpe"')] and search_of('"tpe"') == search_of('["tpe"]')
    assert search_of('"tpe"', 'search.sampler=["random", "tpe"]') == several
    assert search_of('["random", "tpe"]', "search.sampler=tpe") == search_of('"tpe"')


def test_the_smoke_form_is_tiny_named_apart_and_on_digits() -> None:
    text = tiny_study.text_of(FACTOR, SEARCH, '[smoke]\n"model.hidden" = [4]\n', epochs=50, repeats=9)
    study = parse_study(text.replace('name = "digits"', 'name = "mnist"'), name="big", smoke=True)
    assert (study.name, study.smoke, study.repeats, study.confirm) == ("big-smoke", True, 1, 1)
    assert study.settings["data"]["name"] == "digits"
    assert study.settings["train"]["epochs"] == 1
    assert study.settings["model"]["hidden"] == [4]
    assert study.search is not None and study.search.trials == 2


def test_the_smoke_form_leaves_out_what_it_fixes_itself() -> None:
    factors = (
        '[factors]\n"train.epochs" = [5, 9]\n"train.optimizer.momentum" = [0.5, 0.9]\n'
        'amount = [{ label = "few", set = { "data.train_size" = 1000 } }]\n'
    )
    search = '[search]\ntrials = 9\nspace."train.batch_size" = [8, 16]\n'
    study = study_of(factors, search, smoke=True)
    assert [factor.path for factor in study.factors] == ["train.optimizer.momentum"]
    assert study.search is None and study.confirm == 0


def test_the_smoke_form_keeps_of_a_level_what_it_does_not_fix() -> None:
    levels = """
[factors]
step = [
    { label = "plain", set = { "model.norm" = "none" } },
    { label = "longer", set = { "model.norm" = "none", "train.epochs" = 100 } },
    { label = "normed", set = { "model.norm" = "bn", "train.epochs" = 100 } },
]
[[published]]
source = "x"
rows = [{ when = { step = "longer" }, metric = "test.loss", value = 1 }]
"""
    study = study_of(levels, smoke=True)
    assert [(level.label, level.settings) for level in study.factors[0].levels] == [
        ("plain", {"model.norm": "none"}),
        ("normed", {"model.norm": "bn"}),
    ]
    assert study.published == () and study_of(levels).published != ()


def test_set_has_the_last_word_in_the_smoke_form_but_not_on_its_data() -> None:
    study = study_of(smoke=True, overrides=("train.epochs=2", "repeats.n=2", "data.train_size=900"))
    assert (study.settings["train"]["epochs"], study.repeats) == (2, 2)
    assert study.settings["data"]["train_size"] == 80
    other = study_of(smoke=True, overrides=('data={name="mnist", normalize="none"}',))
    assert (other.settings["data"]["name"], other.settings["data"]["normalize"]) == ("digits", "none")


@pytest.mark.parametrize(
    ("written", "override"),
    [
        ("", "data.name=mnits"),
        ("", 'data={name="mnits", normalize="none"}'),
        ('[factors]\n"data.name" = ["digits", "mnits"]\n', "seed=3"),
        ('[factors]\n"data.name" = [{ label = "own", value = "mnits" }]\n', "seed=3"),
        (
            '[factors]\nimages = [{ label = "own", set = { "data.name" = "mnits" } }, { label = "none", set = {} }]\n',
            "seed=3",
        ),
    ],
)
def test_the_smoke_form_hides_no_data_set_that_is_not_there(tmp_path: Path, written: str, override: str) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(tiny_study.text_of(written))
    with pytest.raises(StudyError) as caught:
        find_study(str(path), Registry.installed(), overrides=[override], smoke=True)
    assert caught.value.problems == ("data.name: there is no data set 'mnits' (did you mean 'mnist'?)",)
    path.write_text(tiny_study.text_of(written.replace("mnits", "mnist")))
    study = find_study(str(path), Registry.installed(), overrides=[override.replace("mnits", "mnist")], smoke=True)
    assert study.settings["data"]["name"] == "digits"


def test_a_wrong_smoke_section_is_told_with_and_without_smoke() -> None:
    for smoke in (False, True):
        assert "regularizers.dropout" in problems_of('[smoke]\n"regularizers.dropout" = false\n', smoke=smoke)


def test_an_added_level_fixes_all_that_the_one_before_it_fixes() -> None:
    study = parse_study(
        """
title = "ladder"
[data]
name = "digits"
[model]
name = "mlp"
[factors]
step = [
    { label = "0", set = {} },
    { label = "1", add = { "train.epochs" = 3 } },
    { label = "2", add = { "train.batch_size" = 16 } },
    { label = "3", add = { "train.epochs" = 5 } },
]
""",
        name="ladder",
    )
    assert [dict(level.settings) for level in study.factors[0].levels] == [
        {},
        {"train.epochs": 3},
        {"train.epochs": 3, "train.batch_size": 16},
        {"train.epochs": 5, "train.batch_size": 16},
    ]


def test_the_smoke_form_of_a_ladder_leaves_out_what_it_fixes_itself() -> None:
    study = parse_study(
        """
title = "ladder"
[data]
name = "cifar100"
normalize = false
[model]
name = "mlp"
[factors]
step = [
    { label = "0", set = {} },
    { label = "1", add = { "data.normalize" = true } },
    { label = "2", add = { "train.epochs" = 100 } },
]
""",
        name="ladder",
        smoke=True,
    )
    assert [(level.label, dict(level.settings)) for level in study.factors[0].levels] == [
        ("0", {}),
        ("1", {"data.normalize": True}),
    ]
    assert study.settings["data"]["normalize"] is False
    assert study.settings["train"]["epochs"] == 1
