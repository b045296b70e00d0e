"""Images of shapes that a program draws, as hard as a study wants them, for benchkit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchkit import DataError, Range, Splits, card
from benchkit.preparation import About, Draft, prepare

SHAPES: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 0.85,
    "triangle": lambda x, y: (y <= 0.7) & (abs(x) <= (y + 1) / 1.7),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) <= 0.3) & (np.maximum(abs(x), abs(y)) <= 1),
}
"""Whether a point is inside each shape, whose middle is (0, 0) and whose radius is 1; y grows downwards."""


@card(
    title="Drawn shapes",
    summary="Discs, squares, triangles and crosses under noise, drawn from a seed: as many and as hard as wanted.",
    ranges={"n": Range(low=20, high=100_000), "size": Range(low=8, high=64), "noise": Range(low=0.0, high=100.0)},
)
def drawn_shapes(root: Path, *, n: int = 2000, size: int = 16, noise: float = 40.0, seed: int = 0) -> Splits:
    """Return grey images uint8 (N, size, size, 1): `n` for training, a fifth as many each for val and test.

    A shape is 140 on a ground of 60, with a radius of 20 to 40 % of the side at any place where it fits, under normal
    noise of standard deviation `noise` in steps of grey. Classes take turns. Each split has random numbers of its own
    from `seed`, so that none changes with the size of another.

    Raises:
        DataError: `n` is below 20, `size` is not 8 to 64, or `noise` is negative; all of it at once.
    """
    problems = [] if n >= 20 else [f"n = {n}: expected 20 at least"]
    problems += [] if 8 <= size <= 64 else [f"size = {size}: expected 8 to 64 pixels"]
    problems += [] if noise >= 0 else [f"noise = {noise}: expected 0 at least"]
    if problems:
        raise DataError("drawn-shapes was given wrong options", problems=problems)

    def build(draft: Draft) -> About:
        for place, (split, count) in enumerate((("train", n), ("val", n // 5), ("test", n // 5))):
            images, labels = drawn(count, size, noise, np.random.default_rng((seed, place)))
            draft.write(split, images=images, labels=labels)
        return About(
            class_names=tuple(SHAPES), licence="CC0-1.0", citation="Drawn by the plugin drawn-shapes of benchkit."
        )

    return prepare(
        Path(root), "drawn-shapes", build, options={"n": n, "size": size, "noise": noise, "seed": seed}, origin="drawn"
    )


def drawn(count: int, size: int, noise: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 (count, size, size, 1) and labels int64 (count,), the place of each image's shape."""
    labels = np.arange(count, dtype=np.int64) % len(SHAPES)
    radius = generator.uniform(0.2, 0.4, (count, 1, 1)) * size
    middle = radius + generator.random((2, count, 1, 1)) * (size - 2 * radius)
    x, y = ((axis - at) / radius for axis, at in zip(np.mgrid[:size, :size][::-1, None] + 0.5, middle, strict=True))
    inside = np.select([(labels == place)[:, None, None] for place in range(len(SHAPES))], [
        shape(x, y) for shape in SHAPES.values()
    ])  # fmt: skip
    grey = np.where(inside, 140.0, 60.0) + generator.normal(0, 1, (count, size, size)) * noise
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)[..., None], labels
