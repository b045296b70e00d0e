"""The glossary and the references: from the plugins' cards, and of the statistics that a report uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from string import ascii_lowercase

from benchkit.errors import BenchkitError
from benchkit.metrics import metric_name, metric_of, plugin_name
from benchkit.plan import typed_settings
from benchkit.registry import Registry
from benchkit.registry.description import Description, describe_all
from benchkit.registry.kit_record import kit_words
from benchkit.registry.registry import Entry, recorded_origin
from benchkit.registry.sources import source_hash
from benchkit.report.context.blocks import (
    Block,
    Fact,
    FigureBlock,
    FindingBlock,
    Link,
    MarkdownBlock,
    Paragraph,
    Section,
    TableBlock,
    Term,
)
from benchkit.results import StudyResults, sources_of
from benchkit.study.checks import ignored_settings, uses_of_settings
from benchkit.study.settings import PluginRef


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedPlugin:
    """A plugin that a study uses: its name, origin and version, and what its card says.

    `acts`: it takes part in training a condition, so that it is explained and cited whether a text names it or not.
    `checked` has a figure's source and kit result in words: of other plugins, trials record them.
    """

    kind: str
    name: str
    origin: str
    title: str
    summary: str
    reference: str
    url: str
    acts: bool = False
    checked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GlossaryTerm:
    """A term of the report itself: its name, explanation and reference, and how a text shows that it uses it.

    `pattern` is what to look for where that is not the name.
    """

    name: str
    text: str
    reference: str = ""
    url: str = ""
    pattern: str = ""

    def used_in(self, text: str) -> bool:
        """Return whether a text uses the term."""
        return re.search(self.pattern or re.escape(self.name), text) is not None


EXPLAINED = (
    GlossaryTerm(
        name="repeat",
        text="One training run of a condition with its own random seeds. The same repeat of two conditions shares "
        "seeds and order of images, so that they can be compared in pairs.",
    ),
    GlossaryTerm(
        name="t interval",
        text="Where the mean over further repeats would lie, with 95 % confidence, if repeats scatter normally. It is "
        "about random seeds, and says nothing of other images.",
        reference="Student (1908). The probable error of a mean. Biometrika 6, 1-25.",
        url="https://doi.org/10.1093/biomet/6.1.1",
    ),
    GlossaryTerm(
        name="Wilson interval",
        text="Where one trained model's accuracy on many more images of the same kind would lie, with 95 % confidence."
        " It is about images, and says nothing of other random seeds.",
        reference="Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. Journal "
        "of the American Statistical Association 22, 209-212.",
        url="https://doi.org/10.1080/01621459.1927.10502953",
    ),
    GlossaryTerm(
        name="paired t test",
        text="Compares two conditions by the differences within their common repeats.",
    ),
    GlossaryTerm(
        name="p (Holm)",
        text="The p value after Holm's correction for all comparisons of the same table; below 0.05 two conditions "
        "count as told apart.",
        reference="Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of "
        "Statistics 6, 65-70.",
        pattern=r"Holm",
    ),
    GlossaryTerm(
        name="d_z",
        text="Effect size: the mean of the paired differences over their standard deviation. With few repeats it is "
        "overestimated.",
        reference="Cohen, J. (1988). Statistical power analysis for the behavioral sciences, 2nd edition. Lawrence "
        "Erlbaum.",
    ),
    GlossaryTerm(
        name="detectable difference",
        text="The smallest true difference that a paired t test over these repeats would find in 80 of 100 studies, at"
        " the level that the correction for several comparisons leaves.",
        pattern=r"Detectable",
    ),
    GlossaryTerm(
        name="may be best",
        text="Conditions that these repeats cannot call worse: none beats them by a one-sided Welch t test at 0.025 "
        "(or what a planned look may spend) over the number of others, with variances shrunk to what all conditions "
        "have in common and never below what the test images alone set. Whatever has a better mean than one of them is "
        "one, too. The condition that is truly best is called worse in at most that share of studies.",
        reference="Smyth, G. K. (2004). Linear models and empirical Bayes methods for assessing differential "
        "expression in microarray experiments. Statistical Applications in Genetics and Molecular Biology 3(1).",
        url="https://doi.org/10.2202/1544-6115.1027",
        pattern="may be (?:the )?best|may be as good",
    ),
    GlossaryTerm(
        name="P(A > B)",
        text="The share of pairs of runs, one of each condition, in which the first is better.",
        reference="Bouthillier, X. et al. (2021). Accounting for variance in machine learning benchmarks. MLSys.",
        url="https://arxiv.org/abs/2103.03098",
    ),
    GlossaryTerm(
        name="look",
        text="A planned moment at which the conditions are compared before all repeats are trained. The chance of a "
        "wrong answer is shared out over all looks.",
        pattern=r"\blooks?\b",
    ),
    GlossaryTerm(
        name="McNemar's test",
        text="Compares two trained models on the same images, by those that only one of them names rightly (exact "
        "form).",
        reference="McNemar, Q. (1947). Note on the sampling error of the difference between correlated proportions or "
        "percentages. Psychometrika 12, 153-157.",
        url="https://doi.org/10.1007/BF02295996",
        pattern=r"McNemar",
    ),
    GlossaryTerm(
        name="micro and macro F1",
        text="The harmonic mean of precision and recall, over all images (micro: equal to accuracy, as every image has"
        " one label) or averaged over classes (macro).",
        pattern=r"(?:micro|macro) F1",
    ),
    GlossaryTerm(
        name="AUROC",
        text="The chance that an image of a class gets a greater probability of it than an image of another class, mean"
        " over classes; 50 % is guessing.",
        reference="Hanley, J. A. and McNeil, B. J. (1982). The meaning and use of the area under a receiver operating "
        "characteristic (ROC) curve. Radiology 143, 29-36.",
        url="https://doi.org/10.1148/radiology.143.1.7063747",
    ),
    GlossaryTerm(
        name="calibration error",
        text="The mean distance between how sure a model is and how often it is right, over bins of its confidence.",
        reference="Guo, C., Pleiss, G., Sun, Y. and Weinberger, K. Q. (2017). On calibration of modern neural "
        "networks. ICML.",
        url="https://proceedings.mlr.press/v70/guo17a.html",
    ),
    GlossaryTerm(
        name="Corrected resampled t",
        text="A t interval or test over repeats that are folds, with the variance s² (1/n + n2/n1): folds are trained "
        "on each other's test images, so that their scores are not independent. n2/n1 is test images over all others.",
        reference="Nadeau, C. and Bengio, Y. (2003). Inference for the Generalization Error. Machine Learning 52, "
        "239-281.",
        url="https://doi.org/10.1023/A:1024068626366",
        pattern=r"corrected resampled t",
    ),
    GlossaryTerm(
        name="Welch's t test",
        text="Compares two groups of repeats without pairing them or supposing that both scatter equally.",
        reference="Welch, B. L. (1947). The generalization of 'Student's' problem when several different population "
        "variances are involved. Biometrika 34, 28-35.",
        url="https://doi.org/10.1093/biomet/34.1-2.28",
        pattern=r"Welch",
    ),
    GlossaryTerm(
        name="search",
        text="Settings chosen trial by trial to improve a validation score, with unpromising trials ended early "
        "(pruned). The best score of a search is too good on average, because it is the best of many.",
        reference="Akiba, T., Sano, S., Yanase, T., Ohta, T. and Koyama, M. (2019). Optuna: a next-generation "
        "hyperparameter optimization framework. KDD, 2623-2631.",
        url="https://doi.org/10.1145/3292500.3330701",
        pattern=r"[Ss]earch",
    ),
)
"""The terms of the report itself, in the order of the glossary."""


def used_plugins(results: StudyResults, registry: Registry) -> tuple[UsedPlugin, ...]:
    """Return the norms, data sets, regularizers, models and figures that the study names, each once, by kind."""
    trained = _trained(results, registry)
    acting = {pair for pair, acts in trained.items() if acts}
    used = _described(results, registry, trained)
    return tuple(replace(one, acts=(one.kind, one.name) in acting) for one in used)


def _trained(results: StudyResults, registry: Registry) -> dict[tuple[str, str], bool]:
    """Return the plugins that conditions name, by kind and name, and whether one of them acts in training.

    All do but the norm of a network that has none, as its card says.
    """
    trained: dict[tuple[str, str], bool] = {}
    with_norm: dict[str, bool] = {}
    for condition in results.conditions:
        settings = typed_settings(condition.settings, results.study.seed)
        model = settings.model.model
        if repr(model) not in with_norm:
            with_norm[repr(model)] = _takes_norm(model, registry)
        for use in uses_of_settings(settings):
            acts = use.kind != "norms" or with_norm[repr(model)]
            trained[use.kind, use.ref.name] = acts or trained.get((use.kind, use.ref.name), False)
    return trained


def _takes_norm(model: PluginRef, registry: Registry) -> bool:
    """Return whether a model has a norm in it, as it does unless its card says otherwise."""
    entry = _resolved(registry, "models", model.name)
    return not isinstance(entry, Entry) or "model.norm" not in ignored_settings(model, describe_all([entry])[0])


def _described(results: StudyResults, registry: Registry, trained: Iterable[tuple[str, str]]) -> tuple[UsedPlugin, ...]:
    """Return what is known of the plugins that trained, and of those that report and figures name, by kind."""
    wanted: dict[tuple[str, str], None] = dict.fromkeys(trained)
    for name, _ in results.study.report.figures:
        wanted["figures", name] = None
    for metric in results.study.asked_metrics:
        wanted["metrics", plugin_name(metric.name)] = None
    order = ("datasets", "models", "norms", "optimizers", "schedules", "losses", "regularizers", "metrics", "figures")
    ordered = sorted(wanted, key=lambda pair: order.index(pair[0]))
    recorded = _recorded(results)
    entries = {pair: recorded.get(pair) or _resolved(registry, *pair) for pair in ordered}
    # Cards come from the cache of descriptions: importing models and norms would bring torch into the report.
    known = [entry for entry in entries.values() if isinstance(entry, Entry)]
    cards: dict[Entry, Description] = dict(zip(known, describe_all(known), strict=True))
    return tuple(
        one if isinstance(one, UsedPlugin) else _used(kind, name, cards[one] if isinstance(one, Entry) else one)
        for (kind, name), one in entries.items()
    )


def _recorded(results: StudyResults) -> dict[tuple[str, str], UsedPlugin]:
    """Return the plugins whose cards trials recorded, by kind and name, as the last of them did."""
    return {
        (source.get("kind", ""), source.get("name", "")): UsedPlugin(
            kind=source.get("kind", ""),
            name=source.get("name", ""),
            origin=recorded_origin(source),
            title=source["title"],
            summary=source.get("summary", ""),
            reference=source.get("reference", ""),
            url=source.get("url", ""),
        )
        for trial in results.trials
        if trial.outcome
        for source in sources_of(trial.outcome.environment).values()
        if source.get("title")
    }


UNKNOWN = "What its card says is not known here: the trials are of a version that did not record it."
"""The summary of a plugin that is not here and whose card no trial recorded."""


def _resolved(registry: Registry, kind: str, name: str) -> Entry | BenchkitError:
    try:
        return registry.resolve(kind, name)[0]
    except BenchkitError as error:
        return error


def _used(kind: str, name: str, description: Description | BenchkitError) -> UsedPlugin:
    """Return what is known of a plugin; one that is not installed here is named as such, as its results may be old."""
    try:
        if isinstance(description, BenchkitError):
            raise description
        card = description.usable()
    except BenchkitError as error:
        title = f"{error.what[:1].upper()}{error.what[1:]}"
        return UsedPlugin(
            kind=kind, name=name, origin="not available here", title=title, summary=UNKNOWN, reference="", url=""
        )
    return UsedPlugin(
        kind=kind,
        name=name,
        origin=card.entry.shown_origin,
        title=card.title,
        summary=card.summary,
        reference=card.reference,
        url=card.url,
        checked=f"source {source_hash(card.entry)}, {kit_words(card.entry)}" if kind == "figures" else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Literature:
    """What a report explains and refers to: the plugins and terms that its text uses, and their works, numbered.

    `numbers` has the number of the work that each reference names.
    """

    plugins: tuple[UsedPlugin, ...]
    terms: tuple[GlossaryTerm, ...]
    works: tuple[Work, ...]
    numbers: Mapping[str, int]

    def links(self, *references: str) -> tuple[Link, ...]:
        """Return links to the works that references name, by their numbers."""
        found = sorted({self.numbers[reference] for reference in references if reference in self.numbers})
        return tuple(Link(text=str(number), target=f"reference-{number}") for number in found)


def literature(plugins: Sequence[UsedPlugin], parts: Sequence[Section], facts: Sequence[Fact]) -> Literature:
    """Return what the sections and key facts of a report use of its plugins and of the report's own terms.

    A figure is used where it is drawn, what acts in training always, any other plugin where its name stands.
    """
    text = words_of(parts, facts)
    drawn = {block.plugin for part in parts for block in part.blocks if isinstance(block, FigureBlock)}
    used = tuple(plugin for plugin in plugins if _is_used(plugin, drawn, text))
    terms = tuple(term for term in EXPLAINED if term.used_in(text))
    references = [(plugin.reference, safe_url(plugin.url)) for plugin in used]
    references += [(term.reference, term.url) for term in terms]
    references = [(reference, url) for reference, url in references if reference]
    works = listed(references)
    return Literature(plugins=used, terms=terms, works=works, numbers=numbers_of(works, references))


def _is_used(plugin: UsedPlugin, drawn: Set[str], text: str) -> bool:
    if plugin.kind == "figures":
        return plugin.name in drawn
    return plugin.acts or _stands(
        metric_of(metric_name(plugin.name)).words if plugin.kind == "metrics" else plugin.name, text
    )


def _stands(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


def words_of(parts: Sequence[Section], facts: Sequence[Fact] = ()) -> str:
    """Return all that sections and key facts say: sentences, captions, headings and cells, a line for each."""
    lines = [fact.value for fact in facts]
    for block in (block for part in parts for block in part.blocks):
        if isinstance(block, Paragraph | MarkdownBlock):
            lines.append(block.text)
        elif isinstance(block, FindingBlock):
            lines += [block.sentence, block.evidence]
        elif isinstance(block, TableBlock | FigureBlock):
            lines.append(_caption(block))
            lines += [cell.text for row in block.table.rows for cell in row] if isinstance(block, TableBlock) else []
    return "\n".join(lines)


def _caption(block: TableBlock | FigureBlock) -> str:
    """Return a caption, with the headings of a table's columns."""
    heads = [column.heading for column in block.table.columns] if isinstance(block, TableBlock) else []
    return "\n".join([block.caption, *heads])


