"""Conditions, their fingerprints and the order of trials."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tiny_study
from tiny_study import FACTOR, SEARCH, study_of

from benchkit.errors import StudyError
from benchkit.plan import confirm_condition, contains, default_params, grid_points, make_plan
from benchkit.study import SearchRange
from benchkit.study.seeds import derive_seed
from benchkit.study.studyfile import parse_study

NORMS = '[factors]\n"model.norm" = ["bn", { name = "gn", groups = 4 }, "none"]\n'


def keys(*parts: str, **more: object) -> list[str]:
    return [condition.key for condition in make_plan(study_of(*parts, **more)).conditions]  # type: ignore[arg-type]


def key_after(change: Callable[[str], str]) -> str:
    return make_plan(parse_study(change(tiny_study.text_of()), name="x")).conditions[0].key


def test_a_plan_is_all_combinations_repeats_first() -> None:
    plan = make_plan(study_of('[factors]\n"train.epochs" = [1, 2]\n"train.batch_size" = [10, 20]\n', repeats=2))
    assert [condition.label for condition in plan.conditions] == [
        "epochs=1, batch_size=10", "epochs=1, batch_size=20", "epochs=2, batch_size=10", "epochs=2, batch_size=20",
    ]  # fmt: skip
    assert [unit.index for unit in plan.units()] == [0] * 4 + [1] * 4
    assert plan.conditions[2].settings["train"]["epochs"] == 2
    assert plan.conditions[2].levels == {"train.epochs": "2", "train.batch_size": "10"}


def test_labels_tell_paths_with_the_same_end_apart() -> None:
    parts = '[[regularizers]]\nname = "a"\n[[regularizers]]\nname = "b"\n'
    plan = make_plan(study_of(parts, '[factors]\n"regularizers.a.rate" = [0.1]\n"regularizers.b.rate" = [0.2]\n'))
    assert plan.conditions[0].label == "a.rate=0.1, b.rate=0.2"


def test_a_study_without_factors_has_one_condition() -> None:
    assert [condition.label for condition in make_plan(study_of()).conditions] == ["default"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed = 3", "seed = 4"),
        ("epochs = 3", "epochs = 4"),
        ("train_size = 60", "train_size = 61"),
        ("hidden = [8]", "hidden = [9]"),
        ("lr = 0.1", "lr = 0.2"),
        ('name = "sgd"', 'name = "adam"'),
        ('precision = "float32"', 'precision = "bf16"'),
        ('precision = "float32"', 'precision = "float32"\nthreads = 2'),
        ("[model]", '[[regularizers]]\nname = "l1"\n[model]'),
        ('name = "mlp"', 'name = "mlp"\nnorm = "gn"'),
    ],
)
def test_the_fingerprint_changes_with_what_determines_a_trial(old: str, new: str) -> None:
    assert old in tiny_study.text_of()
    assert key_after(lambda text: text.replace(old, new, 1)) != key_after(lambda text: text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('title = "Tiny"', 'title = "Other"'),
        ("n = 2", "n = 20"),
        ("lr = 0.1", "lr = 0.1, momentum = 0.9"),  # its default
        ('name = "mlp"', 'name = "mlp"\nnorm = "torch-bn"'),  # its default
        ("epochs = 3\nbatch_size = 20", "batch_size = 20\nepochs = 3"),
    ],
)
def test_the_fingerprint_does_not_change_with_anything_else(old: str, new: str) -> None:
    assert old in tiny_study.text_of()
    assert key_after(lambda text: text.replace(old, new, 1)) == key_after(lambda text: text)


def test_a_whole_number_and_the_same_number_with_a_point_are_one_setting() -> None:
    assert key_after(lambda t: t.replace("lr = 0.1", "lr = 1")) == key_after(
        lambda t: t.replace("lr = 0.1", "lr = 1.0")
    )


def test_the_order_of_regularizers_is_part_of_the_fingerprint() -> None:
    first, second = '[[regularizers]]\nname = "a"\n', '[[regularizers]]\nname = "b"\n'
    assert keys(first, second) != keys(second, first)


def test_overrides_are_part_of_the_fingerprint_as_if_they_stood_in_the_file() -> None:
    assert keys(overrides=("train.epochs=9",)) == keys(epochs=9) != keys()


def test_the_smoke_form_has_fingerprints_of_its_own() -> None:
    assert not set(keys(FACTOR, SEARCH)) & set(keys(FACTOR, SEARCH, smoke=True))


def test_seeds_depend_on_seed_repeat_and_purpose_alone() -> None:
    # sha256(b"3/repeat/0/init"), its first eight bytes halved, by hand with sha256sum.
    import hashlib

    expected = int(hashlib.sha256(b"3/repeat/0/init").hexdigest()[:16], 16) // 2
    assert derive_seed(3, "repeat", 0, "init") == expected
    assert len({derive_seed(3, "repeat", index, part) for index in range(3) for part in ("init", "order")}) == 6


def test_only_picks_levels_by_label_or_by_plugin_name() -> None:
    study = study_of(NORMS)
    assert [c.label for c in make_plan(study, only={"model.norm": ["gn", "none"]}).conditions] == [
        "gn(groups=4)", "none",
    ]  # fmt: skip
    whole = {condition.label: condition.key for condition in make_plan(study).conditions}
    assert make_plan(study, only={"model.norm": ["gn"]}).conditions[0].key == whole["gn(groups=4)"]


def test_only_may_name_an_installed_plugin_that_is_no_level() -> None:
    plan = make_plan(study_of(NORMS), only={"model.norm": ["ln"]})
    assert [(c.label, c.settings["model"]["norm"]) for c in plan.conditions] == [("ln", "ln")]


def test_only_tells_of_unknown_levels_and_factors() -> None:
    with pytest.raises(StudyError, match=r"no such level.*did you mean '0.1'"):
        make_plan(study_of(FACTOR), only={"train.optimizer.lr": ["0.11"]})
    with pytest.raises(StudyError, match=r"has no such factor \(did you mean 'model.norm'\?\)"):
        make_plan(study_of(NORMS), only={"model.nrm": ["bn"]})
    two = '[factors]\n"model.norm" = [{ name = "gn", groups = 4 }, { name = "gn", groups = 2 }]\n'
    with pytest.raises(StudyError, match="stands for several levels"):
        make_plan(study_of(two), only={"model.norm": ["gn"]})


def test_a_search_runs_within_every_condition_and_goes_on_when_its_total_is_raised() -> None:
    search = SEARCH.replace("train.optimizer.lr", "train.optimizer.momentum").replace("high = 1.0", "high = 0.9")
    plan = make_plan(study_of(NORMS, search, repeats=1))
    assert [(c.label, c.kind, plan.count(c)) for c in plan.conditions] == [
        ("bn", "grid", 1), ("gn(groups=4)", "grid", 1), ("none", "grid", 1),
        ("bn, search", "search", 4), ("gn(groups=4), search", "search", 4), ("none, search", "search", 4),
    ]  # fmt: skip
    assert keys(NORMS, search) == keys(NORMS, search.replace("trials = 4", "trials = 40"))
    assert keys(NORMS, search)[3:] != keys(NORMS, search.replace("low = 0.01", "low = 0.02"))[3:]


def test_every_sampler_has_a_search_of_its_own() -> None:
    search = SEARCH.replace("train.optimizer.lr", "train.optimizer.momentum").replace("high = 1.0", "high = 0.9")
    several = search.replace('"tpe"', '["grid", "tpe"]').replace("log = true", "step = 0.445")
    plan = make_plan(study_of(NORMS, several, repeats=1))
    assert [(c.label, c.sampler, c.storage_label, plan.count(c)) for c in plan.conditions[3:5]] == [
        ("bn, search by grid", "grid", "bn, search", 3), ("bn, search by tpe", "tpe", "bn, search", 4),
    ]  # fmt: skip
    assert len({condition.key for condition in plan.conditions}) == len(plan.conditions) == 3 + 2 * 3
    undivided = make_plan(study_of(SEARCH.replace('"tpe"', '["tpe", "random"]'))).conditions
    assert [c.display_label for c in undivided] == ["default", "search by tpe", "search by random"]
    assert [c.display_label for c in make_plan(study_of(SEARCH)).conditions] == ["default", "search"]


def test_a_search_keeps_its_key_whatever_samplers_stand_beside_it() -> None:
    # As benchkit named these searches before a study could compare samplers.
    assert keys(SEARCH)[1] == "8bdd04dbed89"
    assert keys(SEARCH.replace('"tpe"', '"random"'))[1] == "c525b0835aca"
    for samplers in ('["tpe", "random"]', '["gp", "random", "tpe"]'):
        plan = make_plan(study_of(SEARCH.replace('"tpe"', samplers)))
        found = {condition.sampler: condition.key for condition in plan.conditions}
        assert (found["tpe"], found["random"]) == ("8bdd04dbed89", "c525b0835aca")


def test_a_search_over_a_factor_collapses_that_factor() -> None:
    plan = make_plan(study_of(FACTOR, SEARCH))
    assert [(c.label, c.kind) for c in plan.conditions] == [
        ("0.1", "grid"), ("0.3", "grid"), ("default, search", "search"),
    ]  # fmt: skip


def test_a_confirm_condition_has_the_chosen_settings_and_is_not_the_grids() -> None:
    study = study_of(SEARCH)
    frame = make_plan(study).conditions[-1]
    confirm = confirm_condition(study, frame, {"train.optimizer.lr": 0.5})
    assert (confirm.kind, confirm.label, confirm.parent) == ("confirm-best", "default, searched", frame.key)
    assert confirm.settings["train"]["optimizer"]["lr"] == 0.5
    assert confirm.key != confirm_condition(study, frame, {"train.optimizer.lr": 0.6}).key
    assert confirm.key == "bcc1014e6b72"  # of all versions
    several = study_of(SEARCH.replace('"tpe"', '["tpe", "random"]'))
    first, second = (
        confirm_condition(several, one, {"train.optimizer.lr": 0.5}) for one in make_plan(several).conditions[1:]
    )
    assert first.key == confirm.key != second.key
    assert (second.label, second.sampler, second.display_label) == (
        "default, searched by random", "random", "best of search by random",
    )  # fmt: skip


def test_conditions_that_cannot_be_trained_are_told_together() -> None:
    study = study_of('[factors]\n"train.optimizer" = ["sgd", "adam"]\n"train.optimizer.lr" = [0.1]\n')
    assert len(make_plan(study).conditions) == 2


def search_of(space: str) -> object:
    search = study_of(f'[search]\ntrials = 99\nsampler = "grid"\n{space}\n').search
    assert search is not None
    return search


def test_a_grid_search_has_every_point_within_its_ranges() -> None:
    search = search_of(
        'space."train.optimizer.lr" = { low = 0, high = 0.3, step = 0.1 }\n'
        'space."train.epochs" = { low = 1, high = 5, step = 2 }\nspace."train.precision" = ["bf16", "float32"]'
    )
    points = grid_points(search)  # type: ignore[arg-type]
    assert len(points) == 4 * 3 * 2
    assert [point["train.optimizer.lr"] for point in points[::6]] == [0.0, 0.1, 0.2, 0.3]
    assert [point["train.epochs"] for point in points[:6:2]] == [1, 3, 5]
    assert all(type(point["train.epochs"]) is int and type(point["train.optimizer.lr"]) is float for point in points)


def test_a_grid_search_has_no_more_trials_than_points() -> None:
    plan = make_plan(study_of('[search]\ntrials = 99\nsampler = "grid"\nspace."train.epochs" = [1, 2, 3]\n'))
    assert plan.count(plan.conditions[-1]) == 3


@pytest.mark.parametrize(
    ("one", "value", "inside"),
    [
        (SearchRange(path="x", low=0.0, high=1.0), 0.5, True),
        (SearchRange(path="x", low=0.0, high=1.0), 1, True),
        (SearchRange(path="x", low=0.0, high=1.0), 1.5, False),
        (SearchRange(path="x", low=0.0, high=1.0), True, False),
        (SearchRange(path="x", low=0.0, high=1.0), None, False),
        (SearchRange(path="x", low=0.0, high=1.0, step=0.25), 0.3, False),
        (SearchRange(path="x", low=0.0, high=1.0, step=0.25), 0.75, True),
        (SearchRange(path="x", low=1, high=5, integer=True), 2, True),
        (SearchRange(path="x", low=1, high=5, integer=True), 2.0, False),
        (SearchRange(path="x", choices=("a", 1)), 1, True),
        (SearchRange(path="x", choices=("a", 1)), True, False),
    ],
)
def test_a_range_knows_its_values(one: SearchRange, value: object, inside: bool) -> None:
    assert contains(one, value) is inside


def test_a_search_starts_from_the_studys_own_settings_where_they_lie_inside() -> None:
    study = study_of(SEARCH.replace("space", 'space."train.epochs" = { low = 5, high = 9 }\nspace'))
    assert study.search is not None
    assert default_params(study.search, study.settings) == {"train.optimizer.lr": 0.1}
