"""Which places of a sweep have which compiled code: compiling is a job that a seat is given while others train.

A place is the devices of one model on one node, whose workers share what they compile. A trial whose code a seat of its
place compiles is not handed out there: trials of other code are. Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from benchkit.plan import Condition, Plan
from benchkit.sweep.compiling import has_own_codes, step_of
from benchkit.sweep.training_decisions import obeying

Place = tuple[str, str]
"""A node's name, and the model of its devices."""

MEMORY = 3 * 2**29
"""Bytes that compiling one step takes of a node, with the compilers that it starts: a ResNet-14's took 1.24 GiB."""

SHARE = 0.5
"""The share of what is free on a node that compilers may take together: the rest is for trials."""


class CompileJobs:
    """The compiled code of a sweep. `decided` is what is decided of the study's training, `free` bytes by node."""

    def __init__(self) -> None:
        """Know of no code yet."""
        self.decided: Mapping[str, str] = {}
        self.free: dict[str, int] = {}
        self._codes: dict[str, str] = {}
        self._trials: Counter[str] = Counter()
        self._there: set[tuple[Place, str]] = set()
        self._under_way: dict[tuple[int, int], tuple[Place, str]] = {}

    def begin(self, plan: Plan) -> None:
        """Look at the trials of a plan from now on; what was compiled before stays."""
        self._plan = plan
        self._codes.clear()
        self._trials.clear()
        self._under_way.clear()

    def wanted(self, place: Place) -> Callable[[Condition], bool]:
        """Return what tells whether a trial of a condition may begin at a place now.

        Not while its code is compiled there, nor where it would be and the node has no memory for one more compiler.
        """
        under_way = {code for where, code in self._under_way.values() if where == place}
        running = sum(where[0] == place[0] for where, _ in self._under_way.values())
        room = not running or (running + 1) * MEMORY <= SHARE * self.free.get(place[0], 0)

        def may_begin(condition: Condition) -> bool:
            code = self._code(condition)
            return not code or (place, code) in self._there or (room and code not in under_way)

        return may_begin

    def take(self, place: Place, name: tuple[int, int], condition: Condition, *, others: bool) -> bool:
        """Return whether a trial that is handed out is to compile alone: `others` may have to wait for it.

        What comes first of its code compiles it in any case, until it is `over`.
        """
        code = self._code(condition)
        if not code or not others or (place, code) in self._there:
            return False
        shared = self._trials[code] > 1
        self._under_way[name] = place, code if shared else f"{code} {name}"
        return shared

    def over(self, name: tuple[int, int], *, there: bool) -> bool:
        """Return whether a trial was compiling, which it does no more; is the code `there`, or cannot be had?"""
        found = self._under_way.pop(name, None)
        if found is not None and there:
            self._there.add(found)
        return found is not None

    def _code(self, condition: Condition) -> str:
        """Return what tells the code of a condition's trials from others, nothing where their steps are eager."""
        if not self._codes:
            for one in self._plan.conditions:
                settings = obeying(self._plan.settings_of(one), self.decided)
                self._codes[one.key] = step_of(settings) if settings.train.compile == "always" else ""
                # Of trials that each have code of their own, none waits for another's.
                self._trials[self._codes[one.key]] += 0 if has_own_codes(self._plan, one) else self._plan.count(one)
        return self._codes[condition.key]
