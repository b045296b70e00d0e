"""The glossary and the references: from the plugins' cards, and of the statistics that a report uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchkit.errors import BenchkitError
from benchkit.plan import typed_settings
from benchkit.registry import Registry
from benchkit.registry.description import Description, describe_all
from benchkit.registry.entries import Entry
from benchkit.report.context.blocks import Term
from benchkit.results import StudyResults


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedPlugin:
    """A plugin that a study uses: its name, origin and version, and what its card says."""

    kind: str
    name: str
    origin: str
    title: str
    summary: str
    reference: str
    url: str


STATISTICS: tuple[tuple[str, str, str], ...] = (
    (
        "repeat",
        "One training run of a condition with its own random seeds. The same repeat of two conditions shares seeds and "
        "order of images, so that they can be compared in pairs.",
        "",
    ),
    (
        "t interval",
        "Where the mean over further repeats would lie, with 95 % confidence, if repeats scatter normally. It is about "
        "random seeds, and says nothing of other images.",
        "Student (1908). The probable error of a mean. Biometrika 6, 1-25.",
    ),
    (
        "Wilson interval",
        "Where one trained model's accuracy on many more images of the same kind would lie, with 95 % "
        "confidence. It is "
        "about images, and says nothing of other random seeds.",
        "Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. Journal of the "
        "American Statistical Association 22, 209-212.",
    ),
    (
        "paired t test",
        "Compares two conditions by the differences within their common repeats.",
        "",
    ),
    (
        "p (Holm)",
        "The p value after Holm's correction for all comparisons of the same table; below 0.05 two conditions count as "
        "told apart.",
        "Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of "
        "Statistics 6, "
        "65-70.",
    ),
    (
        "d_z",
        "Effect size: the mean of the paired differences over their standard deviation. With few repeats it is "
        "overestimated.",
        "Cohen, J. (1988). Statistical power analysis for the behavioral sciences, 2nd edition. Lawrence Erlbaum.",
    ),
    (
        "detectable difference",
        "The smallest true difference that a paired t test over these repeats would find in 80 of 100 studies, at the "
        "level that the correction for several comparisons leaves.",
        "",
    ),
    (
        "McNemar's test",
        "Compares two trained models on the same images, by those that only one of them names rightly (exact form).",
        "McNemar, Q. (1947). Note on the sampling error of the difference between correlated proportions or "
        "percentages. "
        "Psychometrika 12, 153-157.",
    ),
    (
        "micro and macro F1",
        "The harmonic mean of precision and recall, over all images (micro: equal to accuracy, as every image has one "
        "label) or averaged over classes (macro).",
        "",
    ),
    (
        "calibration error",
        "The mean distance between how sure a model is and how often it is right, over bins of its confidence.",
        "Guo, C., Pleiss, G., Sun, Y. and Weinberger, K. Q. (2017). On calibration of modern neural networks. ICML.",
    ),
)  # fmt: skip
"""Terms of the report itself: name, explanation, reference."""

WELCH = (
    "Welch's t test",
    "Compares two groups of repeats that share no random seeds, without supposing that both scatter equally.",
    "Welch, B. L. (1947). The generalization of 'Student's' problem when several different population variances are "
    "involved. Biometrika 34, 28-35.",
)
"""What a report says of the test that compares it with an earlier one of other seeds."""

OPTUNA = (
    "search",
    "Settings chosen trial by trial to improve a validation score, with unpromising trials ended early (pruned). The "
    "best score of a search is too good on average, because it is the best of many.",
    "Akiba, T., Sano, S., Yanase, T., Ohta, T. and Koyama, M. (2019). Optuna: a next-generation hyperparameter "
    "optimization framework. KDD, 2623-2631.",
)


def used_plugins(results: StudyResults, registry: Registry) -> tuple[UsedPlugin, ...]:
    """Return the norms, data sets, regularizers, models and figures that the study names, each once, by kind."""
    wanted: dict[tuple[str, str], None] = {}
    for condition in results.conditions:
        for kind, name in _named(condition.settings, results.study.seed):
            wanted[kind, name] = None
    for name, _ in results.study.report.figures:
        wanted["figures", name] = None
    order = ("datasets", "models", "norms", "regularizers", "figures")
    ordered = sorted(wanted, key=lambda pair: order.index(pair[0]))
    entries = {pair: _resolved(registry, *pair) for pair in ordered}
    # Cards come from the cache of descriptions: importing models and norms would bring torch into the report.
    known = [entry for entry in entries.values() if isinstance(entry, Entry)]
    cards: dict[Entry, Description] = dict(zip(known, describe_all(known), strict=True))
    return tuple(
        _used(kind, name, cards[entry] if isinstance(entry, Entry) else entry)
        for (kind, name), entry in entries.items()
    )


def _resolved(registry: Registry, kind: str, name: str) -> Entry | BenchkitError:
    try:
        return registry.resolve(kind, name)[0]
    except BenchkitError as error:
        return error


def _named(settings: object, seed: int) -> Iterable[tuple[str, str]]:
    typed = typed_settings(settings, seed)  # type: ignore[arg-type]
    yield "datasets", typed.data.dataset.name
    yield "models", typed.model.model.name
    yield "norms", typed.model.norm.name
    for regularizer in typed.regularizers:
        yield "regularizers", regularizer.plugin.name


def _used(kind: str, name: str, description: Description | BenchkitError) -> UsedPlugin:
    """Return what is known of a plugin; one that is not installed here is named as such, as its results may be old."""
    try:
        if isinstance(description, BenchkitError):
            raise description
        card = description.usable()
    except BenchkitError as error:
        return UsedPlugin(
            kind=kind, name=name, origin="not available here", title=name, summary=error.what, reference="", url=""
        )
    return UsedPlugin(
        kind=kind,
        name=name,
        origin=card.entry.origin,
        title=card.title,
        summary=card.summary,
        reference=card.reference,
        url=card.url,
    )


def glossary_terms(plugins: Sequence[UsedPlugin], *, search: bool, compared: bool = False) -> tuple[Term, ...]:
    """Return the glossary: the study's plugins by the names that tables use, then the report's own terms.

    The terms of a `search`, and of a report `compared` with an earlier one, are there where they are needed.
    """
    terms = [
        Term(name=plugin.name, text=f"{plugin.title}. {plugin.summary}".strip(), url=safe_url(plugin.url),
             origin=plugin.origin)
        for plugin in plugins
    ]  # fmt: skip
    own = _own(search=search, compared=compared)
    return (*terms, *(Term(name=name, text=text) for name, text, _ in own))


def _own(*, search: bool, compared: bool) -> list[tuple[str, str, str]]:
    return [*STATISTICS, *([WELCH] if compared else []), *([OPTUNA] if search else [])]


def reference_terms(plugins: Sequence[UsedPlugin], *, search: bool, compared: bool = False) -> tuple[Term, ...]:
    """Return the references in alphabetical order, each once, with the address that a card gives."""
    urls = {plugin.reference: safe_url(plugin.url) for plugin in plugins if plugin.reference}
    for _, _, reference in _own(search=search, compared=compared):
        if reference:
            urls.setdefault(reference, "")
    return tuple(
        Term(name=f"[{number}]", text=text, url=urls[text])
        for number, text in enumerate(sorted(urls, key=str.lower), 1)
    )


def safe_url(url: str) -> str:
    """Return a web address, or nothing for any other scheme: `javascript:` and `file:` would reach the page."""
    return url if url.lower().startswith(("https://", "http://")) else ""
