"""How a test puts one check to a plugin that is made to break it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from benchkit.testing import CheckFailure, checks


def failure_of(kind: str, plugin: Any, check: str, options: Mapping[str, Any] | None = None) -> CheckFailure:
    """Return how a plugin fails a check; fail the test when it passes."""
    found = dict(checks(kind, plugin, options=options))
    with pytest.raises(CheckFailure) as caught:
        found[check]()
    failure = caught.value
    assert failure.check == check and failure.given and failure.expected and failure.got and failure.likely
    assert str(failure).startswith(f"check {check!r} failed for the ")
    return failure
