"""The conformance kit on frn, and its values against the paper's formula in float64 NumPy."""

import numpy as np
import torch
from benchkit_frn import FilterResponseNorm

from benchkit.testing import Check, parametrize_checks


@parametrize_checks("norms", "frn")
def test_kit(check: Check) -> None:
    """Every promise that benchkit makes for a norm holds."""
    check()


def test_values() -> None:
    """Equation 1 of the paper and the thresholded linear unit."""
    x = np.random.default_rng(0).normal(1.0, 2.0, (2, 3, 4, 5))
    norm = FilterResponseNorm(3, eps=1e-4).double()
    weight, bias, threshold = (np.array(values) for values in ([1.0, 2.0, -1.0], [0.0, 0.5, 0.1], [0.0, -1.0, 0.3]))
    with torch.no_grad():
        for parameter, values in ((norm.weight, weight), (norm.bias, bias), (norm.threshold, threshold)):
            parameter.copy_(torch.from_numpy(values))
    nu = (x**2).mean(axis=(2, 3), keepdims=True)
    shape = (1, 3, 1, 1)
    expected = weight.reshape(shape) * x / np.sqrt(nu + 1e-4) + bias.reshape(shape)
    expected = np.maximum(expected, threshold.reshape(shape))
    np.testing.assert_allclose(norm(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-12)
