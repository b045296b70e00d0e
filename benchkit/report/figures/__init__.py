"""Figures: plugins drawn as charts, their style, their data, and the process that draws them."""
