"""A real browser for the pages: what it says of one."""

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


def opened(page, folder):
    """(the page's text, errors on its console, requests it made) in Chromium. page: a file; folder: for its profile."""
    log = folder / "net.json"
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
             "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}",
             f"--log-net-log={log}", page.as_uri()]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    shutil.rmtree(folder / "profile", ignore_errors=True)
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    askers = re.findall(r'"initiator":"([^"]*)"', log.read_text(encoding="utf-8", errors="replace"))
    return done.stdout, errors, [asker for asker in askers if asker != ITSELF]
