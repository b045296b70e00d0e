"""Figures of a search: its trials, the settings that mattered, and what it spent."""
