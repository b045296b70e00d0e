"""The built-in trackers, each behind an extra of its own."""
