"""Figures of what conditions reached and what that cost."""
