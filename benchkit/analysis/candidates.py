"""Which conditions may be the best: no other beats them beyond chance, by shrunk variances and that of test images.

Where repeats are added until it is known: which looks were taken at them, and what the next one waits for. All of it
follows from the planned looks and the trials: whoever reads the same ledger or capsule comes to the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from benchkit.analysis.comparisons import stepped_down, varies
from benchkit.analysis.estimates import compared, done_repeats, estimate, values_by_repeat
from benchkit.analysis.trained_models import one_class_conditions, right_answers
from benchkit.analysis.wording import Finding, count, duration, listing, lower_is_better, names, number
from benchkit.plan import LEAVES_AT, Condition, InterimAnalysis, Plan, plan_of_looks, planned_looks
from benchkit.results import FINISHED, StudyResults
from benchkit.storage import DEFAULT_WORKSPACE

if TYPE_CHECKING:
    import numpy as np


IMAGE_METRIC = "test.accuracy"
"""The metric whose variance over images is known: a report keeps which test images each model named rightly."""


def image_variance(right: np.ndarray) -> float | None:
    """Return the variance of a run's accuracy if each image were an independent coin; None with fewer than two runs.

    `right` is bool (runs, images). Σ p(1 - p) / N² over N images, p the share of runs that name an image rightly;
    Σ over runs of squared deviations is divided by runs - 1, so that few runs do not make it too small. No spread
    over repeats can be smaller for long: it is what stays if random seeds moved no image more than chance does.
    """
    runs, images = len(right), right.shape[-1]
    if runs < 2 or not images:
        return None
    share = right.mean(axis=0)
    coins = float((share * (1 - share)).sum())
    return coins * (runs / (runs - 1)) / float(images) ** 2


def fold_variance(results: StudyResults, condition: Condition, most: int | None = None) -> float | None:
    """Return the variance that images alone give the accuracy of one fold, from the images of all folds together.

    p (1 - p) / (N / folds) for the share p of all N images that the models of their folds name rightly. Each image is
    tested once, so that it cannot be told how alike models would be on it. None with fewer than two folds.
    """
    done = [trial for index, trial in done_repeats(results, condition).items() if most is None or index < most]
    scored = [trial.outcome.metrics["test"] for trial in done if trial.outcome and "test" in trial.outcome.metrics]
    images = sum(one.n for one in scored)
    if len(scored) < 2 or not images:
        return None
    share = sum(one.accuracy * one.n for one in scored) / images
    return share * (1 - share) / (images / len(scored))


LEAST_SHARED = 3
"""Variances are shrunk to a common one from this many conditions on: two do not tell how far variances differ."""

SHARED = 0.15
"""The share of the others' degrees of freedom that a condition borrows at most: few variances may be alike by chance.

