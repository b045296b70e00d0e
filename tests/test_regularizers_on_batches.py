"""The regularizers that change batches, against numbers worked by hand, numpy, scipy and the framework."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from benchkit_regularizers.crop_flip import CropFlip
from benchkit_regularizers.cutmix import CutMix, box
from benchkit_regularizers.label_smoothing import LabelSmoothing
from benchkit_regularizers.mixup import Mixup
from benchkit_regularizers.pairing import beta_share, partners
from scipy import stats
from torch import nn

from benchkit import Batch
from benchkit.train.steps.backends import register

Augmenting = CropFlip | CutMix | LabelSmoothing | Mixup
AUGMENTING = (CropFlip(), CutMix(), LabelSmoothing(), Mixup(alpha=1.0))
layouts = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 8, size: tuple[int, int, int] = (3, 8, 6), layout: torch.memory_format | None = None) -> Batch:
    """Return random images, every pixel above zero and different from all others, and one-hot targets."""
    numel = count * math.prod(size)
    images = (torch.randperm(numel, generator=generator(9)) + 1).float().div(numel + 1).view(count, *size)
    targets = torch.eye(4)[torch.arange(count) % 4]
    return Batch(images=images.contiguous(memory_format=layout or torch.contiguous_format), targets=targets)


@pytest.mark.parametrize("regularizer", AUGMENTING, ids=lambda each: type(each).__name__)
@layouts
def test_augmenting_is_decided_by_the_generator_alone(regularizer: Augmenting, layout: torch.memory_format) -> None:
    given = batch(layout=layout)
    before, state = copy.deepcopy(given), torch.get_rng_state()
    first, second = regularizer.augment(given, generator(1)), regularizer.augment(given, generator(1))
    assert torch.equal(first.images, second.images) and torch.equal(first.targets, second.targets)
    assert torch.equal(given.images, before.images) and torch.equal(given.targets, before.targets)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.images.dtype == torch.float32 and first.targets.dtype == torch.float32
    assert first.images.is_contiguous(memory_format=layout)
    torch.testing.assert_close(first.targets.sum(1), torch.ones(8))
    if not isinstance(regularizer, LabelSmoothing):
        other = regularizer.augment(given, generator(2))
        assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize(
    "regularizer",
    [CropFlip(padding=0, flip=0.0), CutMix(alpha=0.0), LabelSmoothing(smoothing=0.0), Mixup(alpha=0.0)],
    ids=lambda each: type(each).__name__,
)
def test_zero_strength_returns_the_batch_and_draws_nothing(regularizer: Augmenting) -> None:
    given, random = batch(), generator()
    state = random.get_state()
    assert regularizer.augment(given, random) is given
    assert torch.equal(random.get_state(), state)


def test_label_smoothing_by_hand() -> None:
    found = LabelSmoothing(smoothing=0.2).augment(batch(2), generator())
    torch.testing.assert_close(found.targets, torch.tensor([[0.85, 0.05, 0.05, 0.05], [0.05, 0.85, 0.05, 0.05]]))
    logits = torch.randn(8, 4, generator=generator(3))
    smoothed = LabelSmoothing(smoothing=0.3).augment(batch(), generator()).targets
    expected = nn.functional.cross_entropy(logits, torch.arange(8) % 4, label_smoothing=0.3)
    torch.testing.assert_close(nn.functional.cross_entropy(logits, smoothed), expected)


@layouts
@pytest.mark.parametrize("channels", [1, 3])
def test_every_crop_is_a_window_of_the_padded_original(layout: torch.memory_format, channels: int) -> None:
    given = batch(64, (channels, 6, 5), layout)
    found = CropFlip(padding=2).augment(given, generator(4)).images.numpy()
    padded = np.pad(given.images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))
    places = []
    for image, original in zip(found, padded, strict=True):
        windows = {
            (top, left, flip): window[:, :, ::-1] if flip else window
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            for window in [original[:, top : top + 6, left : left + 5]]
        }
        matches = [place for place, window in windows.items() if np.array_equal(window, image)]
        assert len(matches) == 1
        places += matches
    assert len(set(places)) > 30


def test_crops_and_flips_are_uniform_and_independent_of_each_other() -> None:
    count, padding = 9000, 1
    images = torch.zeros(count, 1, 3, 4)
    images[:, 0, 1, 1] = 1.0
    found = CropFlip(padding=padding, flip=0.25).augment(
        Batch(images=images, targets=torch.ones(count, 1)), generator(8)
    )
    rows, columns = (
        found.images[:, 0].flatten(1).argmax(1).div(4, rounding_mode="floor"),
        found.images.argmax(3).amax((1, 2)),
    )
    # The bright pixel at column 1 lands on columns 0..2, or mirrored on 3..1; column 3 and 0 tell the flip apart.
    assert stats.chisquare([int((rows == row).sum()) for row in range(3)]).pvalue > 1e-4
    expected = np.array([0.75, 0.75 + 0.25, 0.75 + 0.25, 0.25]) / 3 * count
    assert stats.chisquare([int((columns == column).sum()) for column in range(4)], expected).pvalue > 1e-4


def test_flip_alone_mirrors_and_crop_alone_does_not() -> None:
    given = batch()
    flipped = CropFlip(padding=0, flip=1.0).augment(given, generator())
    assert torch.equal(flipped.images, given.images.flip(3)) and flipped.targets is given.targets
    inner = CropFlip(padding=1, flip=0.0).augment(given, generator()).images
    assert all(
        set(new.unique().tolist()) <= {0.0, *old.unique().tolist()}
        for new, old in zip(inner, given.images, strict=True)
    )


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 3.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    random = generator(11)
    shares = np.array([beta_share(alpha, random).item() for _ in range(2000)])
    assert np.isfinite(shares).all() and shares.min() >= 0 and shares.max() <= 1
    # float32 rounds shares near 0 and 1, where a small alpha puts nearly all of them: compare in between.
    edges = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]
    counts, _ = np.histogram(shares, edges)
    expected = np.diff(stats.beta(alpha, alpha).cdf(edges)) * len(shares)
    assert stats.chisquare(counts, expected).pvalue > 1e-4


def test_partners_are_a_permutation() -> None:
    assert partners(100, generator(1)).sort().values.tolist() == list(range(100))
    assert partners(100, generator(1)).tolist() != list(range(100))


def identify(found: Batch, given: Batch, blend: Callable[[int, int], np.ndarray]) -> list[int]:
    """Return for each image the partner with which `blend(image, partner)` gives what was found."""
    count = len(given.images)
    return [
        next(j for j in range(count) if np.allclose(found.images[i].numpy(), blend(i, j), atol=1e-6))
        for i in range(count)
    ]


def test_mixup_blends_images_and_targets_with_one_share() -> None:
    given = batch(8)
    found = Mixup(alpha=1.0).augment(given, generator(3))
    share = beta_share(1.0, generator(3)).double().item()
    assert 0.05 < share < 0.95
    images, targets = given.images.double().numpy(), given.targets.double().numpy()
    chosen = identify(found, given, lambda i, j: share * images[i] + (1 - share) * images[j])
    assert sorted(chosen) == list(range(8))
    np.testing.assert_allclose(found.targets, share * targets + (1 - share) * targets[chosen], atol=1e-6)


@pytest.mark.parametrize(
    ("share", "centre", "rows", "columns"),
    [
        (0.75, (0.5, 0.5), range(2, 6), range(3, 9)),  # half of each side: 4 of 8 rows, 6 of 12 columns
        (0.75, (0.0, 0.0), range(0, 2), range(0, 3)),  # clipped at the upper left corner
        (0.75, (0.99, 0.99), range(5, 8), range(8, 12)),  # and at the lower right one: centre 7, 11
        (1.0, (0.5, 0.5), range(0), range(0)),
        (0.0, (0.5, 0.5), range(8), range(12)),
    ],
)
def test_the_box_by_hand(share: float, centre: tuple[float, float], rows: range, columns: range) -> None:
    expected = np.zeros((8, 12), dtype=bool)
    expected[np.ix_(list(rows), list(columns))] = True
    assert np.array_equal(box(torch.tensor(share), torch.tensor(centre), 8, 12).numpy(), expected)


@layouts
def test_cutmix_pastes_one_box_and_mixes_targets_by_its_area(layout: torch.memory_format) -> None:
    given = batch(8, layout=layout)
    sizes = set()
    for seed in range(6):
        found = CutMix().augment(given, generator(seed))
        changed = (found.images != given.images).any(1)
        inside = changed.any(0).numpy()
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if not len(rows):
            assert torch.equal(found.targets, given.targets)
            continue
        assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        chosen = identify(found, given, lambda i, j, box=inside: np.where(box, given.images[j], given.images[i]))
        assert sorted(chosen) == list(range(8))
        share = inside.mean()
        targets = given.targets.numpy()
        np.testing.assert_allclose(found.targets, (1 - share) * targets + share * targets[chosen], atol=1e-6)
        sizes.add(inside.sum())
    assert len(sizes) > 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("regularizer", AUGMENTING, ids=lambda each: type(each).__name__)
def test_augmenting_can_be_captured_in_a_cuda_graph(regularizer: Augmenting) -> None:
    given = Batch(images=batch().images.cuda(), targets=batch().targets.cuda())
    random = torch.Generator("cuda").manual_seed(0)
    regularizer.augment(given, random)
    graph = torch.cuda.CUDAGraph()
    register(graph, (random,))
    with torch.cuda.graph(graph):
        captured = regularizer.augment(given, random)
    graph.replay()
    first = captured.images.clone()
    graph.replay()
    assert isinstance(regularizer, LabelSmoothing) or not torch.equal(first, captured.images)
    torch.testing.assert_close(captured.targets.sum(1), torch.ones(8, device="cuda"))
