"""The losses that come with benchkit, each by its entry point in the group `benchkit.losses`."""
