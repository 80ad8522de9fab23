"""Headless Chromium for tests: opens a page of the disk, and keeps account of all that goes wrong in it.

It speaks the DevTools protocol over a pipe (--remote-debugging-pipe): JSON objects, each ended by NUL, on the browser's
file descriptors 3 and 4. No port is opened, no package is needed, and every wait ends.
https://chromedevtools.github.io/devtools-protocol/
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",  # root, as in most containers, may not use it; the pages are the tests' own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-quic",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--no-first-run",
    "--no-default-browser-check",
    "--password-store=basic",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # what a page asks for is recorded, and leaves the machine in no case
    "--remote-debugging-pipe",
)
# preexec_fn forks Python itself, which is unsafe beside threads; this stands in its place: `shim READ WRITE PROGRAM …`.
SHIM = """\
import os, sys
reading, writing = (os.dup(int(word)) for word in sys.argv[1:3])
reading, writing = (os.dup(place) if place < 5 else place for place in (reading, writing))
os.dup2(reading, 3)
os.dup2(writing, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
SECONDS = 20.0
KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36,
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}  # fmt: skip
MARKS = {"Enter": "\r", " ": " "}  # the text that a key writes


class BrowserError(Exception):
    """The browser did not do as it was told, or not in time."""


class Browser:
    """A browser of its own, with a profile of its own that goes when it is closed."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        reading, self._to = os.pipe()
        self._from, writing = os.pipe()
        words = [program, *OPTIONS, f"--user-data-dir={self._profile.name}", "about:blank"]
        with open(Path(self._profile.name) / "stderr.txt", "wb") as said:  # noqa: PTH123
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", SHIM, str(reading), str(writing), *words],
                pass_fds=(reading, writing),
                env=os.environ | {"XDG_CONFIG_HOME": self._profile.name},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # so that all it starts can be ended with it
            )
        os.close(reading)
        os.close(writing)
        os.set_blocking(self._from, False)
        self._number = 0
        self._received = b""
        self._pages: dict[str, Page] = {}

    def open(
        self, path: Path, *, width: int = 1400, height: int = 900, scheme: Literal["light", "dark"] = "light"
    ) -> "Page":
        """Open a file at a window's size and colour scheme, and wait until it is loaded."""
        # In a window of its own: a tab behind another one is not drawn.
        target = self.call("Target.createTarget", {"url": "about:blank", "newWindow": True})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session, target, path.absolute().as_uri(), scheme)
        page._load(width, height)
        return page

    def call(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> dict[str, Any]:
        """Send one command and return its result; events that arrive meanwhile go to their pages."""
        number = self.send(method, parameters, session)
        deadline = time.monotonic() + SECONDS
        while True:
            message = self._receive(deadline, method)
            if message.get("id") == number:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']['message']}")
                result: dict[str, Any] = message["result"]
                return result

    def send(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> int:
        """Send one command, without a wait for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters or {}}
        text = json.dumps(message | ({"sessionId": session} if session else {}))
        try:
            os.write(self._to, text.encode() + b"\0")
        except BrokenPipeError:
            raise BrowserError(f"the browser has ended: {self._said()}") from None
        return self._number

    def listen(self, seconds: float = 0.0) -> None:
        """Take in the events that have arrived, or arrive within these seconds."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while True:
                self._receive(deadline, "listen", TimeoutError)

    def close(self) -> None:
        """End the browser and all that it started; nothing of it stays."""
        with contextlib.suppress(BrowserError):
            self.send("Browser.close")
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            os.close(self._to)
            os.close(self._from)
            self._profile.cleanup()

    def _receive(self, deadline: float, what: str, late: type[Exception] = BrowserError) -> dict[str, Any]:
        """The next message; an event has been given to its page."""
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise late(f"{what}: no answer in time; {self._said()}")
            part = os.read(self._from, 1 << 20)
            if not part:
                raise BrowserError(f"the browser has ended: {self._said()}")
            self._received += part
        text, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if (page := self._pages.get(message.get("sessionId", ""))) is not None and "method" in message:
            page._note(message["method"], message["params"])
        return message

    def _said(self) -> str:
        """The last that it wrote to its terminal."""
        return (Path(self._profile.name) / "stderr.txt").read_text(errors="replace")[-1000:]


class Page:
    """An open page.

    errors     errors and warnings of the console, uncaught exceptions, entries of the log, dialogs: a text each
    requests   addresses of all that was asked for, but for the file itself and data: and blob:
    """

    def __init__(self, browser: Browser, session: str, target: str, address: str, scheme: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self._scheme, self._loaded = scheme, False
        self.address = address
        self.errors: list[str] = []
        self.requests: list[str] = []

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, a promise awaited; raises BrowserError where it throws."""
        options = {"expression": script, "awaitPromise": True, "returnByValue": True}
        result = self._call("Runtime.evaluate", options)
        if "exceptionDetails" in result:
            raise BrowserError(_exception(result["exceptionDetails"]))
        return result["result"].get("value")

    def wait_for(self, script: str, seconds: float = SECONDS) -> Any:
        """The value of the expression as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            if time.monotonic() > deadline:
                raise BrowserError(f"not within {seconds:g} seconds: {script}; errors: {self.errors}")
            self._browser.listen(0.02)
        return value

    def settle(self) -> None:
        """Wait until what has been asked for is drawn."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
        self._browser.listen()

    def focus(self, selector: str) -> None:
        """Put the keyboard's focus on an element."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")

    def press(self, *keys: str) -> None:
        """Press and release keys, one after the other: "ArrowRight", "Home", "Tab", …"""
        for key in keys:
            event = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
            text = {"text": MARKS[key]} if key in MARKS else {}
            self._call("Input.dispatchKeyEvent", {"type": "keyDown" if text else "rawKeyDown", **event, **text})
            self._call("Input.dispatchKeyEvent", {"type": "keyUp", **event})
        self.settle()

    def click(self, selector: str) -> None:
        """Click into the middle of an element, as a mouse does."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.evaluate(f"(box => [box.x + box.width / 2, box.y + box.height / 2])({box})")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            event = {"type": kind, "x": x, "y": y, "button": "none" if kind == "mouseMoved" else "left"}
            self._call("Input.dispatchMouseEvent", {**event, "clickCount": 0 if kind == "mouseMoved" else 1})
        self.settle()

    def resize(self, width: int, height: int = 900) -> None:
        """Give the window another size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", metrics)

    def show_as(self, *, scheme: Literal["light", "dark"] | None = None, media: Literal["", "print"] = "") -> None:
        """Change the colour scheme, or show the page as it is printed."""
        self._scheme = scheme or self._scheme
        features = [{"name": "prefers-color-scheme", "value": self._scheme}]
        self._call("Emulation.setEmulatedMedia", {"media": media, "features": features})
        self.settle()

    def close(self) -> None:
        """Close the page; what was noted of it stays."""
        self._browser.call("Target.closeTarget", {"targetId": self._target})

    def _call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._browser.call(method, parameters, self._session)

    def _load(self, width: int, height: int) -> None:
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setFocusEmulationEnabled", {"enabled": True})
        self.resize(width, height)
        features = [{"name": "prefers-color-scheme", "value": self._scheme}]
        self._call("Emulation.setEmulatedMedia", {"media": "", "features": features})
        if text := self._call("Page.navigate", {"url": self.address}).get("errorText"):
            raise BrowserError(f"{self.address}: {text}")
        deadline = time.monotonic() + SECONDS
        while not self._loaded:
            self._browser._receive(deadline, f"{self.address} is not loaded")
        self.settle()

    def _note(self, event: str, details: dict[str, Any]) -> None:
        """Keep account of one event."""
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(part.get("value", part.get("description"))) for part in details["args"]))
        elif event == "Runtime.exceptionThrown":
            self.errors.append(_exception(details["exceptionDetails"]))
        elif event == "Log.entryAdded":
            self.errors.append(details["entry"]["text"])
        elif event == "Page.javascriptDialogOpening":
            self.errors.append(f"dialog: {details['message']}")
            self._browser.send("Page.handleJavaScriptDialog", {"accept": False}, self._session)
        elif event in ("Network.requestWillBeSent", "Network.webSocketCreated"):
            address = details["url"] if "url" in details else details["request"]["url"]
            if address.partition("#")[0] != self.address and not address.startswith(("data:", "blob:")):
                self.requests.append(address)


def _exception(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])


@contextlib.contextmanager
def started_browser() -> Iterator[Browser]:
    """A browser that is closed at the end, for a fixture of one file's tests; skips them where there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no browser ({', '.join(PROGRAMS)}); on Debian and Ubuntu: apt-get install chromium")
    browser = Browser(program)
    try:
        yield browser
    finally:
        browser.close()
