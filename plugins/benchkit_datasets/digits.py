"""The digits that scikit-learn brings along: a real data set that needs no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchkit import Splits, card
from benchkit.preparation import About, Draft, pixel_digests, prepare
from benchkit_datasets.published import canonical_order, shared_images

CITATION = "Alpaydin, E., Kaynak, C. Optical Recognition of Handwritten Digits. UCI Machine Learning Repository, 1998."
TEST_PER_CLASS = 40


@card(
    title="Digits",
    summary="1,797 images of handwritten digits, 8x8 pixels, grey; bundled with scikit-learn.",
    reference=CITATION,
    url="https://doi.org/10.24432/C50P49",
)
def digits(root: Path) -> Splits:
    """Return scikit-learn's digits: (8, 8, 1), 1,397 training and 400 test images, 40 of every class in test.

    The source values 0..16 become 0..255. Test takes the images of each class whose pixels have the smallest SHA-256:
    as good as a random choice, and the same everywhere. The writers of train and test are the same people.
    """

    def build(draft: Draft) -> About:
        from sklearn.datasets import load_digits

        source = load_digits()
        images = np.rint(source.images * (255 / 16)).astype(np.uint8)[..., None]
        labels = source.target.astype(np.int64)
        digests = pixel_digests(images)
        order = canonical_order(digests, labels)
        first = [order[labels[order] == label][:TEST_PER_CLASS] for label in range(10)]
        in_test = np.isin(order, np.concatenate(first))
        train, test = order[~in_test], order[in_test]
        draft.write("train", images[train], labels[train])
        draft.write("test", images[test], labels[test])
        shared = shared_images([digests[i] for i in train], [digests[i] for i in test])
        return About(
            class_names=tuple("0123456789"),
            licence="CC BY 4.0",
            citation=CITATION,
            notes=[f"{shared} test images also occur among the training images."] if shared else [],
        )

    return prepare(Path(root), "digits", build)