def cited(parts: Sequence[Section], known: Literature) -> tuple[Section, ...]:
    """Return the sections, each table and figure with links to the works that its caption rests on."""
    figures = {plugin.name: plugin.reference for plugin in known.plugins if plugin.kind == "figures"}

    def with_links(block: Block) -> Block:
        if not isinstance(block, TableBlock | FigureBlock):
            return block
        references = [term.reference for term in known.terms if term.reference and term.used_in(_caption(block))]
        own = [figures.get(block.plugin, "")] if isinstance(block, FigureBlock) else []
        return replace(block, cited=known.links(*references, *own))

    return tuple(replace(part, blocks=tuple(map(with_links, part.blocks))) for part in parts)


def glossary_terms(known: Literature) -> tuple[Term, ...]:
    """Return the glossary: the plugins by the names that tables use, but for figures, then the report's own terms."""
    plugins = [
        Term(name=plugin.name, text=_plain(f"{plugin.title}. {plugin.summary}".strip()), origin=plugin.origin,
             url="" if plugin.reference else safe_url(plugin.url), links=known.links(plugin.reference))
        for plugin in known.plugins if plugin.kind != "figures"
    ]  # fmt: skip
    return (*plugins, *(Term(name=t.name, text=t.text, links=known.links(t.reference)) for t in known.terms))


