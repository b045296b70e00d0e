"""Who may see the live page: Host, method and token are held to their rules on every route."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_pages import LivePage, live_page
from tiny_study import FACTOR, command, environment, finish_all, queue_of, study_of

from benchkit.errors import BenchkitError
from benchkit.ledger import read_results
from benchkit.results import Outcome
from benchkit.storage import cache_folder
from benchkit.watch.access import access_to, host_name, token_of
from benchkit.watch.live_sections import LogBlock, failures_section, log_text
from benchkit.watch.rendering import assets

ROUTES = [
    "/",
    "/?study=tiny",
    "/events?study=tiny",
    "/log?study=tiny&trial=x",
    f"/{assets()['style'].name}",
    "/nowhere",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivePage]:
    workspace = tmp_path_factory.mktemp("runs")
    ledger, plan, _ = queue_of(workspace, study_of(FACTOR))
    finish_all(ledger, plan)
    with live_page(workspace, allowed=["Hub.Example"]) as found:
        yield found


@pytest.mark.parametrize("route", ROUTES)
def test_a_foreign_name_is_refused_on_every_route(page: LivePage, route: str) -> None:
    for host in ("evil.example", f"evil.example:{page.port}", "localhost.evil.example", "127.0.0.1.evil.example",
                 "10.0.0.7", "", "localhost:x", "[::1", "a b"):  # fmt: skip
        for method in ("GET", "POST", "DELETE"):
            status, _, text = page.ask(route, page.headers(Host=host), method)
            assert 400 <= status < 500 and "tiny" not in text, (host, method, status)


def test_names_of_this_machine_and_allowed_ones_are_let_in(page: LivePage) -> None:
    for host in ("localhost", f"localhost:{page.port}", f"127.0.0.1:{page.port}", f"[::1]:{page.port}", "LOCALHOST:1",
                 "hub.example", "hub.example:443"):  # fmt: skip
        assert page.ask("/?study=tiny", page.headers(Host=host))[0] == 200, host


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading_is_known(page: LivePage, method: str) -> None:
    assert {page.ask(route, method=method)[0] for route in ROUTES} == {405}


@pytest.mark.parametrize("route", ROUTES)
def test_without_the_token_nothing_is_shown_on_loopback_either(page: LivePage, route: str) -> None:
    other = "0" * 64
    for headers in ({}, {"Cookie": f"{page.access.cookie}={other}"}, {"Cookie": "\x01"}, {"Cookie": "a=b"}):
        status, _, text = page.ask(route, headers)
        assert status == 403 and "tiny" not in text
    joined = "&" if "?" in route else "?"
    assert page.ask(f"{route}{joined}token={other}", {})[0] == 403


def test_the_first_visit_puts_the_token_into_a_cookie_and_out_of_the_address(page: LivePage) -> None:
    status, headers, _ = page.ask(f"/?token={page.access.token}&study=a%20b", {})
    cookie = headers["Set-Cookie"]
    assert (status, headers["Location"]) == (303, "./?study=a+b")
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path" not in cookie
    assert page.access.token not in headers["Location"]
    own = cookie.partition(";")[0]
    for cookies in (own, f'other={{"a": 1}}; {own}', f"a[b]=c d; {own}; e"):  # all ports of a machine share them
        assert page.ask("/?study=tiny", {"Cookie": cookies})[0] == 200


def test_every_answer_has_the_policy_and_no_address_is_absolute(page: LivePage) -> None:
    for route in ROUTES[:2] + ROUTES[3:]:
        policy = page.ask(route)[1]["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy and "script-src 'self';" in policy
    text = page.page()
    assert 'href="/' not in text and 'src="/' not in text and "http" not in text.replace("http-equiv", "")
    with page.stream() as stream:
        head = stream.socket.recv(4096).decode()
    assert "x-accel-buffering: no" in head and "no-cache" in head and "content-encoding" not in head
    assert page.ask("/nowhere")[1]["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "asked",
    ["../../etc/passwd", "%2e%2e%2fledger.db", "%252e%252e%252fledger.db", "/etc/passwd", "x%00", "", "..", "log.txt"],
)
def test_what_is_asked_for_is_looked_up_and_is_never_a_path(page: LivePage, asked: str) -> None:
    page.page()
    for route in (f"/log?study=tiny&trial={asked}", f"/log?study={asked}&trial=x", f"/events?study={asked}x",
                  f"/?study={asked}x", f"/{asked or 'x'}"):  # fmt: skip
        assert page.ask(route)[0] == 404, route


def test_a_log_is_plain_text_and_never_one_outside_the_workspace(page: LivePage, tmp_path: Path) -> None:
    page.page()
    watched = page.watch.study("tiny")
    assert watched is not None
    name, folder = next(iter(watched.shown.logs.items()))
    route = f"/log?study=tiny&trial={name}"
    assert page.ask(route)[0] == 404  # it printed nothing
    (folder / "log.txt").write_text("<script>line</script>\n")
    status, headers, text = page.ask(route)
    assert (status, text) == (200, "<script>line</script>\n")
    assert headers["Content-Type"].startswith("text/plain") and headers["X-Content-Type-Options"] == "nosniff"
    (folder / "log.txt").unlink()
    secret = tmp_path / "log.txt"
    secret.write_text("secret")
    (folder / "log.txt").symlink_to(secret)
    assert page.ask(route)[0] == 404
    (folder / "log.txt").unlink()
    (tmp_path / "folder").symlink_to(tmp_path)
    assert log_text(tmp_path / "folder", page.watch.workspace) is None


def test_the_end_of_a_failed_trials_log_is_none_of_another_folders(tmp_path: Path) -> None:
    _, _, queue = queue_of(tmp_path / "runs", study_of(FACTOR))
    claim = queue.next()
    assert claim is not None and claim.finish(Outcome(state="failed", reason="x"))

    def shown() -> list[str]:
        section = failures_section(read_results(tmp_path / "runs"))
        assert section is not None
        return [block.text for block in section.blocks if isinstance(block, LogBlock)]

    claim.folder.log.write_text("its last words\n")
    assert shown() == ["its last words"]
    secret = tmp_path / "secret.txt"
    secret.write_text("another's\n")
    claim.folder.log.unlink()
    claim.folder.log.symlink_to(secret)
    assert shown() == []


def test_names_in_host_headers() -> None:
    assert [host_name(host) for host in ("A.b:80", "[::1]:8", "[::1]", "h.", "::1", "a:b", "a@b", "", "a/b")] == [
        "a.b", "::1", "::1", "h", None, None, None, None, None,
    ]  # fmt: skip


def test_an_address_in_numbers_is_known_where_others_may_come(tmp_path: Path) -> None:
    here, elsewhere = access_to(tmp_path, "127.0.0.1", ()), access_to(tmp_path, "0.0.0.0", ())
    assert here.refusal("GET", "192.0.2.7:80") and not elsewhere.refusal("GET", "192.0.2.7:80")
    assert elsewhere.refusal("GET", "evil.example")


def test_the_token_stays_the_same_and_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path))
    assert token_of("a") == token_of("a") != token_of("b")
    key = cache_folder() / "watch.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(0o644)
    with pytest.raises(BenchkitError, match="not yours alone"):
        token_of("a")
    key.unlink()
    assert token_of("a")


def test_where_the_output_is_no_terminal_the_address_is_in_a_file_of_ones_own(tmp_path: Path) -> None:
    ledger, plan, _ = queue_of(tmp_path / "runs", study_of(FACTOR))
    finish_all(ledger, plan)
    ours = {**environment(), "BENCHKIT_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(
        command("watch", "--workspace", tmp_path / "runs", "--port", "0"), env=ours, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        words = process.stderr.readline()
        file = Path(words.strip().rpartition(" ")[2])
        try:
            assert "token" not in words and "token=" in file.read_text()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600 and file.stat().st_uid == os.getuid()
        finally:
            process.terminate()
            process.wait(60)
    assert not file.exists()
