"""The engine: one trial from data and settings to epoch records."""
