"""Instance normalisation."""

from __future__ import annotations

from torch import Tensor

from benchkit import Range, card
from benchkit_norms import native_kernels
from benchkit_norms.standardize import PerImage


@card(
    title="Instance normalisation",
    summary="Each channel of each image gets mean 0 and variance 1 over its own pixels; the batch plays no part.",
    reference="D. Ulyanov, A. Vedaldi and V. Lempitsky, Instance Normalization: The Missing Ingredient for Fast "
    "Stylization, 2016",
    url="https://arxiv.org/abs/1607.08022",
    ranges={"eps": Range(low=1e-8, high=1e-2, log=True)},
)
class InstanceNorm(PerImage):
    """y = weight * (x - mean) / sqrt(var + eps) + bias, mean and biased variance over H, W of one channel of one image.

    Training and evaluation are the same. On 1x1 maps every value is its own mean, so that the output is the bias.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x (N, C, H, W), in its dtype; raise `PluginError` for another shape."""
        self.check(x)
        if native_kernels.usable_by_map(x, self.weight, self.bias):
            return native_kernels.instance_norm(x, self.weight, self.bias, self.eps)
        return super().forward(x)
