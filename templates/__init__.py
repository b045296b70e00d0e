"""The page, print and scaffold templates of benchkit, as package data."""
