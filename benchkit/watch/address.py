"""Where the live page listens, and how its address with the token reaches its user alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from benchkit.errors import BenchkitError
from benchkit.storage import cache_folder

PORT = 8765
"""The port that is taken where none is asked for and it is free."""


def listening_socket(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens at an address; without a port at `PORT`, or at any free one where that is taken.

    Raises `BenchkitError` where nothing can listen.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, PORT if port is None else port), family=family, backlog=128)
    except OSError as error:
        if port is None:
            return listening_socket(host, 0)
        raise BenchkitError(
            f"{host}:{port}: nothing can listen there: {error.strerror or error}",
            hint="choose another with --port, or --port 0 for any that is free",
        ) from error


def address_of(sock: socket.socket, host: str, token: str) -> str:
    """Return the address of the page that is served at a socket."""
    return f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}/?token={token}"


def file_of(sock: socket.socket) -> Path:
    """Return the file that tells the address of the page at a socket where no terminal can."""
    return cache_folder() / f"watch-{sock.getsockname()[1]}.txt"


def write_address(file: Path, address: str) -> None:
    """Write an address with its token into a file for the user's eyes alone."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(f"{address}\n")
