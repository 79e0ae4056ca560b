"""A real browser for the pages: what it says of one."""

import base64
import hashlib
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
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
