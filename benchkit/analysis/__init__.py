"""From trials to numbers: estimates, comparisons and findings as pure functions."""
