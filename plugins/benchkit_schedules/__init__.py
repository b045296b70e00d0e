"""The schedules that come with benchkit as plugins, each by its entry point in the group `benchkit.schedules`."""
