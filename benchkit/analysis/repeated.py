"""Images that several splits of a data set have: what an accuracy on them says nothing about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchkit.analysis.wording import Finding, quoted
from benchkit.results import StudyResults


def repeated_in(results: StudyResults) -> dict[str, int]:
    """Return by data set how many images of val and test an earlier split has, too, where its preparation found any."""
    sets = results.data.get("sets") or (results.data,)
    return {str(one.get("name", "")): int(one["repeated"]) for one in sets if one.get("repeated")}


def repeated_findings(repeated: Mapping[str, int]) -> Sequence[Finding]:
    """Say of each data set how many images several of its splits have."""
    return [
        Finding(
            rule="repeated-images",
            tone="warning",
            sentence=f"{number:,} val or test {'image' if number == 1 else 'images'} of {quoted(name)} "
            f"{'is' if number == 1 else 'are'} also in an earlier split, pixel for pixel.",
            evidence="A model may know such an image by heart: its score there is none on new images.",
            about=(),
        )
        for name, number in repeated.items()
    ]
