"""Figures of which classes are recognised and which are mistaken for others."""
