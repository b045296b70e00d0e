"""Figures of what happens epoch by epoch."""
