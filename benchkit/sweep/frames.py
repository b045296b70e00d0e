"""Frames: what a sweep and its workers pass to each other, one line of JSON each and, where it says so, bytes after it.

A line that has the key `bytes` is followed by so many raw bytes. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any


def frame(table: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """Return the frame of a JSON object, with the bytes that belong to it."""
    told = {**table, "bytes": len(payload)} if payload else table
    return json.dumps(told).encode() + b"\n" + payload


def parted(whole: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the JSON object of a frame and its bytes; raise `ValueError` for what is none."""
    line, _, payload = whole.partition(b"\n")
    return json.loads(line), payload


def frames(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the frames of a stream to its end; one that was cut off there, as by a kill, is left out."""
    while (line := stream.readline()).endswith(b"\n"):
        length = json.loads(line).get("bytes", 0) if b'"bytes"' in line else 0
        payload = stream.read(length)
        if len(payload) < length:
            return
        yield line + payload
