"""Plugins: found by entry point, described without importing, loaded when named."""

from benchkit.registry.registry import Registry

__all__ = ["Registry"]
