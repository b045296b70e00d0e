from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import pytest
from throwaway_distributions import NORM, write_distribution
from tiny_study import study_of

from benchkit.errors import PluginError
from benchkit.plan import make_plan
from benchkit.registry import Registry
from benchkit.registry.kinds import KINDS, parse_kind


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, for throw-away distributions."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.delenv("BENCHKIT_DISABLE_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_a_third_party_norm_appears_without_being_imported(site: Path) -> None:
    write_distribution(site, "alpha-norms", {"norms": {"frn": "alpha_norms:Norm"}}, modules={"alpha_norms.py": NORM})
    registry = Registry.installed()
    entry = registry.find("norms", "frn")
    assert (entry.kind, entry.value, entry.distribution, entry.version) == (
        "norms",
        "alpha_norms:Norm",
        "alpha-norms",
        "1.0",
    )
    assert entry in registry.entries("norms") and entry in registry.entries() and "frn" in registry.names("norms")
    assert "alpha_norms" not in sys.modules
    plugin = registry.load("norms", "frn")
    assert plugin(7).num_channels == 7  # type: ignore[operator]


def test_the_built_in_plugins_are_there_by_kind() -> None:
    registry = Registry.installed()
    assert {"none", "torch-bn", "bn", "in", "bin", "ln", "gn"} <= set(registry.names("norms"))
    assert "digits" in registry.names("datasets") and "quickstart" in registry.names("studies")
    assert [entry.kind for entry in registry.entries()] == sorted(
        (entry.kind for entry in registry.entries()), key=KINDS.index
    )


def test_an_unknown_name_is_told_with_the_nearest(site: Path) -> None:
    with pytest.raises(PluginError, match=r"no norm 'torch-nb' \(did you mean 'torch-bn'\?\)") as caught:
        Registry.installed().find("norms", "torch-nb")
    assert "gn" in caught.value.problems[0]


def test_two_distributions_with_one_name_collide_and_are_told_apart(site: Path) -> None:
    write_distribution(site, "Alpha.Norms", {"norms": {"frn": "alpha_one:Norm"}})
    write_distribution(site, "beta", {"norms": {"frn": "beta_one:Norm"}}, version="2.5")
    registry = Registry.installed()
    with pytest.raises(PluginError) as caught:
        registry.find("norms", "frn")
    text = str(caught.value)
    assert "Alpha.Norms 1.0" in text and "beta 2.5" in text and "'beta:frn'" in text
    assert registry.find("norms", "beta:frn").value == "beta_one:Norm"
    assert registry.find("norms", "alpha_norms:frn").value == "alpha_one:Norm"
    assert registry.resolve("norms", "beta:frn")[1] is None
    assert registry.names("norms").count("frn") == 1


