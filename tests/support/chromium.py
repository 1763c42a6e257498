"""A headless Chromium that tests drive by its debugging protocol (CDP), with a microphone that plays a file."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps",
    "--disable-domain-reliability", "--no-proxy-server", "--remote-debugging-port=0",
)  # fmt: skip
STARTED_WITHIN_S = 30.0
POLL_S = 0.1


def find_chromium() -> str | None:
    """The program, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One browser with one tab; a context manager that ends it.

    `requests` has the address of every request of the page, `problems` its console errors and exceptions.

    Args:
        folder: for its profile; it must not have one yet.
        microphone: WAV file that the microphone plays once; None: no microphone.
        extra: further flags.
    """

    def __init__(self, folder: Path, microphone: Path | None = None, extra: Sequence[str] = ()) -> None:
        program = find_chromium()
        assert program is not None
        flags = [*FLAGS, f"--user-data-dir={folder}", *extra]
        if microphone is not None:
            flags += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
                      f"--use-file-for-fake-audio-capture={microphone}%noloop"]  # fmt: skip
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._number = 0
        self._process = subprocess.Popen(
            [program, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            port = self._port(folder / "DevToolsActivePort")
            with httpx.Client(trust_env=False) as client:
                targets = client.get(f"http://127.0.0.1:{port}/json/list").json()
            page = next(target for target in targets if target["type"] == "page")
            self._socket = connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None)
            for domain in ("Page", "Network", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self._process.kill()
            raise

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(timeout=10)

    def call(self, method: str, timeout_s: float = 30.0, **params: Any) -> dict[str, Any]:
        """Send one command and return its result; events that arrive before are kept."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        end = time.monotonic() + timeout_s
        while True:
            message = json.loads(self._socket.recv(timeout=max(0.0, end - time.monotonic())))
            if message.get("id") != self._number:
                self._keep(message)
                continue
            if "error" in message:
                raise RuntimeError(f"{method}: {message['error']}")
            result: dict[str, Any] = message["result"]
            return result

    def open(self, address: str, width: int = 1280, height: int = 900) -> None:
        """Load a page in a window of this size."""
        self.resize(width, height)
        self.call("Page.navigate", url=address)

    def resize(self, width: int, height: int = 900) -> None:
        """Give the page another size; below 600 pixels it is that of a phone."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, script: str, timeout_s: float = 30.0) -> Any:
        """Return the value of an expression once it is true."""
        end = time.monotonic() + timeout_s
        while not (value := self.evaluate(script)):
            if time.monotonic() > end:
                shown = self.evaluate("document.body.innerText")
                raise TimeoutError(f"not true after {timeout_s:g} s: {script}\n{shown}")
            time.sleep(POLL_S)
        return value

    def press(self, selector: str) -> None:
        """Click on an element that is or becomes visible."""
        self.wait_for(f"!!document.querySelector({selector!r})?.offsetParent")
        self.evaluate(f"document.querySelector({selector!r}).click()")

    def screenshot(self, path: Path) -> None:
        """Write a picture (PNG) of the whole page."""
        content = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(content))

    def _port(self, file: Path) -> str:
        end = time.monotonic() + STARTED_WITHIN_S
        while not file.exists() or not file.read_text().strip():
            if time.monotonic() > end or self._process.poll() is not None:
                raise TimeoutError("Chromium did not start")
            time.sleep(POLL_S)
        return file.read_text().splitlines()[0]

    def _keep(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.problems.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.problems.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
