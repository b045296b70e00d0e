"""From a study to conditions and trials, with fingerprints and checks."""

from benchkit.plan.plan import (
    PHASES,
    Condition,
    ConditionKind,
    Phase,
    Plan,
    confirm_condition,
    make_plan,
    typed_settings,
)

__all__ = ["PHASES", "Condition", "ConditionKind", "Phase", "Plan", "confirm_condition", "make_plan", "typed_settings"]
