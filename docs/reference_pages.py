"""Pages of reference that are made from the code: keys of a study file, cards of plugins, commands, public names."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import benchkit
from benchkit.cli import main
from benchkit.cli.app import COMMANDS, load_command
from benchkit.frames.workspace import StudyFrames, Workspace, open_workspace
from benchkit.registry import Registry
from benchkit.registry.description import describe_all
from benchkit.registry.kinds import KIND_TABLE
from benchkit.registry.options import REQUIRED, Option
from benchkit.study.schema import study_schema


def write(folder: Path) -> None:
    """Write all pages into a folder, made anew."""
    folder.mkdir(exist_ok=True)
    pages = {
        "study-file.md": study_file(study_schema(Registry.installed())),
        "plugins.md": plugins(),
        "commands.md": commands(),
        "python.md": python(),
    }
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")


def cell(value: Any) -> str:
    """Return a value as a table's cell shows it."""
    return str(value).replace("|", "\\|").replace("\n", " ").strip()


def table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cell(item) for item in line) + " |" for line in lines) + "\n"


def type_of(schema: Mapping[str, Any]) -> str:
    """Return in words what a key's value is."""
    if "enum" in schema:
        names = [f"`{name}`" for name in schema["enum"]]
        return "one of " + ", ".join(names) if len(names) < 12 else "a name"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(type_of(inner) for inner in schema["anyOf"]))
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = "" if low is None else f", at least {low}" if high is None or high > 1e300 else f", {low} to {high}"
    kinds = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false",
             "array": "a list", "object": "a table"}  # fmt: skip
    return kinds.get(schema.get("type", ""), "any value") + bounds


def keys_of(schema: Mapping[str, Any], at: str) -> Iterator[tuple[str, ...]]:
    """Yield key, type, default and meaning of each key of a table, and of the tables inside it."""
    for name, inner in schema.get("properties", {}).items():
        default = f"`{inner['default']!r}`" if "default" in inner else ""
        yield f"`{at}{name}`", type_of(inner), default, inner.get("description", "")
        for table_ in (inner, *inner.get("anyOf", ())):
            yield from keys_of(table_, f"{at}{name}.")
        for listed in (inner.get("items"), inner.get("additionalProperties")):
            if isinstance(listed, dict) and "properties" in listed:
                yield from keys_of(listed, f"{at}{name}[].")


def study_file(schema: Mapping[str, Any]) -> str:
    """Return the page of all keys of a study file."""
    parts = [
        "# A study file, key by key\n\nMade from the schema that `benchkit studies schema` prints. Options of plugins "
        "stand with the [plugins](plugins.md).\n"
    ]
    heads = ("key", "value", "default", "meaning")
    first = {
        key: inner
        for key, inner in schema["properties"].items()
        if not [*keys_of({"properties": {key: inner}}, "")][1:]
    }
    parts.append("## First level\n\n" + table(heads, keys_of({"properties": first}, "")))
    for key, inner in schema["properties"].items():
        if key not in first:
            rows = [*keys_of(inner, ""), *keys_of(inner.get("items", {}), "")]
            parts.append(f"## [{key}]\n\n{inner['description']}\n\n" + table(heads, iter(rows)))
    return "\n".join(parts)


def plugins() -> str:
    """Return the page of the built-in plugins' cards and options, by kind."""
    registry = Registry.installed()
    parts = [
        "# Plugins and their options\n\nThose of benchkit itself; `benchkit plugins list` shows what else is there.\n"
    ]
    for kind, facts in KIND_TABLE.items():
        if kind == "studies":
            continue
        built_in = [entry for entry in registry.entries(kind) if entry.distribution == "benchkit"]
        parts.append(f"## {facts.word[0].upper()}{facts.word[1:]}\n\nHow it is used: {facts.use}.\n")
        for found in describe_all(built_in):
            reference = f" Reference: {found.reference}" if found.reference else ""
            parts.append(f"### {found.entry.name}\n\n{found.title}. {found.summary}{reference}\n")
            rows = ((f"`{one.name}`", one.expected, default_of(one), one.help) for one in found.options)
            if found.options:
                parts.append(table(("option", "value", "default", "meaning"), rows))
    return "\n".join(parts)


def default_of(option: Option) -> str:
    """Return an option's default as the page shows it."""
    return "required" if option.default is REQUIRED else f"`{option.default!r}`"


def commands() -> str:
    """Return the page of all commands with their help."""
    parts = ["# Commands\n"]
    for name in COMMANDS:
        for below in sorted(getattr(load_command(name), "commands", {})) or [""]:
            words = [name, *below.split()]
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                main([*words, "--help"])
            parts.append(f"## benchkit {' '.join(words)}\n\n```text\n{printed.getvalue().strip()}\n```\n")
    return "\n".join(parts)


def python() -> str:
    """Return the page of the public names with their signatures and docstrings."""
    parts = [
        "# Python\n\nFor notebooks: `benchkit.open` and what it returns. For plugins: what `benchkit.__all__` lists; "
        "`from benchkit import ...`.\n"
    ]
    notebooks = {"open": open_workspace, "Workspace": Workspace, "StudyFrames": StudyFrames}
    for name, thing in {**notebooks, **{name: getattr(benchkit, name) for name in sorted(benchkit.__all__)}}.items():
        inside = vars(thing).items() if inspect.isclass(thing) else ()
        own = [
            described(key, value)
            for key, value in inside
            if key == "__call__" or (not key.startswith("_") and inspect.getdoc(value))
        ]
        texts = "\n```\n\n```text\n".join([described(name, thing), *own])
        parts.append(f"## {name}\n\n```text\n{texts}\n```\n")
    return "\n".join(parts)


def described(name: str, thing: Any) -> str:
    """Return a name with its signature and docstring, a constant with its value."""
    if isinstance(thing, int):
        return f"{name} = {thing}"
    signature = ""
    if callable(thing) and not getattr(thing, "_is_protocol", False):
        with contextlib.suppress(TypeError, ValueError):
            signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(thing)))
    about = getattr(thing, "__doc__", None) if name == "__call__" else inspect.getdoc(thing)
    return f"{name}{signature}\n\n{about or ''}".strip()
