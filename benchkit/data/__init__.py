"""Data sets on disk: unpacked, decoded, written as a whole, described by a manifest."""