Without it the best of two among seven conditions, of which one spreads 20 times as far as the other, leaves too often
(simulated, see tests/decision_rules.py): in 0.054 of studies with three repeats instead of 0.05.
"""

CandidateStanding = Literal["kept", "left", "untested", "one class"]
"""kept: it may be the best; left: another one is better; untested: one repeat alone; one class: its models say nothing.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A condition's mean over `n` repeats, what the rule makes of its spread, and whether it may be the best.

    `std` is the standard deviation of one repeat after shrinking, never below `image_std`, which the test images alone
    set (None where that is not known); `degrees` are its degrees of freedom. `p` is the smallest one-sided p against
    another condition, by Holm's correction over the conditions. `std`, `degrees` and `p` are None when untested.
    """

    key: str
    label: str
    mean: float
    n: int
    std: float | None
    image_std: float | None
    degrees: float | None
    p: float | None
    standing: CandidateStanding


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSet:
    """The conditions by their mean of `metric`, best first, each with its standing at the level `alpha`."""

    metric: str
    alpha: float
    conditions: tuple[Candidate, ...]

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """Return the conditions that may be the best, best mean first."""
        return tuple(one for one in self.conditions if one.standing == "kept")

    @property
    def left(self) -> tuple[Candidate, ...]:
        """Return the conditions that are worse than another one beyond chance."""
        return tuple(one for one in self.conditions if one.standing == "left")

    @property
    def open(self) -> tuple[Candidate, ...]:
        """Return the conditions of which more repeats could tell something: those kept and those not tested."""
        return tuple(one for one in self.conditions if one.standing in ("kept", "untested"))

    @property
    def decided(self) -> bool:
        """Return whether the first one alone may be the best, of two or more."""
        return len(self.conditions) > 1 and [one.key for one in self.open] == [self.conditions[0].key]


def candidates(
    results: StudyResults,
    metric: str,
    alpha: float = LEAVES_AT,
    *,
    most: int | None = None,
    among: Collection[str] | None = None,
) -> CandidateSet:
    """Return which conditions may have the best mean of `metric`; tested at the level `alpha`.

    `most` uses repeats with a smaller index alone, `among` names by key those that have not left at an earlier look.
    A condition with one repeat neither leaves nor makes another one leave, nor does one whose models name one class.
    """
    import numpy as np

    dull = {row.key for row in one_class_conditions(results) if row.always}
    sign = -1.0 if lower_is_better(metric) else 1.0
    read = [(condition, _values(results, condition, metric, most)) for condition in compared(results)]
    rows = sorted(((c, values) for c, values in read if values), key=lambda row: -sign * float(np.mean(row[1])))
    tested = [(c, values) for c, values in rows if len(values) > 1 and c.key not in dull]
    floors = {c.key: _image_variance(results, c, metric, most) for c, _ in tested}
    spreads = [estimate(values, resampled=results.resampled) for _, values in tested]
    variances = np.array([(one.std or 0.0) ** 2 if varies(one) else 0.0 for one in spreads])
    counts = np.array([one.n for one in spreads])
    floor = np.array([floors[c.key] or 0.0 for c, _ in tested])
    shrunk, degrees = shrunk_variances(variances, counts, floor)
    means = sign * np.array([one.mean for one in spreads])
    # A mean of folds varies by v (1/n + resampled), as one of fewer independent repeats does.
    p = beaten_p(means, shrunk, degrees, counts / (1 + counts * results.resampled))
    out = (p < alpha) | np.array([among is not None and c.key not in among for c, _ in tested], dtype=bool)
    stays = kept(means, out)
    place = {c.key: index for index, (c, _) in enumerate(tested)}

    def candidate(condition: Condition, values: list[float]) -> Candidate:
        at = place.get(condition.key)
        standing: CandidateStanding = "one class" if condition.key in dull else "untested"
        if at is not None:
            standing = "kept" if stays[at] else "left"
        known = floors.get(condition.key)
        return Candidate(
            key=condition.key,
            label=condition.label,
            mean=float(np.mean(values)),
            n=len(values),
            std=None if at is None else float(np.sqrt(shrunk[at])),
            image_std=None if known is None else float(np.sqrt(known)),
            degrees=None if at is None else float(degrees[at]),
            p=None if at is None else float(p[at]),
            standing=standing,
        )

    return CandidateSet(metric=metric, alpha=alpha, conditions=tuple(candidate(c, values) for c, values in rows))


def _values(results: StudyResults, condition: Condition, metric: str, most: int | None) -> list[float]:
    values = values_by_repeat(results, condition, metric)
    return [value for index, value in sorted(values.items()) if most is None or index < most]


def _image_variance(results: StudyResults, condition: Condition, metric: str, most: int | None) -> float | None:
    import numpy as np

    if metric != IMAGE_METRIC:
        return None
    if results.resampled:
        return fold_variance(results, condition, most)
    right = [bits for i, bits in right_answers(results, condition).items() if most is None or i < most]
    return image_variance(np.stack(right)) if right else None


def shrunk_variances(
    variances: np.ndarray, counts: np.ndarray, floor: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return variances of one repeat shrunk to the common one, and their degrees of freedom, each float (..., k).

    `variances` are sample variances (..., k) of `counts` >= 2 repeats each. With d = counts - 1, the common variance
    s0² and its weight d0 come from the moments of log variances: e = log v - ψ(d/2) + log(d/2) has the variance
    ψ'(d0/2) + ψ'(d/2) and the mean log s0² + ψ(d0/2) - log(d0/2) (Smyth, Linear models and empirical Bayes methods,
    Statistical Applications in Genetics and Molecular Biology 3(1), 2004). Where e varies no more than by chance, d0 is
    infinite there; here it is at most `SHARED` of the other conditions' degrees of freedom. Shrunk:
    (d0 s0² + d v) / (d0 + d), with d0 + d degrees of freedom. Variances of 0 take no part in the moments; where fewer
    than `LEAST_SHARED` do, nothing is shrunk. No variance is below the `floor`, neither v, once the moments are taken,
    nor what it is shrunk to.
    """
    import numpy as np
    from scipy.special import digamma, polygamma

    d = np.broadcast_to(counts - 1.0, variances.shape)
    positive = variances > 0
    conditions = positive.sum(-1)
    n = np.maximum(conditions, 1)
    e = np.log(np.where(positive, variances, 1.0)) - digamma(d / 2) + np.log(d / 2)
    mean = np.where(positive, e, 0.0).sum(-1) / n
    spread = np.where(positive, e - mean[..., None], 0.0)
    chance = np.where(positive, polygamma(1, d / 2), 0.0).sum(-1) / n
    excess = (spread**2).sum(-1) / np.maximum(n - 1, 1) - chance
    varied = excess > 1e-9
    d0 = 2 * trigamma_inverse(np.where(varied, excess, 1.0))
    common = np.exp(mean + np.where(varied, digamma(d0 / 2) - np.log(d0 / 2), 0.0))[..., None]
    most = SHARED * (1 - 1 / n) * np.where(positive, d, 0.0).sum(-1)
    weight = np.where(conditions < LEAST_SHARED, 0.0, np.minimum(np.where(varied, d0, np.inf), most))[..., None]
    shrunk: np.ndarray = (weight * common + d * np.maximum(variances, floor)) / (weight + d)
    return np.maximum(shrunk, floor), weight + d


