"""The single changes that `make mutants` makes: a random sample of what cosmic-ray's operators can do to some files."""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A change of one file: the line, the operator that makes it, and the line before and after."""

    path: str
    line: int
    operator: str
    occurrence: int
    before: str
    after: str


def drawn(under: Sequence[str], count: int, seed: int) -> Iterator[Mutant]:
    """Yield a random sample of changes: each place that can be changed is as likely, then each change of it."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    operators = {name: get_operator(name) for name in sorted(operator_names())}
    plain = {name: kind() for name, kind in operators.items() if not kind.arguments()}
    places: dict[tuple[str, Any, str], list[tuple[str, int]]] = defaultdict(list)
    for path in sorted(
        file for name in under for file in [ROOT / name, *(ROOT / name).rglob("*.py")] if file.is_file()
    ):
        nodes = list(ast_nodes(get_ast(path.read_text(encoding="utf-8"))))
        for name, operator in plain.items():
            spots = [spot for node in nodes for spot in operator.mutation_positions(node)]
            for occurrence, spot in enumerate(spots):
                places[str(path.relative_to(ROOT)), spot, name.partition("_")[0]].append((name, occurrence))
    chance = random.Random(seed)
    order = sorted(places, key=repr)
    chance.shuffle(order)
    for place in order:
        name, occurrence = chance.choice(places[place])
        if count and (made := mutant_of(place[0], place[1][0][0], name, occurrence)):
            count -= 1
            yield made


def mutant_of(path: str, line: int, name: str, occurrence: int) -> Mutant | None:
    """Return a change, or None where it is none to Python: not of the code, or of an annotation alone."""
    text = (ROOT / path).read_text(encoding="utf-8")
    changed = changed_text(text, name, occurrence)
    try:
        if changed is None or _meaning(changed) == _meaning(text):
            return None
    except SyntaxError:
        return None
    lines = [(a, b) for a, b in zip(text.splitlines(), changed.splitlines(), strict=False) if a != b]
    before, after = lines[0] if lines else ("", "")
    return Mutant(
        path=path, line=line, operator=name, occurrence=occurrence, before=before.strip(), after=after.strip()
    )


def changed_text(text: str, name: str, occurrence: int) -> str | None:
    """Return a file's text after a change, None where the operator makes none."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    changed: str | None = mutate_code(text, get_operator(name)(), occurrence)
    return changed


class _WithoutAnnotations(ast.NodeTransformer):
    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)


def _meaning(text: str) -> str:
    return ast.dump(_WithoutAnnotations().visit(ast.parse(text)))
