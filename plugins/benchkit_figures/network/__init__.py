"""Figures of what finished networks compute inside, on a few test images."""
