"""What the benchmark measured on one device, and what it says of the goals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from answers import Answer
from bench_growth import ALLOWED, Growth
from bench_norms import NormRow
from comparison import LENGTHS, Comparison, Row, Spread
from workloads import WORKLOADS, Workload

from benchkit.analysis.wording import listing

NORM_GOALS = {"cpu": 1.3, "cuda": 1.2}
"""The most that a training step of a norm may take, as a multiple of the framework's own layer."""

OWN_GOALS = {"cpu": 0.02, "cuda": 0.03}
"""The most that benchkit's own work may take of a trial of a minute."""

SHARE_GOALS = {"resnet18-b128": 0.25}
"""By workload: the least share of a GPU's matrix rate in bf16 that training shall use."""

LIMIT_GOALS = {"cpu": {"resnet14-b128": 0.70, "resnet18-b128": 0.70, "resnet14-b8": 0.45}}
"""By device and workload: the least share of what the machine could do at the most."""

HOURLY_GOALS = {"cpu": 1.3}
"""By device: the least trials an hour at each of these lengths, as a multiple of the best other contender's."""

DEVICES = {"cpu": "the processor", "cuda": "the GPU"}


OWN = "ledger and checkpoints"
"""The phase that is benchkit's own work where no profile parts it."""

BOOKKEEPING = ("ledger", "checkpoint", OWN)
"""The phases of a trial that are benchkit's own work; history and events are in the ledger's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCost:
    """One trial of about a minute: the seconds of each of its phases, by its profile or, on a GPU, its own record.

    `watching` is the processor time of the sweep's own process while the trial was trained: following it, and drawing
    the live view.
    """

    phases: Mapping[str, float]
    watching: float

    @property
    def seconds(self) -> float:
        """Return the seconds of the whole trial."""
        return sum(self.phases.values())

    @property
    def share(self) -> float:
        """Return how much bookkeeping and the live view take, as a share of the trial's time."""
        return (self.watching + sum(self.phases.get(name, 0.0) for name in BOOKKEEPING)) / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Everything that was measured on one kind of device, with the last day.

    `commands` are by what they measured last: a workload's name, "norms", "growth" or "own-cost". `load` is that of
    the machine when the last command began, in processes waiting for its `cores`; `images` are whose images were
    trained on, `allocator` what gives benchkit's workers their memory, and `peers` the versions of what took part
    beside benchkit, in words. `pools` say in words on what the `answers` rest.
    """

    device: str
    name: str
    cores: int
    torch: str
    python: str
    dated: str
    commands: Mapping[str, str]
    threads: int
    quick: bool
    load: float
    images: str
    skipped: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()
    norms: tuple[NormRow, ...] = ()
    own: tuple[OwnCost, ...] = ()
    growth: tuple[Growth, ...] = ()
    allocator: str = ""
    peers: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    pools: tuple[str, ...] = ()

    def rows(self, workload: Workload) -> tuple[Row, ...]:
        """Return the contenders' rows on a workload, none where it was not measured."""
        return next((one.rows for one in self.comparisons if one.name == workload.name), ())

    def comparison(self, workload: Workload) -> Comparison | None:
        """Return what was measured on a workload, None where nothing was."""
        return next((one for one in self.comparisons if one.name == workload.name), None)

    def with_piece(self, name: str, command: str, **found: Any) -> Part:
        """Return this with what `command` has found of a piece, by the names of fields."""
        return replace(self, commands={**self.commands, name: command}, **found)

    def after(self, earlier: Part | None) -> Part:
        """Return this with what an earlier part of the same machine and versions has beyond it."""
        same = ("name", "cores", "torch", "python", "threads", "quick", "images")
        if earlier is None or any(getattr(self, name) != getattr(earlier, name) for name in same):
            return self
        found = {one.name: one for one in (*earlier.comparisons, *self.comparisons)}
        return replace(
            self,
            peers=tuple(dict.fromkeys((*earlier.peers, *self.peers))),
            commands={**earlier.commands, **self.commands},
            comparisons=tuple(found[one.name] for one in WORKLOADS if one.name in found),
            norms=self.norms or earlier.norms,
            own=self.own or earlier.own,
            growth=self.growth or earlier.growth,
            answers=self.answers or earlier.answers,
            pools=self.pools or earlier.pools,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A goal on one device, what was found, whether that meets it, and the `variant` that alone does, if it is one."""

    work: str
    device: str
    goal: str
    found: str
    state: Literal["met", "missed", "not measured"]
    variant: str = ""


def verdicts(parts: Mapping[str, Part]) -> Iterator[Verdict]:
    """Yield every goal on every device: met when the median over rounds reaches it."""
    for device in DEVICES:
        part = parts.get(device)
        for workload in WORKLOADS:
            yield _speed(workload, device, part)
            if device == "cuda" and workload.name in SHARE_GOALS:
                yield _share(workload, part)
            if workload.name in LIMIT_GOALS.get(device, {}):
                yield _of_limit(workload, device, part)
            if device in HOURLY_GOALS and workload.trials == 1:
                yield _hourly(workload, device, part)
        yield _norms(device, part)
        yield _own(device, part)
        yield _growth(device, part)


def _speed(workload: Workload, device: str, part: Part | None) -> Verdict:
    unit = "trials an hour" if workload.trials > 1 else "images/s"
    goal = f"{workload.goals[device]:g} times the script's {unit}"
    rows = part.rows(workload) if part else ()
    found = best_of(rows, workload.trials)
    if found is None:
        return _missing(workload.title, device, goal)
    contender, ratio = found
    row = next(row for row in rows if row.contender == contender)
    default = best_of([row for row in rows if is_default(row.contender, device)], workload.trials)
    least, words = workload.goals[device], f"{ratio.text('.2f')} times, n = {row.n}"
    if workload.trials > 1 and row.ratio is not None:
        words += f", in images/s {row.ratio.text('.2f')} times"
    if not is_default(contender, device):
        as_it_is = f"; by default {default[1].text('.2f')} times" if default else ""
        words += f" ({contender}, which is not the default{as_it_is})"
    met = ratio.middle >= least
    alone = met and not is_default(contender, device) and not (default and default[1].middle >= least)
    return Verdict(
        work=workload.title,
        device=device,
        goal=goal,
        found=words,
        state="met" if met else "missed",
        variant=contender if alone else "",
    )


def _share(workload: Workload, part: Part | None) -> Verdict:
    least = SHARE_GOALS[workload.name]
    goal = f"at least {least:.0%} of the measured bf16 matrix rate"
    rows = part.rows(workload) if part else ()
    share = next((row.matrix_share for row in rows if row.contender == "benchkit"), 0.0)
    if not share:
        return _missing(workload.title, "cuda", goal)
    state: Literal["met", "missed"] = "met" if share >= least else "missed"
    return Verdict(work=workload.title, device="cuda", goal=goal, found=f"{share:.0%}", state=state)


def is_default(contender: str, device: str) -> bool:
    """Return whether a contender is benchkit as it is: on a processor it fills the cores with trials by itself."""
    return contender == "benchkit" or (device == "cpu" and contender.startswith("benchkit --jobs "))


def best_of(rows: Sequence[Row], trials: int) -> tuple[str, Spread] | None:
    """Return benchkit's ratio to the script: of images/s, or for a sweep the better one's of trials an hour."""
    ours = {
        row.contender: row.hourly_ratio if trials > 1 else row.ratio
        for row in rows
        if row.contender.startswith("benchkit")
    }
    found = {name: ratio for name, ratio in ours.items() if ratio is not None}
    if not found:
        return None
    return max(found.items(), key=lambda pair: pair[1].middle)


def _of_limit(workload: Workload, device: str, part: Part | None) -> Verdict:
    least = LIMIT_GOALS[device][workload.name]
    goal = f"at least {least:.0%} of what the machine can do at the most"
    one = part.comparison(workload) if part else None
    ours = [row for row in one.rows if row.contender.startswith("benchkit")] if one else []
    if one is None or one.limit is None or not ours:
        return _missing(workload.title, device, goal)
    best = max(ours, key=lambda row: row.rate.middle)
    share = best.rate.middle / one.limit.rate
    default = max(
        (row for row in ours if is_default(row.contender, device)), key=lambda row: row.rate.middle, default=best
    )
    words = f"{share:.1%}, n = {best.n}"
    if best is not default:
        words += f" ({best.contender}, which is not the default; by default {default.rate.middle / one.limit.rate:.1%})"
    if one.limit.loaded:
        words += "; a loaded machine, whose rates before and after differ by more than a tenth"
    alone = share >= least > default.rate.middle / one.limit.rate
    return Verdict(
        work=workload.title,
        device=device,
        goal=goal,
        found=words,
        state="met" if share >= least else "missed",
        variant=best.contender if alone else "",
    )


def _hourly(workload: Workload, device: str, part: Part | None) -> Verdict:
    least = HOURLY_GOALS[device]
    goal = f"trials of {listing(list(LENGTHS.values()))}: at least {least} times the best peer's trials an hour"
    one = part.comparison(workload) if part else None
    ratios = {seconds: found for seconds in LENGTHS if (found := hourly_ratio(one, seconds))}
    if one is None or not ratios:
        return _missing(workload.title, device, goal)
    told = ", ".join(f"{ratio:.2f} times {peer}'s at {LENGTHS[seconds]}" for seconds, (ratio, peer) in ratios.items())
    ways = listing(list(dict.fromkeys(one.default(seconds) for seconds in ratios)))
    met = all(ratio >= least for ratio, _ in ratios.values())
    return Verdict(
        work=workload.title, device=device, goal=goal, found=f"{told} (by default: {ways})",
        state="met" if met else "missed",
    )  # fmt: skip


def hourly_ratio(one: Comparison | None, seconds: float) -> tuple[float, str] | None:
    """Return the default's trials an hour as a multiple of the best peer's at one of `LENGTHS`, and that peer."""
    found = one.hourly(seconds) if one and one.limit else {}
    peers = {name: value for name, value in found.items() if not name.startswith("benchkit")}
    if one is None or one.default(seconds) not in found or not peers:
        return None
    best = max(peers, key=lambda name: peers[name])
    return found[one.default(seconds)] / peers[best], best


def _norms(device: str, part: Part | None) -> Verdict:
    work, limit = "bn, gn, ln, in, bin: a training step", NORM_GOALS[device]
    goal = f"at most {limit} times the framework's layer"
    if part is None or not part.norms:
        return _missing(work, device, goal)
    above = [row for row in part.norms if row.ratio.middle > limit]
    worst = max(part.norms, key=lambda row: row.ratio.middle)
    names = sorted({row.norm for row in above})
    missed = f"; above it in {len(above)} of {len(part.norms)} cases: {', '.join(names)}" if above else ""
    where = f"{worst.norm} on {'x'.join(map(str, worst.shape))} in {worst.precision}"
    return Verdict(
        work=work,
        device=device,
        goal=goal,
        found=f"at most {worst.ratio.text('.2f')} times ({where}){missed}",
        state="missed" if above else "met",
    )


def _own(device: str, part: Part | None) -> Verdict:
    work, goal = "Ledger, history, checkpoints and live view of a trial of a minute", f"under {OWN_GOALS[device]:.0%}"
    if part is None or not part.own:
        return _missing(work, device, goal)
    worst = max(part.own, key=lambda one: one.share)
    return Verdict(
        work=work,
        device=device,
        goal=goal,
        found=f"at most {worst.share:.2%} of {worst.seconds:.0f} s, n = {len(part.own)}",
        state="met" if worst.share < OWN_GOALS[device] else "missed",
    )


def _growth(device: str, part: Part | None) -> Verdict:
    work = "A long sweep's overhead of a trial, its memory and its workers'"
    goal = f"over the last hundred trials at most {ALLOWED} times those over the first"
    if part is None or not part.growth:
        return _missing(work, device, goal)
    worst = max(part.growth, key=lambda one: one.ratio)
    return Verdict(
        work=work,
        device=device,
        goal=goal,
        found=f"at most {worst.ratio:.2f} times ({worst.name}), {worst.trials:,} trials, n = 1",
        state="met" if worst.ratio <= ALLOWED else "missed",
    )


def _missing(work: str, device: str, goal: str) -> Verdict:
    return Verdict(work=work, device=device, goal=goal, found="", state="not measured")
