"""Images on the device and the batches made of them, against numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_runs import make_split, make_splits
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from benchkit import DataError, Split, Splits
from benchkit.data.dataset import Selected, draw, select
from benchkit.study.settings import DataSettings, PluginRef
from benchkit.train.batches import channel_statistics, image_set, in_unit_range, input_transform, loader

CPU = torch.device("cpu")


def settings(**sizes: int) -> DataSettings:
    return DataSettings(dataset=PluginRef(name="made-up"), **sizes)


def all_of(split: Split) -> Selected:
    return Selected(split=split, rows=np.arange(len(split.labels)))


def every_third() -> Selected:
    return Selected(split=make_split(60, 3), rows=np.arange(0, 60, 3))


def test_images_are_shared_with_the_data_set_and_taken_by_row() -> None:
    chosen = every_third()
    images = image_set(chosen, CPU)
    assert images.images.data_ptr() == chosen.split.images.ctypes.data
    taken = images.take(torch.tensor([4, 0]))
    assert taken.shape == (2, 3, 8, 8) and taken.dtype == torch.uint8
    np.testing.assert_array_equal(taken.permute(0, 2, 3, 1).numpy(), chosen.split.images[[12, 0]])
    assert images.labels.tolist() == chosen.split.labels[::3].tolist()


def test_a_read_only_memory_map_is_not_copied(tmp_path: object) -> None:
    path = f"{tmp_path}/images.npy"
    split = make_split(12, 0)
    np.save(path, split.images)
    mapped = np.load(path, mmap_mode="r")
    images = image_set(all_of(Split(images=mapped, labels=split.labels)), CPU)
    assert images.images.data_ptr() == mapped.ctypes.data
    np.testing.assert_array_equal(torch.cat(list(images.chunks(5))).permute(0, 2, 3, 1).numpy(), split.images)


def test_an_epoch_shows_every_image_once_in_a_fresh_order_and_keeps_the_last_batch() -> None:
    chosen = every_third()
    batches = loader(image_set(chosen, CPU), classes=4, batch_size=8)
    generator = torch.Generator().manual_seed(0)
    epochs = [list(batches.epoch(generator)) for _ in range(2)]
    assert len(batches) == 3 and batches.images_per_epoch == 20
    assert [len(batch.targets) for batch in epochs[0]] == [8, 8, 4]
    assert epochs[0][0].images.dtype == torch.uint8
    pictures = [in_unit_range(torch.cat([batch.images for batch in epoch])) for epoch in epochs]
    expected = np.sort(chosen.split.images[::3].mean((1, 2, 3)) / 255)
    for shown in pictures:
        np.testing.assert_allclose(np.sort(shown.mean((1, 2, 3)).numpy()), expected, rtol=1e-5)
    assert not torch.equal(*pictures)
    assert all(shown.dtype == torch.float32 for shown in pictures)
    assert torch.equal(epochs[0][0].targets.sum(1), torch.ones(8))


def test_targets_belong_to_their_images() -> None:
    chosen = every_third()
    means = {
        tuple(image.flatten()): label for image, label in zip(chosen.split.images, chosen.split.labels, strict=True)
    }
    for batch in loader(image_set(chosen, CPU), classes=4, batch_size=7).epoch(torch.Generator()):
        raw = batch.images.permute(0, 2, 3, 1).numpy()
        assert [means[tuple(image.flatten())] for image in raw] == batch.targets.argmax(1).tolist()


@pytest.mark.parametrize(
    ("n", "size", "steps", "used"), [(17, 8, 2, 16), (17, 1, 17, 17), (1, 8, 1, 1), (16, 8, 2, 16)]
)
def test_a_last_batch_of_one_image_is_dropped(n: int, size: int, steps: int, used: int) -> None:
    batches = loader(image_set(all_of(make_split(n, 0)), CPU), classes=4, batch_size=size)
    shown = list(batches.epoch(torch.Generator()))
    assert (len(shown), len(batches), batches.images_per_epoch) == (steps, steps, used)
    assert sum(len(batch.targets) for batch in shown) == used


def test_channel_statistics_are_those_of_scikit_learn_over_the_chosen_images() -> None:
    chosen = every_third()
    scaler = StandardScaler().fit(chosen.split.images[::3].reshape(-1, 3).astype(np.float64) / 255)
    mean, std = channel_statistics(image_set(chosen, CPU))
    np.testing.assert_allclose(mean.numpy(), scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(std.numpy(), scaler.scale_, rtol=1e-12)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_pixels_are_resized_then_normalised(memory_format: torch.memory_format) -> None:
    images = image_set(every_third(), CPU)
    inputs = images.take(torch.arange(5)).to(torch.float32) / 255
    made = input_transform(images, channel_statistics(images), size=6, memory_format=memory_format)(inputs)
    mean, std = (part.float().reshape(1, 3, 1, 1) for part in channel_statistics(images))
    small = functional.interpolate(inputs.contiguous(), (6, 6), mode="bilinear", antialias=True)
    torch.testing.assert_close(made, (small - mean) / std, rtol=1e-5, atol=1e-5)
    assert made.is_contiguous(memory_format=memory_format)


def test_without_normalisation_pixels_stay_in_0_to_1() -> None:
    images = image_set(every_third(), CPU)
    inputs = images.take(torch.arange(5)).to(torch.float32) / 255
    made = input_transform(images, None, size=0, memory_format=torch.channels_last)(inputs)
    assert torch.equal(made, inputs)


def test_a_constant_channel_becomes_zero() -> None:
    split = Split(images=np.full((4, 2, 2, 1), 9, np.uint8), labels=np.zeros(4, np.int64))
    images = image_set(all_of(split), CPU)
    made = input_transform(images, channel_statistics(images), size=0, memory_format=torch.channels_last)
    assert torch.allclose(made(torch.full((1, 1, 2, 2), 9 / 255)), torch.zeros(1), atol=1e-6)


def test_draws_keep_every_class_s_share() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    rows = draw(labels, 20, seed=1)
    assert np.bincount(labels[rows]).tolist() == [12, 6, 2]
    assert len(np.unique(rows)) == 20 and (np.diff(rows) > 0).all()
    assert np.bincount(np.arange(100)[draw(np.arange(100) % 10, 25, seed=1)] % 10).tolist().count(3) == 5
    assert not np.array_equal(rows, draw(labels, 20, seed=2))
    assert draw(labels, 0, seed=1).tolist() == list(range(100))


def test_a_shipped_val_split_is_used_and_train_stays_whole() -> None:
    splits = make_splits()
    chosen = select(splits, settings(), seed=0)
    assert chosen.val.split is splits.val
    assert [len(part.rows) for part in (chosen.train, chosen.val, chosen.test)] == [80, 24, 32]


def test_without_one_val_is_a_tenth_of_train_and_apart_from_it() -> None:
    chosen = select(make_splits(val=None), settings(), seed=0)
    assert len(chosen.val.rows) == 8
    assert np.bincount(chosen.val.labels).tolist() == [2, 2, 2, 2]
    assert sorted([*chosen.val.rows, *chosen.train.rows]) == list(range(80))


def test_of_fewer_than_ten_images_one_is_val_and_the_others_are_train() -> None:
    found = select(make_splits(train=8, val=None), settings(), 0)
    assert (len(found.train.rows), len(found.val.rows), len(found.test.rows)) == (7, 1, 32)
    with pytest.raises(DataError, match=r"fewer images") as error:
        select(make_splits(train=1, val=None), settings(), 0)
    assert error.value.problems == ("no image is left for train",)
    with pytest.raises(DataError) as error:
        select(make_splits(val=None), settings(val_size=300), 0)
    assert error.value.problems == (
        "data.val_size = 300: there are 80 images to draw from",
        "no image is left for train",
    )


def test_of_a_few_images_in_folds_some_are_left_to_train() -> None:
    """Each of the 4 classes has 2 of the 8 images, one in each of the 2 folds; of the 4 others one is val."""
    few = make_splits(train=4, val=None, test=4)
    found = select(few, settings(folds=2), 0)
    assert (len(found.train.rows), len(found.val.rows), len(found.test.rows)) == (3, 1, 4)


def test_sizes_are_drawn_the_same_for_one_seed() -> None:
    first, second, other = (
        select(make_splits(val=None), settings(train_size=20, val_size=12, test_size=8), seed=seed)
        for seed in (1, 1, 2)
    )
    assert [len(part.rows) for part in (first.train, first.val, first.test)] == [20, 12, 8]
    assert not set(first.train.rows) & set(first.val.rows)
    assert np.bincount(first.train.labels).tolist() == [5, 5, 5, 5]
    for part in ("train", "val", "test"):
        assert np.array_equal(getattr(first, part).rows, getattr(second, part).rows)
        assert not np.array_equal(getattr(first, part).rows, getattr(other, part).rows)


def test_too_large_sizes_are_reported_together() -> None:
    with pytest.raises(DataError) as caught:
        select(make_splits(val=None), settings(train_size=70, val_size=12, test_size=33), seed=0)
    assert caught.value.problems == (
        "data.train_size = 70: there are 68 images to draw from",
        "data.test_size = 33: there are 32 images to draw from",
    )


def test_data_that_break_the_contract_are_reported_together() -> None:
    good = make_splits()
    bad = Splits(
        train=Split(images=good.train.images.astype(np.float32), labels=good.train.labels),
        val=Split(images=good.test.images, labels=good.test.labels + 2),
        test=Split(images=good.test.images, labels=good.test.labels[:-1]),
        class_names=good.class_names,
        licence="",
        citation="",
        fingerprint="",
    )
    with pytest.raises(DataError) as caught:
        select(bad, settings(), seed=0)
    assert caught.value.problems == (
        "train: images must be uint8 (N, H, W, C), got float32 (80, 8, 8, 3)",
        "val: labels must be in 0..3, got 2..5",
        "test: labels must be int64 (32,), got int64 (31,)",
    )
