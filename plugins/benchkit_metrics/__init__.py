"""The metrics that a study may ask for, each by its entry point in the group `benchkit.metrics`."""