def trigamma_inverse(values: np.ndarray) -> np.ndarray:
    """Return y > 0 with ψ'(y) equal to each of `values` > 0, by Newton's method on 1/ψ' (Smyth 2004, appendix)."""
    import numpy as np
    from scipy.special import polygamma

    y = 0.5 + 1 / values
    for _ in range(20):  # 1/ψ' is convex and nearly linear: from this start it converges from one side
        slope = polygamma(1, y)
        y = y + slope * (1 - slope / values) / polygamma(2, y)
    found: np.ndarray = np.where(values > 1e7, 1 / np.sqrt(values), y)
    return found


def beaten_p(means: np.ndarray, variances: np.ndarray, degrees: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return (..., k): how surely each condition has a better rival, as its smallest p by Holm's correction.

    All are (..., k), more is better. For i and j: Welch's t = (mean_j - mean_i) / √(v_i/n_i + v_j/n_j), one-sided, with
    Satterthwaite's degrees of freedom from `degrees`. Each condition's smallest p is multiplied by the number of those
    that may still be the best when its turn comes, the clearest losers first, and is no smaller than that of a clearer
    one, at most 1 (Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics
    6(2), 1979). All conditions count, not the rivals alone: of two equal ones either may seem better. Where neither of
    a pair varies nothing is tested.
    """
    import numpy as np
    from scipy.special import stdtr

    k = means.shape[-1]
    if k < 2:
        return np.ones(means.shape)
    error = variances / counts
    both = error[..., :, None] + error[..., None, :]
    tested = (both > 0) & ~np.eye(k, dtype=bool)
    safe = np.where(tested, both, 1.0)
    share = np.where(tested, error[..., :, None] / safe, 0.5)
    freedom = 1 / (share**2 / degrees[..., :, None] + (1 - share) ** 2 / degrees[..., None, :])
    ahead = means[..., None, :] - means[..., :, None]
    return stepped_down(np.where(tested, stdtr(freedom, -ahead / np.sqrt(safe)), 1.0).min(-1))


def kept(means: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Return bool (..., k): those that are not `out`, and all whose mean is above that of one that is not."""
    import numpy as np

    if not means.shape[-1]:
        return ~out
    least = np.where(out, np.inf, means).min(-1, keepdims=True)
    stays: np.ndarray = means >= least
    return stays


UNTIL = "--until-decided"
"""The option that adds repeats."""


def plan_for(results: StudyResults, most: int) -> tuple[InterimAnalysis, ...]:
    """Return the looks that a study gets which is to be trained until decided, with at most so many repeats.

    Results from which a report could have told conditions apart, which have two repeats of each, count as a look that
    was taken, whether or not somebody looked.
    """
    conditions = compared(results)
    ended = min((_ended(results, condition.key) for condition in conditions), default=0)
    first = max(results.study.repeats, ended)
    return plan_of_looks(first, max(2, first, most), already_reported=ended > 1)


def _ended(results: StudyResults, key: str) -> int:
    """Return how many of the first repeats of a condition have ended, whatever became of their files."""
    under_way = ("running", "stale", "waiting")
    trials = [trial for trial in results.trials if trial.condition.key == key and trial.state not in under_way]
    return next(index for index in range(len(trials) + 1) if index not in {trial.index for trial in trials})


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """An interim analysis that was made, and which conditions it left as candidates."""

    analysis: InterimAnalysis
    candidates: CandidateSet


def looks_taken(results: StudyResults, metric: str, plan: Sequence[InterimAnalysis]) -> tuple[Look, ...]:
    """Return the looks of a plan for which all repeats have ended, in order, up to the one that decided.

    A look uses the repeats that it planned alone, and waits for those of the conditions that may still be the best. A
    condition that left at a look stays out, unless one with a lower mean is kept. A repeat that failed or diverged for
    good has ended: it gives no value.
    """
    taken: list[Look] = []
    waited = {condition.key for condition in compared(results)}
    among: set[str] | None = None
    for analysis in plan:
        if not waited or _missing(results, waited, analysis.n):
            break
        found = candidates(results, metric, analysis.alpha, most=analysis.n, among=among)
        taken.append(Look(analysis=analysis, candidates=found))
        if found.decided:
            break
        waited = {one.key for one in found.open}
        among = {one.key for one in compared(results)} - {one.key for one in found.left}
    return tuple(taken)


def next_look(plan: Sequence[InterimAnalysis], taken: Sequence[Look]) -> InterimAnalysis | None:
    """Return the look that comes next, None after the one that decided and after the last one."""
    if taken and taken[-1].candidates.decided:
        return None
    return plan[len(taken)] if len(taken) < len(plan) else None


def missing_repeats(
    results: StudyResults, plan: Sequence[InterimAnalysis], taken: Sequence[Look]
) -> dict[str, tuple[int, ...]]:
    """Return the indices of repeats that have not ended and that the next look waits for, by condition key."""
    upcoming = next_look(plan, taken)
    if upcoming is None:
        return {}
    waited = taken[-1].candidates.open if taken else compared(results)
    return _missing(results, {one.key for one in waited}, upcoming.n)


def _missing(results: StudyResults, keys: Collection[str], n: int) -> dict[str, tuple[int, ...]]:
    """Return which of the first `n` repeats have not ended, by the key of those conditions that lack any."""
    missing = {}
    for condition in compared(results):
        if condition.key in keys:
            ended = {index for index, trial in results.repeats(condition).items() if trial.state in FINISHED}
            missing[condition.key] = tuple(index for index in range(n) if index not in ended)
    return {key: indices for key, indices in missing.items() if indices}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far the looks of a study are.

    `open` are the conditions that may be the best, by key and label, after the last look. By key, `shown` is the number
    of repeats that the last look at each condition had, `asked` the number that it has or needs for the next one.
    `missing` is how many of these have not ended. `seconds` is what they take one after another, as long as trials of
    their condition took so far, None where none tells.
    """

    plan: tuple[InterimAnalysis, ...]
    taken: tuple[Look, ...]
    open: Mapping[str, str]
    shown: Mapping[str, int]
    asked: Mapping[str, int]
    next: InterimAnalysis | None
    missing: int
    seconds: float | None

    @property
    def decided(self) -> bool:
        """Return whether the last look found the best condition."""
        return bool(self.taken) and self.taken[-1].candidates.decided


def standing(results: StudyResults, plan: Sequence[InterimAnalysis]) -> Standing:
    """Return how far the looks of a plan, of at least one, are; `results` hold every trial, later ones too.

    The first look waits for the searches, whose best are compared as well.
    """
    taken = () if _is_searching(results) else looks_taken(results, results.study.report.metric, plan)
    still = {one.key: one.label for one in compared(results)}
    shown = asked = dict.fromkeys(still, plan[0].n)
    for look in taken:
        shown = asked
        still = {one.key: one.label for one in look.candidates.open}
        if len(still) < 2 or look.analysis.number == len(plan):
            break
        asked = {**shown, **dict.fromkeys(still, plan[look.analysis.number].n)}
    upcoming = next_look(plan, taken) if len(still) > 1 else None
    missing = {key: len(indices) for key, indices in missing_repeats(results, plan, taken).items() if upcoming}
    return Standing(
        plan=tuple(plan),
        taken=taken,
        open=still,
        shown=shown,
        asked=asked,
        next=upcoming,
        missing=sum(missing.values()),
        seconds=_seconds(results, missing),
    )


def _is_searching(results: StudyResults) -> bool:
    """Return whether a search is under way whose best will be trained again."""
    if not results.study.confirm:
        return False
    plan = Plan(study=results.study, conditions=results.conditions)
    wanted = sum(plan.count(one) for one in plan.conditions if one.kind == "search")
    return sum(trial.state in FINISHED for trial in results.searched()) < wanted


def _seconds(results: StudyResults, missing: Mapping[str, int]) -> float | None:
    seconds: dict[str, list[float]] = {}
    for trial in results.trials:
        if trial.phase != "search" and trial.outcome and trial.outcome.cost:
            seconds.setdefault(trial.condition.key, []).append(trial.outcome.cost.seconds)
    if not seconds:
        return None
    usual = [second for found in seconds.values() for second in found]
    return sum(n * fmean(seconds.get(key, usual)) for key, n in missing.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyLooks:
    """The looks that are planned for a study, none where its repeats are fixed, and those that were taken."""

    planned: tuple[InterimAnalysis, ...] = ()
    taken: tuple[Look, ...] = ()


def looks_of(results: StudyResults) -> StudyLooks:
    """Return the looks of a study."""
    plan = planned_looks(results.decisions)
    return StudyLooks(planned=plan, taken=standing(results, plan).taken if plan else ())


def candidates_of(results: StudyResults, metric: str) -> CandidateSet:
    """Return which conditions may be the best of a study, as its last look found it where looks are planned.

    Of another metric than the study's own, and before the first look, at the level that a look has.
    """
    looks = looks_of(results)
    if not looks.planned:
        return candidates(results, metric, LEAVES_AT)
    if looks.taken and metric == results.study.report.metric:
        return looks.taken[-1].candidates
    return candidates(results, metric, looks.planned[max(0, len(looks.taken) - 1)].alpha)


def repeats_words(results: StudyResults) -> str:
    """Return how many repeats conditions have: `3 for each condition`, or `3 to 12, until decided: look 4 of 5`."""
    looks = looks_of(results)
    if not looks.planned:
        folds = ", each of which tests on a fold of its own" if results.study.splits == "folds" else ""
        return f"{results.study.repeats} for each condition{folds}"
    first, last = looks.planned[0].n, looks.taken[-1].analysis.n if looks.taken else looks.planned[0].n
    counts = f"{first} to {last}" if last > first else str(first)
    return f"{counts}, until decided: look {len(looks.taken)} of {len(looks.planned)}"


def standing_words(state: Standing) -> str:
    """Return a sentence on what is decided, what is still open, and what the next look costs."""
    looks, labels = len(state.plan), list(state.open.values())
    time = "" if state.seconds is None else f", about {duration(state.seconds, whole=True)} one after another"
    cost = f"takes {count(state.missing, 'trial')}{time}"
    if not state.taken:
        return f"no look yet: the first of {looks}, at {state.plan[0].n} repeats, {cost}"
    last = state.taken[-1].analysis
    at = f"look {last.number} of {looks}, at {count(last.n, 'repeat')}"
    if state.decided:
        return f"decided at {at}: {names(labels)} is the best"
    if len(labels) < 2:
        return f"{at}: there are no two conditions to compare"
    if state.next is None:
        return f"not decided at {at}, the last: {names(labels)} may be the best"
    return f"{at}: {names(labels)} may be the best; the next, at {state.next.n} repeats, {cost}"


def look_findings(looks: StudyLooks) -> Iterator[Finding]:
    """Say how many looks were taken at a study whose repeats are added until decided, and how they may err."""
    if not looks.planned:
        return
    taken, planned = len(looks.taken), len(looks.planned)
    at = f", at {listing([str(look.analysis.n) for look in looks.taken])} repeats" if taken else ""
    left = [_left_words(before, look) for before, look in zip((None, *looks.taken), looks.taken, strict=False)]
    alphas = [number(look.alpha, 3) for look in looks.planned]
    spent = f"{alphas[0]} each" if len(set(alphas)) == 1 else listing(alphas)
    total = sum(look.alpha for look in looks.planned)
    yield Finding(
        rule="looks",
        sentence=f"{count(taken, 'look')} of {planned} planned {'was' if taken == 1 else 'were'} taken{at}; "
        "after each one, only conditions that might still be the best got more repeats.",
        evidence=f"{''.join(left)}The looks test at {spent}, {number(total, 3)} in all, so that looking again makes no "
        "winner; the intervals of means are so wide that those of all looks hold together with 95 %.",
    )


def _left_words(before: Look | None, look: Look) -> str:
    """Return a sentence on the conditions that left at a look, nothing without any."""
    gone = {one.key for one in before.candidates.left} if before else set()
    labels = [one.label for one in look.candidates.left if one.key not in gone]
    return f"At look {look.analysis.number} {names(labels)} left as clearly worse. " if labels else ""


def until_decided_command(results: StudyResults) -> str:
    """Return the command that adds repeats until decided: as the sweep was started, without a time or a choice."""
    return sweep_command(results, UNTIL)


def sweep_command(results: StudyResults, *more: str, workspace: str | None = None) -> str:
    """Return the command that goes on with a study: as the sweep was started, without a time or a choice, and `more`.

    A `workspace` takes the place of the one that was given then: that of `benchkit sweep` where it is its own.
    """
    try:
        given = shlex.split(results.command)
    except ValueError:  # a ledger's text that is no command line
        given = []
    if given[:2] != ["benchkit", "sweep"]:
        given = ["benchkit", "sweep", str(results.study.path or results.study.name)]
    kept = without_options(given, ("--only", "--retry", "--hours", "--stop-by"), (UNTIL, "--json"))
    if workspace is not None:
        kept = without_options(kept, ("-w", "--workspace"), ())
        kept += ["--workspace", workspace] if workspace not in ("", DEFAULT_WORKSPACE) else []
    return shlex.join([*kept, *more])


def without_options(words: Sequence[str], valued: Sequence[str], switches: Sequence[str]) -> list[str]:
    """Return a command's words without these options; those that are `valued` go with their values."""
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before not in valued and word.partition("=")[0] not in (*valued, *switches)
    ]