def test_the_advice_on_a_collision_keeps_what_was_trained(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A qualified name is another condition; hiding one of the two leaves the name, and with it the key, as it was."""
    write_distribution(site, "Alpha.Norms", {"norms": {"frn": "alpha_one:Norm"}})
    write_distribution(site, "Beta", {"norms": {"frn": "beta_one:Norm"}}, version="2.5")
    with pytest.raises(PluginError) as caught:
        Registry.installed().find("norms", "frn")
    assert "another name is another condition" in caught.value.hint
    advised = re.search(r"(BENCHKIT_DISABLE_PLUGINS)=(\S+)", caught.value.hint)
    assert advised is not None
    monkeypatch.setenv(*advised.groups())
    assert Registry.installed().find("norms", "frn").value == "alpha_one:Norm"
    keys = {make_plan(study_of(overrides=(f'model.norm="{name}"',))).conditions[0].key for name in ("frn", "beta:frn")}
    assert len(keys) == 2


def test_a_name_of_another_kind_is_no_collision(site: Path) -> None:
    write_distribution(site, "alpha", {"norms": {"frn": "a:A"}, "regularizers": {"frn": "a:B"}})
    registry = Registry.installed()
    assert registry.find("norms", "frn").value == "a:A"
    assert registry.find("regularizers", "frn").value == "a:B"


def test_the_first_of_one_distribution_on_the_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1.0", "2.0"):
        write_distribution(tmp_path / version, "alpha", {"norms": {"frn": "a:A"}}, version=version)
        monkeypatch.syspath_prepend(str(tmp_path / version))
    assert Registry.installed().find("norms", "frn").version == "2.0"


@pytest.mark.parametrize(
    ("text", "value", "variant"),
    [
        ("zoo", "zoo_models:zoo", None),
        ("zoo:resnet18.a1_in1k", "zoo_models:zoo", "resnet18.a1_in1k"),
        ("zoo:a:b", "zoo_models:zoo", "a:b"),
        ("zoo:plain", "plain_models:plain", None),  # the pair (distribution, name) exists and wins
        ("animals:zoo", "zoo_models:zoo", None),
        ("animals:zoo:resnet18", "zoo_models:zoo", "resnet18"),
    ],
)
def test_families_and_distributions_share_the_colon(site: Path, text: str, value: str, variant: str | None) -> None:
    write_distribution(site, "animals", {"models": {"zoo": "zoo_models:zoo"}})
    write_distribution(site, "zoo", {"models": {"plain": "plain_models:plain"}})
    entry, found = Registry.installed().resolve("models", text)
    assert (entry.value, found) == (value, variant)


@pytest.mark.parametrize("text", ["zoo:", "zo:resnet18", "a:b:c", ":", ""])
def test_a_wrong_family_is_an_unknown_plugin(site: Path, text: str) -> None:
    write_distribution(site, "animals", {"models": {"zoo": "zoo_models:zoo"}})
    with pytest.raises(PluginError, match="there is no model"):
        Registry.installed().resolve("models", text)


@pytest.mark.parametrize(
    ("source", "expected", "cause"),
    [
        ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'", ModuleNotFoundError),
        ("def broken(:", "SyntaxError", SyntaxError),
        ("raise RuntimeError('bad day')", "RuntimeError: bad day", RuntimeError),
        ("raise SystemExit(3)", "SystemExit: 3", SystemExit),
        ("Nrom = int", "has no 'Norm' (did you mean 'Nrom'?)", AttributeError),
        ("Norm = 3", "is int, not a class or function", type(None)),
    ],
)
def test_a_broken_plugin_is_named_with_its_origin_and_cause(
    site: Path, source: str, expected: str, cause: type
) -> None:
    module = f"broken_{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    write_distribution(
        site, "alpha", {"norms": {"frn": f"{module}:Norm"}}, modules={f"{module}.py": source}, version="3.1"
    )
    registry = Registry.installed()
    with pytest.raises(PluginError) as caught:
        registry.load("norms", "frn")
    assert "norm 'frn' of alpha 3.1 is broken" in caught.value.what
    assert expected in caught.value.problems[0]
    assert isinstance(caught.value.__cause__, cause)
    assert callable(registry.load("norms", "gn"))


def test_a_plugin_for_another_interface_is_refused_with_both_versions(site: Path) -> None:
    source = NORM.replace('title="Fixed', 'api=7, title="Fixed')
    write_distribution(site, "alpha", {"norms": {"frn": "api_seven:Norm"}}, modules={"api_seven.py": source})
    with pytest.raises(PluginError, match=r"written for version 7 .* this benchkit has version 1"):
        Registry.installed().load("norms", "frn")


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("FRN", "a:A", "lower case"),
        ("f_rn", "a:A", "lower case"),
        ("frn-", "a:A", "lower case"),
        ("frn", "a.b", "module:attribute"),
        ("frn", "a b:c", "module:attribute"),
        ("frn", "", "module:attribute"),
    ],
)
def test_bad_names_and_targets_are_listed_as_broken(site: Path, name: str, target: str, expected: str) -> None:
    write_distribution(site, "alpha", {"norms": {name: target}})
    registry = Registry.installed()
    assert expected in registry.find("norms", name).problem
    with pytest.raises(PluginError, match=expected):
        registry.load("norms", name)


def test_malformed_metadata_harms_no_other_distribution(site: Path) -> None:
    write_distribution(site, "alpha", {"norms": {"frn": "a:A"}})
    facts = write_distribution(site, "beta", {"norms": {}}) / "beta-1.0.dist-info"
    (facts / "entry_points.txt").write_text("[benchkit.norms]\nno equals sign\n# a comment\n[other]\nx = y\n")
    (facts / "METADATA").unlink()
    other = write_distribution(site, "gamma", {"norms": {}}) / "gamma-1.0.dist-info"
    (other / "entry_points.txt").write_bytes(b"[benchkit.norms]\n\xff\xfe = a:A\n")
    registry = Registry.installed()
    assert registry.find("norms", "frn").problem == ""
    broken = registry.find("norms", "no equals sign")
    assert broken.problem and broken.distribution.startswith("unnamed distribution")


@pytest.mark.parametrize(
    ("disabled", "left"),
    [
        ("", {"frn", "grn"}),
        ("frn", {"grn"}),
        ("alpha", set()),
        ("other, alpha:grn", {"frn"}),
        ("all", set()),
    ],
)
def test_the_environment_hides_plugins(
    site: Path, monkeypatch: pytest.MonkeyPatch, disabled: str, left: set[str]
) -> None:
    write_distribution(site, "alpha", {"norms": {"frn": "a:A", "grn": "a:B"}})
    monkeypatch.setenv("BENCHKIT_DISABLE_PLUGINS", disabled)
    names = set(Registry.installed().names("norms"))
    assert names & {"frn", "grn"} == left
    assert "gn" in names


def test_many_plugins_are_listed_without_importing_one(site: Path) -> None:
    for number in range(200):
        write_distribution(
            site,
            f"many-{number}",
            {"norms": {f"norm-{number}": f"many_{number}:Norm"}},
            modules={f"many_{number}.py": "raise RuntimeError('imported')"},
        )
    names = Registry.installed().names("norms")
    assert {f"norm-{number}" for number in range(200)} <= set(names)
    assert list(names) == sorted(names)


def test_an_installed_study_is_found_without_importing_its_package(site: Path) -> None:
    modules = {
        "study_box/__init__.py": "raise RuntimeError('imported')",
        "study_box/studies/__init__.py": "raise RuntimeError('imported')",
        "study_box/studies/my-study.toml": "title = 'x'\n",
    }
    targets = {"my-study": "study_box.studies", "absent": "study_box.studies", "lost": "no_such_box.studies"}
    write_distribution(site, "alpha", {"studies": targets}, modules=modules)
    registry = Registry.installed()
    assert registry.study_file("my-study") == site / "study_box/studies/my-study.toml"
    with pytest.raises(PluginError, match=r"no file absent\.toml"):
        registry.study_file("absent")
    with pytest.raises(PluginError, match=r"no package 'no_such_box.studies'"):
        registry.study_file("lost")


@pytest.mark.parametrize(
    ("text", "kind"),
    [("norm", "norms"), ("Norms", "norms"), ("study", "studies"), ("data set", "datasets"), ("data-sets", "datasets")],
)
def test_kinds_are_understood_in_singular_and_plural(text: str, kind: str) -> None:
    assert parse_kind(text) == kind


def test_an_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(PluginError, match=r"no plugin kind 'nrom' \(did you mean 'norm'\?\)"):
        parse_kind("nrom")


LOCAL = '''
from dataclasses import dataclass

@dataclass(frozen=True)
class Mine:
    """My norm."""
    num_channels: int

PLUGINS = {"benchkit.norms": {"mine": Mine}}
'''


def test_a_local_file_brings_plugins_without_being_run(tmp_path: Path) -> None:
    path = tmp_path / "my_norms.py"
    path.write_text("import sys\nsys.local_file_ran = True\n" + LOCAL)
    registry = Registry.installed([path])
    entry = registry.find("norms", "mine")
    assert (entry.distribution, entry.origin) == ("my_norms", str(path))
    assert entry.version.startswith("sha256:") and len(entry.version) == 19
    assert not hasattr(sys, "local_file_ran")
    first, second = registry.load("norms", "mine"), registry.load("norms", "my_norms:mine")
    assert first is second and first(4).num_channels == 4  # type: ignore[operator]
    del sys.local_file_ran  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["my-norm.py", "my norm.py", "2d.norm.py"])
def test_a_local_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(
        NORM + 'class Outer:\n    Inner = Norm\nPLUGINS = {"benchkit.norms": {"own": Outer.Inner}}\n'
    )
    plugin = Registry.installed([tmp_path / name]).load("norms", "own")
    assert getattr(plugin, "__name__", "") == "Norm"


def test_a_local_file_replaces_an_installed_plugin_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "other_gn.py"
    path.write_text(LOCAL.replace('"mine"', '"gn"'))
    with pytest.raises(PluginError, match=r"norm 'gn', which benchkit \S+ has too"):
        Registry.installed([path])
    entry = Registry.installed([path], allow_shadow=True).find("norms", "gn")
    assert entry.file == path and f"{path}, in place of benchkit" in entry.origin


def test_two_local_files_may_not_share_a_name(tmp_path: Path) -> None:
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(LOCAL)
    with pytest.raises(PluginError, match="'mine'"):
        Registry.installed([tmp_path / "one.py", tmp_path / "two.py"], allow_shadow=True)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1", "no literal PLUGINS table"),
        ("PLUGINS = dict()", "in line 1, is not literal: dict()"),
        ("PLUGINS = {k: {} for k in ()}", "in line 1, is not literal: {k: {} for k in ()}"),
        ("PLUGINS = {'benchkit.norms': {n: N for n in 'ab'}}", "at 'benchkit.norms', is not literal: {n: N for"),
        ("PLUGINS = {'benchkit.norms': TABLE}", "read without being run, so the table must be written out"),
        ("PLUGINS = {'benchkit.nroms': {}}", "known kind at 'benchkit.nroms'"),
        ("PLUGINS = {'benchkit.norms': {'a': lambda n: n}}", "maps 'a' to lambda n: n"),
        ("PLUGINS = {", "not valid Python"),
        ("x = '\0'", "not valid Python"),
    ],
)
def test_a_wrong_local_file_is_explained(tmp_path: Path, source: str, expected: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(source)
    with pytest.raises(PluginError) as caught:
        Registry.installed([path])
    assert expected in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "later",
    [
        'PLUGINS["benchkit.norms"] = {"mine": Mine}',
        'PLUGINS["benchkit.norms"]["more"] = Mine',
        'PLUGINS |= {"benchkit.norms": {"mine": Mine}}',
        'for name in "ab":\n    PLUGINS.setdefault("benchkit.norms", {}).update({name: Mine})',
    ],
)
@pytest.mark.parametrize("first", ['PLUGINS = {"benchkit.norms": {"mine": Mine}}', "PLUGINS = {}"])
def test_a_table_that_code_adds_to_is_refused(tmp_path: Path, first: str, later: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"class Mine: ...\n{first}\n{later}\n")
    with pytest.raises(PluginError, match=r"mine\.py, in line [34], is not literal: PLUGINS") as caught:
        Registry.installed([path])
    assert "must be written out" in caught.value.hint


def test_a_table_that_is_only_read_is_none_that_code_adds_to(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"{LOCAL}for norm in PLUGINS['benchkit.norms'].values():\n    print(norm(4), len(PLUGINS))\n")
    assert Registry.installed([path]).find("norms", "mine").file == path


@pytest.mark.parametrize("table", ["{}", '{"benchkit.norms": {}}'])
def test_a_table_without_a_plugin_is_refused(tmp_path: Path, table: str) -> None:
    (tmp_path / "mine.py").write_text(f"PLUGINS = {table}\n")
    with pytest.raises(PluginError, match=r"mine\.py names no plugin"):
        Registry.installed([tmp_path / "mine.py"])


def test_a_file_that_is_given_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(LOCAL)
    monkeypatch.chdir(tmp_path)
    registry = Registry.installed([Path("mine.py"), tmp_path / "mine.py", Path("./mine.py")])
    assert [entry.name for entry in registry.entries("norms") if entry.file] == ["mine"]


def test_a_misspelt_group_is_told_and_takes_no_name_from_another_plugin(site: Path) -> None:
    modules = {"misspelt.py": NORM, "well_spelt.py": NORM}
    write_distribution(site, "alpha", {"norm": {"frn": "misspelt:Norm", "own": "misspelt:Norm"}}, modules=modules)
    write_distribution(site, "beta", {"norms": {"frn": "well_spelt:Norm"}, "unheard-of": {"x": "y:z"}})
    registry = Registry.installed()
    told = "there is no entry-point group 'benchkit.norm' (did you mean 'benchkit.norms'?)"
    assert [one.problem for one in registry.entries("norms") if one.distribution == "alpha"] == [told, told]
    with pytest.raises(PluginError) as caught:
        registry.load("norms", "own")
    assert told in caught.value.problems
    assert registry.find("norms", "frn").distribution == "beta"
    assert registry.load("norms", "frn").__module__ == "well_spelt"


def test_what_hides_plugins_is_named_only_where_it_does(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for hidden, named in (("", False), ("frn", True)):
        monkeypatch.setenv("BENCHKIT_DISABLE_PLUGINS", hidden)
        for ask in (lambda one: one.find("norms", "frn"), lambda one: one.search("frn", ["norms"])):
            with pytest.raises(PluginError) as caught:
                ask(Registry.installed())
            assert ("BENCHKIT_DISABLE_PLUGINS=frn hides plugins" in caught.value.hint) is named
            assert ("DISABLE" in caught.value.hint) is named


def test_a_missing_local_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"cannot read the plugin file .*: No such file"):
        Registry.installed([tmp_path / "absent.py"])


def test_an_edit_of_the_same_length_within_the_same_second_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By time and length alone, Python takes the code of before from its bytecode."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file, found = tmp_path / "mine.py", []
    for number in (1, 2):
        file.write_text(f"def scale():\n    return {number}\n\n\nPLUGINS = {{'benchkit.norms': {{'mine': scale}}}}\n")
        os.utime(file, (1_700_000_000, 1_700_000_000))
        plugin = Registry.installed((file,)).load("norms", "mine")
        assert callable(plugin)
        found.append(plugin())
    assert found == [1, 2]


def test_a_local_file_that_fails_is_run_again_next_time(tmp_path: Path) -> None:
    path = tmp_path / "failing.py"
    path.write_text("raise RuntimeError('no')\n" + LOCAL)
    registry = Registry.installed([path])
    for _ in range(2):
        with pytest.raises(PluginError, match="RuntimeError: no"):
            registry.load("norms", "mine")
