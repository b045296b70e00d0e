"""The kinds of plugins, and all that differs between them beside their contracts: one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchkit.errors import PluginError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of plugin: the `word` for one, how many arguments benchkit passes by position, and which by name.

    A study uses the plugin NAME as `use` says; `attempt` are the options of `benchkit sweep` that try it at once, none
    where no one study fits. `function`: plugins are functions, named with underscores.
    """

    word: str
    use: str
    attempt: str = ""
    passed: int = 0
    passed_names: frozenset[str] = frozenset()
    function: bool = False


KIND_TABLE: Mapping[str, Kind] = {
    "norms": Kind(
        word="norm",
        use='`[factors]` with `"model.norm" = ["bn", "NAME"]`',
        attempt="quickstart --only model.norm=NAME --smoke",
        passed=1,
        passed_names=frozenset({"device", "dtype"}),
    ),
    "datasets": Kind(
        word="data set",
        use='`[data]` with `name = "NAME"`',
        attempt="""quickstart --set data='{ name = "NAME" }' --set train.epochs=1""",
        passed=1,
        function=True,
    ),
    "regularizers": Kind(word="regularizer", use='`[[regularizers]]` with `name = "NAME"`'),
    "losses": Kind(
        word="loss", use='`[train]` with `loss = "NAME"`', attempt="quickstart --set train.loss=NAME --smoke"
    ),
    "metrics": Kind(word="metric", use='`[report]` with `metrics = ["NAME"]`', passed=1, function=True),
    "optimizers": Kind(
        word="optimizer",
        use='`[train]` with `optimizer = { name = "NAME", lr = 0.001 }`',
        attempt="quickstart --set train.optimizer.name=NAME --set train.optimizer.lr=0.001 --smoke",
        passed=2,
        function=True,
    ),
    "schedules": Kind(
        word="schedule",
        use='`[train]` with `schedule = "NAME"`',
        attempt="quickstart --set train.schedule=NAME --smoke",
    ),
    "models": Kind(
        word="model",
        use='`[model]` with `name = "NAME"`',
        attempt="""norms-cifar10 --only model.norm=none --set model='{ name = "NAME" }' --smoke""",
        passed=3,
        function=True,
    ),
    "figures": Kind(word="figure", use='`[report]` with `figures = ["NAME"]`'),
    "trackers": Kind(
        word="tracker", use="`benchkit export STUDY --to NAME`, `benchkit sweep STUDY --track NAME`", passed=2
    ),
    "studies": Kind(word="study", use="`benchkit sweep NAME`"),
}

KINDS: tuple[str, ...] = tuple(KIND_TABLE)
"""The plugin kinds, in the order of every listing. The entry-point group of a kind is `benchkit.` and its name."""


def kind_word(kind: str) -> str:
    """Return the word for one plugin of a kind, for example `data set` for `datasets`."""
    return KIND_TABLE[kind].word


def parse_kind(text: str) -> str:
    """Return the kind that `text` names, singular or plural, any case; raise `PluginError` for another word."""
    words = {
        spelling: name
        for name, kind in KIND_TABLE.items()
        for spelling in (name, kind.word, kind.word.replace(" ", ""))
    }
    plain = text.strip().lower().replace("_", "").replace("-", "")
    if plain not in words:
        raise PluginError(f"there is no plugin kind {text!r}{nearest(plain, words)}", hint=f"kinds: {', '.join(KINDS)}")
    return words[plain]
