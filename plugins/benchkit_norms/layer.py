"""Layer normalisation."""

from __future__ import annotations

from benchkit import Range, card
from benchkit_norms.standardize import PerImage


@card(
    title="Layer normalisation",
    summary="Each image gets mean 0 and variance 1 over all its channels and pixels; the batch plays no part.",
    reference="J. L. Ba, J. R. Kiros and G. E. Hinton, Layer Normalization, 2016",
    url="https://arxiv.org/abs/1607.06450",
    ranges={"eps": Range(low=1e-8, high=1e-2, log=True)},
)
class LayerNorm(PerImage):
    """y = weight * (x - mean) / sqrt(var + eps) + bias, mean and biased variance over C, H, W of one image.

    The paper's statistics over all units of a layer, with its gain and bias shared along H and W, so that they do not
    depend on the image size: group norm with one group (Wu and He 2018, section 3.1). This is not the per-pixel norm
    over C alone that ConvNeXt calls LayerNorm2d. Training and evaluation are the same.
    """

    num_groups = 1
