"""A headless Chromium, driven through its DevTools protocol over a pipe: no driver and no library is needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",  # as root, in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
TIMEOUT_SECONDS = 30.0


class Browser:
    """One Chromium with one page.

    Args:
        profile: an empty folder for its profile.
    """

    def __init__(self, profile: Path) -> None:
        program = shutil.which("chromium")
        if program is None:
            pytest.skip("Debian's package chromium is not installed")
        from_test, self._to_browser = os.pipe()
        self._from_browser, to_test = os.pipe()
        wired = f'exec "$0" "$@" 3<&{from_test} 4>&{to_test}'  # the descriptors that --remote-debugging-pipe uses
        self._process = subprocess.Popen(
            ["bash", "-c", wired, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(from_test, to_test),
            stderr=subprocess.DEVNULL,
        )
        os.close(from_test)
        os.close(to_test)
        self._number, self._received, self._session = 0, b"", ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to_browser)
        os.close(self._from_browser)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come in between are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(
        self, page: Path, *, fragment: str = "", width: int = 1280, height: int = 800, script: bool = True
    ) -> None:
        """Load a page from disk again, at a width in CSS pixels, with or without JavaScript."""
        self._load("about:blank")
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._load(page.absolute().as_uri() + fragment)

    def _load(self, address: str) -> None:
        """Navigate and wait for the end of it: the next navigation would cancel this one, or hang."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        while not any(event["method"] == "Page.frameStoppedLoading" for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.02)

    def press(self, key: str, *, shift: bool = False, control: bool = False) -> None:
        """Press and release a key, by the name that JavaScript has for it: `n`, `ArrowLeft`."""
        modifiers = 8 * shift + 2 * control
        text = {"text": key} if len(key) == 1 and not control else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, modifiers=modifiers, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, modifiers=modifiers)

    def drag(self, start: tuple[float, float], stop: tuple[float, float] | None = None) -> None:
        """Press the mouse at a place of the window, in CSS pixels, and release it there or at another."""
        pointer = {"button": "left", "clickCount": 1}
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", stop or start), ("mouseReleased", stop or start)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, buttons=int(kind != "mouseReleased"), **pointer)

    def screenshot(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def happened(self, method: str) -> list[dict[str, Any]]:
        """The events of one kind since the page was opened."""
        return [event["params"] for event in self.events if event["method"] == method]

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while b"\0" not in self._received:
            readable, _, _ = select.select([self._from_browser], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._from_browser, 2**20) if readable else b""
            assert chunk, "Chromium ended, or did not answer in time"
            self._received += chunk
        message, self._received = self._received.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer
