"""A study file and the study, settings and conditions' trees that it becomes."""

from benchkit.study.origin import Origin, SourceClaim, StatedSetting
from benchkit.study.study import (
    Factor,
    Goal,
    Level,
    Published,
    PublishedRow,
    ReportSettings,
    Search,
    SearchRange,
    Study,
    Tree,
)

__all__ = [
    "Factor",
    "Goal",
    "Level",
    "Origin",
    "Published",
    "PublishedRow",
    "ReportSettings",
    "Search",
    "SearchRange",
    "SourceClaim",
    "StatedSetting",
    "Study",
    "Tree",
]