def _plain(text: str) -> str:
    """Return a card's text without the backticks that mark code in it: a page shows it as plain text."""
    return re.sub(r"`([^`]*)`", r"\1", text)


def reference_terms(known: Literature) -> tuple[Term, ...]:
    """Return the numbered references by the family name of the first author, each once, with its address."""
    return tuple(
        Term(name=f"[{number}]", text=work.text, url=safe_url(work.url), anchor=f"reference-{number}")
        for number, work in enumerate(known.works, 1)
    )


def safe_url(url: str) -> str:
    """Return a web address, or nothing for any other scheme: `javascript:` and `file:` would reach the page."""
    return url if url.lower().startswith(("https://", "http://")) else ""


_INITIALS = r"\w\.(?:[ -]?\w\.)*"
_FAMILY = r"[^\W\d_a-z][\w'\u2019-]+(?: [^\W\d_a-z][\w'\u2019-]+)?"
_PERSONS = (rf"{_INITIALS} {_FAMILY}", rf"{_FAMILY}, {_INITIALS}(?!\w)", r"[^\W\d_a-z][\w'\u2019-]+")
"""How references write a person: J. L. Ba; Holm, S.; Zeiler. One reference keeps to one of them."""
_LISTS = tuple(re.compile(rf"({one}(?:, {one})*(?:,? and {one})?)(?: et al\.)?(?=[,.]? )") for one in _PERSONS)
_YEAR = re.compile(r"(?<!\d)(1[89]\d\d|20\d\d)(?!\d)")
_SMALL = frozenset("a an and for from in of on the to with".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A work that a report refers to: the reference as a card gives it, its address, and what can be told apart in it.

    `authors` are as the reference writes them, `title` is all that follows them where no title can be told apart.
    """

    text: str
    url: str
    authors: tuple[str, ...]
    title: str
    year: str

    @property
    def family(self) -> str:
        """Return the family name of the first author, or the first word."""
        if not self.authors:
            return next(iter(self.text.split()), "").strip(".,")
        return _family(self.authors[0])


def _family(author: str) -> str:
    last, comma, _ = author.partition(",")
    return last if comma else re.sub(rf"^{_INITIALS} ", "", author)


def work_of(text: str, url: str = "") -> Work:
    """Return the work that a reference names, in any of the usual forms.

    `S. Ioffe and C. Szegedy, Title, ICML 2015`, `Holm, S. (1979). Title. Journal 6, 65-70.` and `Hutter, Hoos. Title.
    ICML 2014.` are told apart; of anything else the title is the whole text.
    """
    authors, rest = _authors(text)
    year = next(iter(_YEAR.findall(text)[-1:]), "")
    dated = re.match(r"\((\d{4})\)\.? *", rest)
    if dated:
        year, rest = dated[1], rest[dated.end() :]
    return Work(text=text, url=url, authors=authors, title=_title(rest), year=year)


def _authors(text: str) -> tuple[tuple[str, ...], str]:
    """Return the authors with whom a reference begins, as it writes them, and the rest of it."""
    for one, persons in zip(_PERSONS, _LISTS, strict=True):
        found = persons.match(text)
        if not found:
            continue
        people, end = found[1], found.end()
        # Of names without initials, words after a comma may be the title's, but for those before `and` or a full stop.
        if one == _PERSONS[-1] and " and " not in people and not text.startswith(".", end):
            people = people.partition(",")[0]
            end = max(len(people), end if found[0].endswith("et al.") else 0)
        more = ("others",) if found[0].endswith("et al.") else ()
        return (*re.findall(one, people), *more), text[end:].lstrip(",. ")
    return (), text


def _title(rest: str) -> str:
    """Return what of the rest of a reference is the title: up to the first full stop, else up to the last commas."""
    sentence = re.match(r"(.+?[\w)])\. ", f"{rest} ")
    if sentence and len(sentence[1]) < len(rest.rstrip(". ")):
        return sentence[1]
    title = re.sub(r",? (?:section|in) [^,]*$", "", rest.rstrip(". "))
    title = re.sub(r",[^,]*?\d{4}$", "", title) or rest
    return re.sub(r", (?:[A-Z][\w.&]* )+\d{1,4}$", "", title)  # a journal and its volume


def listed(references: Iterable[tuple[str, str]]) -> tuple[Work, ...]:
    """Return the works of references (text, address), each once, by family name and year of publication.

    Two references name one work when their addresses are equal, or family name and year are and most words of the
    shorter title are in the longer one; the first stands for both, with whatever address either has.
    """
    kept: list[Work] = []
    for text, url in references:
        work = work_of(text, url)
        same = next((place for place, other in enumerate(kept) if _same(work, other)), None)
        if same is None:
            kept.append(work)
        elif url and not kept[same].url:
            kept[same] = work_of(kept[same].text, url)
    return tuple(sorted(kept, key=lambda work: (work.family.casefold(), work.year, work.title.casefold())))


def _same(one: Work, other: Work) -> bool:
    if one.url and one.url == other.url:
        return True
    if (one.family, one.year) != (other.family, other.year):
        return False
    words, others = _words(one.title), _words(other.title)
    return 2 * len(words & others) > min(len(words), len(others))


def _words(title: str) -> set[str]:
    return set(re.findall(r"\w+", title.casefold())) - _SMALL


def numbers_of(works: Sequence[Work], references: Iterable[tuple[str, str]]) -> Mapping[str, int]:
    """Return the number of the work that each reference (text, address) names, counted from 1, by the text."""
    known = [(text, work_of(text, url)) for text, url in references]
    return {text: place for text, work in known for place, other in enumerate(works, 1) if _same(work, other)}


def bibtex(works: Sequence[Work]) -> str:
    """Return the works as BibTeX; where each appeared is what its reference says after the title."""
    keys: set[str] = set()
    return "\n".join(_entry(work, _key(work, keys)) for work in works)


def _key(work: Work, keys: set[str]) -> str:
    plain = re.sub(r"[^a-z0-9]", "", f"{work.family.casefold()}{work.year}") or "work"
    key = next(name for name in (plain, *(plain + letter for letter in ascii_lowercase)) if name not in keys)
    keys.add(key)
    return key


def _entry(work: Work, key: str) -> str:
    appeared = re.sub(rf"[\s,.(]*{work.year}[).]*$", "", work.text.rpartition(work.title)[2]).strip(" .,")
    fields = {
        "author": _tex(" and ".join(work.authors)),
        "title": f"{{{_tex(work.title)}}}",
        "howpublished": _tex(appeared),
        "year": work.year,
        "url": re.sub(r"[{}\\\s]", "", work.url),
    }
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
    return f"@misc{{{key},\n{lines}}}\n"


def _tex(text: str) -> str:
    """Return text in which TeX finds nothing to act on."""
    return "".join(_TEX.get(letter, letter) for letter in " ".join(text.split()))


_TEX = {
    "\\": r"\textbackslash ", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\^{}", "~": r"\~{}",
}  # fmt: skip
