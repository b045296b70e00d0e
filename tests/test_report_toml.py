"""The resolved study as TOML: what is written is read back equal."""

from __future__ import annotations

import tomllib

from benchkit.storage import to_toml


def test_nested_tables_come_back_equal() -> None:
    table = {
        "seed": 7,
        "rate": 1e-05,
        "on": True,
        "text": 'a "quoted" \\ line\nand another\x7f',
        "list": [1, 2.5, "three"],
        "data": {"options": {}, "plugin": {"name": "digits"}, "odd key": 1, "odd\x7f": {"\x7f": [{"\x7f": 2}, 3]}},
        "regularizers": [{"id": "a", "plugin": {"name": "dropout", "options": {"rate": 0.1}}}, {"id": "b"}],
        "mixed": [[1, 2], [{"x": 1}]],
    }
    assert tomllib.loads(to_toml(table)) == table


def test_none_is_left_out() -> None:
    assert tomllib.loads(to_toml({"a": None, "b": {"c": None}})) == {"b": {}}
