"""Where the live page listens, and who may see it: those who know its token, and none but readers.

A token is needed on this machine, too: a login node has other users. Host headers are held to a list, since a page from
elsewhere may give a name of its own to this address and then read everything.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchkit.errors import BenchkitError
from benchkit.storage import cache_folder

HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
METHODS = frozenset({"GET", "HEAD"})

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What every answer carries, unless it says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The token, the name of its cookie, and the names by which the server may be called (`any_number`: or numbers)."""

    token: str
    cookie: str
    names: frozenset[str]
    any_number: bool

    def refusal(self, method: str, host: str) -> tuple[int, str] | None:
        """Return the status and the reason why a request is refused whoever asks, None where it is not."""
        name = host_name(host)
        if name is None or not (name in self.names or (self.any_number and is_number(name))):
            return 400, "This address is not known here: benchkit watch --allow-host NAME lets a proxy's name in."
        return None if method in METHODS else (405, "This page can only be read.")

    def knows(self, token: str) -> bool:
        """Return whether somebody has the token."""
        return hmac.compare_digest(token.encode(), self.token.encode())


def access_to(workspace: Path, host: str, allowed: Iterable[str]) -> Access:
    """Return who may see the page of a workspace that is served at the address `host`, and under `allowed` names."""
    place = str(workspace.resolve())
    names = {*LOOPBACK, host.lower().strip("[]"), *(name.lower().strip("[]") for name in allowed)}
    elsewhere = host not in LOOPBACK
    if elsewhere:
        names.add(socket.gethostname().lower())
    return Access(
        token=token_of(place),
        cookie=f"benchkit-{hashlib.sha256(place.encode()).hexdigest()[:12]}",
        names=frozenset(names),
        any_number=elsewhere,
    )


def host_name(host: str) -> str | None:
    """Return the name in a Host header, without its port and in small letters, None where it has none."""
    found = HOST.fullmatch(host)
    return found[1].lower().strip("[]").removesuffix(".") if found else None


def is_number(name: str) -> bool:
    """Return whether a name is an address in numbers, which no name server can turn to another machine."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def token_of(place: str) -> str:
    """Return the token of a workspace: the same each time, so that open pages outlive a restart of the server.

    It derives from a secret of the user's, made when absent; raises `BenchkitError` where that can be neither read nor
    made, or others may read it.
    """
    file = cache_folder() / "watch.key"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        made = file.with_name(f".{secrets.token_hex(8)}.part")
        if not file.exists():
            with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                out.write(secrets.token_bytes(32))
            try:
                os.link(made, file)
            except FileExistsError:
                pass
            finally:
                made.unlink()
        facts, key = file.stat(), file.read_bytes()
    except OSError as error:
        raise BenchkitError(
            f"{file}: the secret behind the page's address cannot be kept: {error.strerror}",
            hint="name a folder of yours in BENCHKIT_CACHE",
        ) from error
    if facts.st_mode & 0o077 or facts.st_uid != os.getuid() or len(key) != 32:
        raise BenchkitError(
            f"{file}: the secret behind the page's address is not yours alone", hint="remove the file; it is made anew"
        )
    return hmac.new(key, place.encode(), hashlib.sha256).hexdigest()


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
