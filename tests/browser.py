"""A real browser for the pages: what it says of one."""

import base64
import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import time

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
needs_tab = pytest.mark.skipif(not CHROMIUM or os.name == "nt", reason="there is no Chromium with pipes here")
ITSELF = "not an origin"
"""Who asks for what the browser fetches of its own accord; a page in a file is the origin null."""


def allow(file, text, script):
    """Write a page with a script behind its own, which its policy would not let run: what a hand would do."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    file.write_text(text.replace("</body>", f"<script>{script}</script></body>", 1), encoding="utf-8")


def opened(page, folder, at=""):
    """(the page's text, errors on its console, requests it made) in Chromium.

    page: a file; folder: for its profile; at: the part of its address behind #.
    """
    log = folder / "net.json"
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
             "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}",
             f"--log-net-log={log}", page.as_uri() + at]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    shutil.rmtree(folder / "profile", ignore_errors=True)
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    askers = re.findall(r'"initiator":"([^"]*)"', log.read_text(encoding="utf-8", errors="replace"))
    return done.stdout, errors, [asker for asker in askers if asker != ITSELF]


class Tab:
    """A page that a test uses as a person would: over Chromium's debugging pipe, which needs no package.

    Source: chromedevtools.github.io/devtools-protocol. Messages are JSON, each ends with a zero byte.
    """

    def __init__(self, folder, *words):
        ours, theirs = os.pipe(), os.pipe()  # what we write, what it writes
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
                   "--disable-background-networking", "--remote-debugging-pipe", "--use-fake-device-for-media-stream",
                   "--use-fake-ui-for-media-stream", f"--user-data-dir={folder / 'tab'}", *words]  # fmt: skip
        script = f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}'  # Chromium reads 3 and writes 4
        self._process = subprocess.Popen(["bash", "-c", script, "chromium", *command], pass_fds=(ours[0], theirs[1]),
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        os.close(ours[0])
        os.close(theirs[1])
        self._out, self._in = ours[1], theirs[0]
        self._number, self._left, self._session = 0, b"", None
        self.errors, self.requests = [], []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def send(self, method, **parameters):
        """The result of a command. Events that come before it are looked at."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self):
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._in], [], [], 60)
            assert ready, "the browser says nothing"
            part = os.read(self._in, 1 << 16)
            assert part, "the browser has ended"
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        found = json.loads(message)
        given = found.get("params", {})
        if found.get("method") == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif found.get("method") == "Runtime.exceptionThrown":
            self.errors.append(given["exceptionDetails"])
        elif found.get("method") == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.errors.append(given["entry"]["text"])
        elif found.get("method") == "Runtime.consoleAPICalled" and given["type"] in ("error", "assert"):
            self.errors.append(given["args"])
        return found

    def go(self, url):
        """Open an address and wait until it is loaded. Errors and requests of the page before are forgotten."""
        self.send("Page.navigate", url="about:blank")  # which ends what the page before still waits for
        self.until("location.href === 'about:blank'")
        self.errors.clear()
        self.requests.clear()
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script):
        """The value of an expression; a promise is awaited."""
        found = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, condition, seconds=20):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never: {condition}"
            time.sleep(0.03)

    def key(self, name, code=None):
        """Press a key."""
        text = {"text": name} if len(name) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=name, code=code or name, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=name, code=code or name)

    def click(self, selector):
        """Click the middle of an element."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _middle(self, selector):
        script = """(() => { const e = document.querySelector(%r); e.scrollIntoView({block: "nearest"});
            const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"""
        return self.run(script % selector)

    def drop(self, files, selector="#stage"):
        """Drop files on an element."""
        x, y = self._middle(selector)
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def size(self, width, height, dark=False):
        """Set the size of the window, and whether the system is dark."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, file, whole=False):
        """Write a screenshot as PNG. whole: of the whole page."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(found["data"]))

    def downloads(self, folder):
        """Let downloads come into a folder."""
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
