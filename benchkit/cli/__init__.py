"""The command line: each command parses, calls one function and prints."""

from benchkit.cli.app import main

__all__ = ["main"]
