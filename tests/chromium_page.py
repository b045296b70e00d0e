"""Chromium driven over its own pipe (Chrome DevTools Protocol, no driver, no socket), for the browser tests."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


class PageLeft(AssertionError):
    """What was asked of a page has no answer: the browser has left it for another one."""


class Page:
    """One page of a fresh browser; as a context manager it ends the browser.

    `console` holds error messages and uncaught exceptions, `requests` every address that the page asked for.
    """

    def __init__(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        assert CHROMIUM, "Chromium is not installed"
        self._size, self._dark = (width, height), dark
        self._profile = tempfile.mkdtemp(prefix="benchkit-chromium-")
        self._buffer, self._last, self._session = b"", 0, ""
        self.console: list[str] = []
        self.requests: list[str] = []
        self._process, self._write, self._read = self._start(CHROMIUM)

    def _start(self, chromium: str) -> tuple[subprocess.Popen[bytes], int, int]:
        """Start the browser, which reads commands from descriptor 3 and writes answers to descriptor 4."""
        to_browser, write = os.pipe()
        read, from_browser = os.pipe()
        high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 10) for one in (to_browser, from_browser)]
        process = subprocess.Popen(
            [chromium, *FLAGS, f"--user-data-dir={self._profile}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,  # Python's own descriptors are closed anyway, and 3 and 4 must stay open
            preexec_fn=lambda: [os.dup2(one, place) for place, one in zip((3, 4), high, strict=True)] and None,
        )
        for one in (to_browser, from_browser, *high):
            os.close(one)
        return process, write, read

    def __enter__(self) -> Page:
        try:
            self._prepare()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _prepare(self) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if self._dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.resize(*self._size)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result, keeping the events that come meanwhile."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(60.0)
            if answer.get("id") == self._last:
                if "error" in answer:
                    left = "navigated or closed" in answer["error"]["message"]
                    raise (PageLeft if left else AssertionError)(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def another(self) -> Tab:
        """Open another page in the same browser; what the console says there stands in this page's."""
        return Tab(self)

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file and wait until it has loaded; `fragment` is appended to its address."""
        self.send("Page.navigate", url=path.resolve().as_uri() + fragment)
        self.wait_for("document.readyState === 'complete'")

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; promises are awaited."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 60.0) -> None:
        """Wait until an expression is true, on this page or on one that it leads to meanwhile."""
        end = time.monotonic() + seconds
        while not self._is_true(condition):
            assert time.monotonic() < end, f"still false after {seconds} s: {condition}"
            time.sleep(0.1)

    def _is_true(self, condition: str) -> bool:
        try:
            return bool(self.run(f"Boolean({condition})"))
        except PageLeft:
            return False

    def draw(self, pause: float = 0.03) -> None:
        """Wait until the page was drawn once more, and a pause; where it is not drawn by itself, a picture is taken."""
        told = f"requestAnimationFrame(() => setTimeout(() => {{ globalThis.wasDrawn = true; }}, {1000 * pause}))"
        self.run(f"globalThis.wasDrawn = false, {told}, true")
        began = time.monotonic()
        while not self.run("globalThis.wasDrawn"):
            passed = time.monotonic() - began
            assert passed < 60.0, "Chromium draws nothing"
            if passed > 1.0:
                self.send("Page.captureScreenshot", format="png")
            time.sleep(0.01)

    def press(self, key: str) -> None:
        """Press and release a key: Tab, Enter or Escape."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the viewport in CSS pixels."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def screenshot(self, path: Path) -> None:
        """Save what the viewport shows as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def _receive(self, seconds: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], seconds)
            assert ready, "Chromium does not answer"
            part = os.read(self._read, 1 << 16)
            assert part, "Chromium has ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.console.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.console.append(str([argument.get("value", argument) for argument in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.console.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


class Tab(Page):
    """Another page of a browser that a `Page` has started."""

    def __init__(self, browser: Page) -> None:
        self._browser = browser
        own, browser._session = browser._session, ""
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser._session = own
        for domain in ("Page", "Runtime"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command to this page."""
        own, self._browser._session = self._browser._session, self._session
        try:
            return self._browser.send(method, **params)
        finally:
            self._browser._session = own
