"""The kit as pytest parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchkit.testing.check import CheckFailure
from benchkit.testing.kit import Plugin, checks, known_ids

if TYPE_CHECKING:
    import pytest


def parametrize_checks(
    kind: str,
    plugin: Plugin,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    seed: int = 0,
) -> pytest.MarkDecorator:
    """Return a pytest decorator that gives a test its argument `check`, once for each check of a plugin.

        @parametrize_checks("norms", "pixel")
        def test_kit(check):
            check()

    `plugin`, `options` and `seed` are those of `benchkit.testing.checks`. `expected_failures` maps the ids of checks
    that are known to fail to the reason: such a test counts as xfailed, and fails when the check passes. Checks that
    need CUDA carry the marker `gpu` and are skipped without it. Raises `PluginError` at collection as `checks` does.
    """
    import pytest

    stated = dict(expected_failures or {})
    known_ids(kind, stated)
    parameters = []
    for id, check in checks(kind, plugin, options=options, seed=seed):
        marks = [pytest.mark.gpu, pytest.mark.skipif(not _has_cuda(), reason="needs CUDA")] if check.rule.gpu else []
        if id in stated:
            marks.append(pytest.mark.xfail(raises=CheckFailure, strict=True, reason=stated[id]))
        parameters.append(pytest.param(check, id=id, marks=marks))
    return pytest.mark.parametrize("check", parameters)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
