"""What is wrong with the plugins and options of a plan, before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch  # noqa: F401 - plugins are then described in this process, which saves starting another
from tiny_study import study_of

from benchkit.cli import main
from benchkit.errors import StudyError
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.study.checks import check_plan

PLUGIN = """
from dataclasses import dataclass
from benchkit import Range, card

@card(title="T", summary="s", ranges={"rate": Range(low=0.0, high=0.9)}, choices={"kind": ("a", "b")})
@dataclass(frozen=True)
class Tame:
    rate: float = 0.5
    count: int = 1
    kind: str = "a"

PLUGINS = {"benchkit.regularizers": {"tame": Tame}}
"""
TAME = '[[regularizers]]\nname = "tame"\n'


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text(PLUGIN)
    return Registry.installed([tmp_path / "mine.py"])


def problems(registry: Registry, *parts: str) -> str:
    plan = make_plan(study_of(*parts))
    with pytest.raises(StudyError) as caught:
        check_plan(plan, registry)
    return "\n".join(caught.value.problems)


def space(path: str, values: str) -> str:
    return f'[search]\ntrials = 2\nspace."{path}" = {values}\n'


def test_a_good_plan_passes(registry: Registry) -> None:
    search = space("regularizers.tame.rate", "{ low = 0.0, high = 0.9 }")
    check_plan(make_plan(study_of(TAME, '[factors]\n"regularizers.tame.kind" = ["a", "b"]\n', search)), registry)


def test_all_unknown_plugins_and_options_are_told_at_once(registry: Registry) -> None:
    told = problems(
        registry,
        '[[regularizers]]\nname = "tame"\nrat = 1.0\ncount = "x"\n[[regularizers]]\nname = "tam"\n',
        '[factors]\n"model.norm" = ["bm", { name = "gn", grups = 3 }]\n[report]\nfigures = ["no-such-figure"]\n',
    )
    assert "regularizers.tame.rat is not an option (did you mean 'rate'?); options: rate, count, kind" in told
    assert "regularizers.tame.count = 'x' is text; expected int" in told
    assert "regularizers.tam: there is no regularizer 'tam' (did you mean 'tame'?)" in told
    assert "model.norm: there is no norm 'bm'" in told
    assert "model.norm.grups is not an option (did you mean 'groups'?)" in told
    assert "report.figures.no-such-figure: there is no figure 'no-such-figure'" in told


def test_where_missing_plugins_may_be_is_said_once_for_all(registry: Registry) -> None:
    plan = make_plan(study_of('[factors]\n"model.norm" = ["no-a", "no-b"]\n[report]\nfigures = ["no-c"]\n'))
    with pytest.raises(StudyError) as caught:
        check_plan(plan, registry)
    assert list(caught.value.problems) == [
        "model.norm: there is no norm 'no-a'",
        "model.norm: there is no norm 'no-b'",
        "report.figures.no-c: there is no figure 'no-c'",
    ]
    assert str(caught.value).count("needs --plugin FILE") == str(caught.value).count("hint: ") == 1


def test_keys_beside_a_plugins_options_are_named_and_near(registry: Registry) -> None:
    told = problems(registry, '[factors]\n"model.nrom" = ["bn", "gn"]\n"data.valsize" = [10, 20]\n')
    assert "model.nrom is not an option (did you mean 'norm'?); options: " in told
    assert "; other keys: name, norm, weights" in told
    assert "data.valsize is not an option (did you mean 'val_size'?)" in told and "folds" not in told


def test_levels_are_held_to_the_cards_range(registry: Registry) -> None:
    told = problems(registry, TAME, '[factors]\n"regularizers.tame.rate" = [0.1, 0.95]\n')
    assert told == "regularizers.tame.rate = 0.95 is out of range; expected float in 0..0.9"


def test_searched_ranges_are_held_to_the_cards_range(registry: Registry) -> None:
    told = problems(registry, TAME, space("regularizers.tame.rate", "{ low = 0.1, high = 1.5 }"))
    assert told == (
        "search.space.regularizers.tame.rate: regularizers.tame.rate = 1.5 is out of range; expected float in 0..0.9"
    )


def test_every_searched_choice_is_checked(registry: Registry) -> None:
    told = problems(registry, TAME, space("regularizers.tame.kind", '["a", "c"]'))
    assert "search.space.regularizers.tame.kind: regularizers.tame.kind = 'c' is not allowed" in told
    told = problems(registry, space("model.norm", '["bn", "no-norm"]'))
    assert "search.space.model.norm: model.norm: there is no norm 'no-norm'" in told
    told = problems(registry, TAME, space("regularizers.tame.rte", "[0.1, 0.2]"))
    assert "search.space.regularizers.tame.rte: regularizers.tame.rte is not an option (did you mean 'rate'?)" in told


def test_whole_ends_of_a_float_options_range_are_told(registry: Registry) -> None:
    told = problems(registry, TAME, space("regularizers.tame.rate", "{ low = 0, high = 1 }"))
    assert "the option is a float: write low = 0.0, high = 1.0" in told
    check_plan(make_plan(study_of(TAME, space("regularizers.tame.count", "{ low = 1, high = 3 }"))), registry)


def test_a_broken_plugin_is_fatal_only_where_a_study_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.py").write_text('import no_such_module\nPLUGINS = {"benchkit.regularizers": {"bad": bad}}\n')
    registry = Registry.installed([tmp_path / "bad.py"])
    check_plan(make_plan(study_of()), registry)
    told = problems(registry, '[[regularizers]]\nname = "bad"\n')
    assert told.startswith("regularizers.bad: plugin 'bad' is broken:") and "no_such_module" in told


def test_a_factor_that_the_model_ignores_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mlp.toml"
    text = '[data]\nname = "digits"\n[model]\nname = "mlp"\n[factors]\n"model.norm" = ["bn", "in"]\n'
    path.write_text(f'title = "T"\n{text}')
    assert main(["studies", "check", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == (
        "warning: model.norm has no effect beside model = 'mlp' at model.normalize = false: conditions that differ in "
        "it alone train the same\n"
    )
    assert "1 warning, 2 conditions" in captured.out
    assert main(["studies", "check", str(path), "--set", "model.normalize=true"]) == 0
    assert "nothing wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "beside"),
    [
        ("train.optimizer.lr", "train.schedule.max_lr"),
        ("train.optimizer.betas", "train.optimizer = 'sgd'"),
        ("train.schedule.gamma", "train.schedule = 'one-cycle'"),
        ("train.optimizer.momentum", ""),
        ("train.schedule.max_lr", ""),
    ],
)
def test_a_searched_setting_that_nothing_uses_is_warned_of(registry: Registry, path: str, beside: str) -> None:
    choices = "[[0.9, 0.99], [0.9, 0.9]]" if path.endswith("betas") else "[0.1, 0.2]"
    usual = '[train.schedule]\nname = "one-cycle"\nmax_lr = 0.2\n'
    search = f'[search]\ntrials = 4\nspace."{path}" = {choices}\n'
    told = f"{path} has no effect beside {beside}: conditions that differ in it alone train the same"
    assert check_plan(make_plan(study_of(usual + search)), registry) == ((told,) if beside else ())
    # Where max_lr may be 0, or the optimizer another, the setting is used.
    other = 'space."train.optimizer.name" = ["sgd", "adamw"]\nspace."train.schedule.name" = ["step", "one-cycle"]\n'
    assert check_plan(make_plan(study_of(usual + search + other)), registry) == ()
    if path == "train.optimizer.lr":
        zero = 'space."train.schedule.max_lr" = [0.0, 0.2]\n'
        assert check_plan(make_plan(study_of(usual + search + zero)), registry) == ()


def test_a_search_whose_trials_are_judged_by_other_images_is_warned_of(registry: Registry) -> None:
    (told,) = check_plan(make_plan(study_of('[search]\ntrials = 4\nspace."data.val_size" = [100, 200]\n')), registry)
    assert told.startswith("search.space.data.val_size: trials that differ in it are judged on other images")


def test_two_regularizers_that_do_what_one_can_are_refused(registry: Registry) -> None:
    pair = "".join(f'[[regularizers]]\nname = "sam"\nid = "{name}"\n' for name in ("first", "second"))
    told = problems(registry, pair)
    assert "first and second: each takes each step in two passes; expected at most one of them in a condition" in told
    assert check_plan(make_plan(study_of(pair.replace('"sam"', '"ema"', 1))), registry) == ()


def test_rare_classes_that_count_twice_are_warned_of(registry: Registry) -> None:
    sampled = '[[regularizers]]\nname = "class-balance"\n'
    weighted = '[train.loss]\nname = "focal"\nbalanced = true\n'
    (warning,) = check_plan(make_plan(study_of(sampled, weighted)), registry)
    assert "regularizers.class-balance draws images of rare classes more often, and train.loss weighs them" in warning
    assert check_plan(make_plan(study_of(sampled)), registry) == ()
    assert check_plan(make_plan(study_of(weighted)), registry) == ()


def test_combinations_of_levels_with_the_same_settings_are_told(registry: Registry) -> None:
    levels = '{ label = "a", set = {} }, { label = "b", set = { "train.optimizer.lr" = 0.1 } }'
    study = study_of(f'[factors]\nrecipe = [{levels}]\n"train.batch_size" = [10, 20, 30, 40]\n')
    plan = make_plan(study)
    assert [one.label for one in plan.conditions] == [f"recipe=a, batch_size={size}" for size in (10, 20, 30, 40)]
    (warning,) = check_plan(plan, registry)
    assert warning == (
        "combinations of levels with the settings of an earlier one are no conditions: "
        "'recipe=b, batch_size=10' those of 'recipe=a, batch_size=10', 'recipe=b, batch_size=20' those of "
        "'recipe=a, batch_size=20', 'recipe=b, batch_size=30' those of 'recipe=a, batch_size=30' and 1 more"
    )
    assert check_plan(make_plan(replace(study, smoke=True)), registry) == ()
    assert check_plan(make_plan(study, only={"recipe": ["b"]}), registry) == ()
