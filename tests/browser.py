"""A real browser without a window: Debian's chromium, spoken to over a pipe in the DevTools protocol.

No driver and no library is needed for that: with --remote-debugging-pipe it reads commands on descriptor 3 and
writes answers and events on 4, each a JSON object with a zero byte behind it.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 120  # seconds for an answer: the machine may be busy


@dataclass
class Tab:
    """A page that is open."""

    browser: "Browser"
    session: str
    requests: list[str] = field(default_factory=list)
    """Addresses that it asked for, its own first; those it was refused are in `complaints`."""
    complaints: list[str] = field(default_factory=list)
    """What would be in the console: errors, refusals by the content security policy."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    def value(self, expression: str) -> Any:
        """A JavaScript expression's value, as JSON can carry it. A page's policy forbids its scripts, not this."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key, pressed and released; `code` is its Windows virtual-key code."""
        text = {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            parameters = {"key": key, "windowsVirtualKeyCode": code, **(text if kind == "keyDown" else {})}
            self.call("Input.dispatchKeyEvent", type=kind, **parameters)

    def click(self, selector: str) -> None:
        """With the mouse, at the middle of an element: what is hidden or covered is not clicked."""
        element = f"document.querySelector({json.dumps(selector)})"
        x, y = self.value(
            f"{element}.scrollIntoView({{block: 'center'}}), (r => [r.x + r.width / 2, r.y + r.height / 2])"
            f"({element}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self) -> bytes:
        """A PNG of what is seen."""
        return b64decode(self.call("Page.captureScreenshot")["data"])


class Browser:
    def __init__(self, to: int, back: int) -> None:
        self.to, self.back = to, back
        self.number, self.unread = 0, b""
        self.tabs: dict[str, Tab] = {}
        self.loaded: set[str] = set()

    def open(
        self, address: str, width: int = 1280, height: int = 900, dark: bool = False, phone: bool = False
    ) -> Tab:
        """Open a page and wait until it is loaded; sizes in CSS pixels."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self.tabs[session] = Tab(self, session)
        for domain in ("Page", "Network", "Log", "Runtime"):
            tab.call(f"{domain}.enable")
        tab.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        self.loaded.discard(session)
        tab.call("Page.navigate", url=address)
        end = time.monotonic() + PATIENCE
        while session not in self.loaded:
            self._hear(self._message(end))
        return tab

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to a command; events before it are noted."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": parameters}
        data = json.dumps(command | ({"sessionId": session} if session else {})).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data) :]
        end = time.monotonic() + PATIENCE
        while (message := self._message(end)).get("id") != self.number:
            self._hear(message)
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def _message(self, end: float) -> dict[str, Any]:
        while b"\0" not in self.unread:
            if not select.select([self.back], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"chromium said nothing for {PATIENCE} s")
            if not (data := os.read(self.back, 2**20)):
                raise EOFError("chromium is gone")
            self.unread += data
        message, _, self.unread = self.unread.partition(b"\0")
        return json.loads(message)

    def _hear(self, event: dict[str, Any]) -> None:
        tab = self.tabs.get(event.get("sessionId", ""))
        if tab is None:
            return
        match event["method"]:
            case "Page.loadEventFired":
                self.loaded.add(tab.session)
            case "Network.requestWillBeSent":
                tab.requests.append(event["params"]["request"]["url"])
            case "Log.entryAdded":
                tab.complaints.append(event["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                tab.complaints.append(event["params"]["exceptionDetails"]["text"])


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in `folder`. Skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium (Debian's package `chromium`)")
    there, to = os.pipe()
    back, here = os.pipe()
    command = [program, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    with (folder / "log").open("wb") as log:
        # A shell, for it can put descriptors where they are wanted without code between fork and exec.
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{there} 4>&{here}', "chromium", *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(there, here), start_new_session=True,
            env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
    for descriptor in (there, here):
        os.close(descriptor)
    try:
        yield Browser(to, back)
    finally:
        # its group: it is several processes. It also ends by itself when nobody holds the pipe any more.
        for descriptor in (to, back):
            os.close(descriptor)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
