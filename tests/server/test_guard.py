"""Tests of lookonce.server.guard."""

import base64

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
import httpx

from lookonce import Detector
from lookonce.server.guard import OPEN, is_loopback
from served import serving

TOKEN = "correct-horse"


@pytest.fixture(scope="module")
def closed(detector):
    with serving({"m": lambda: Detector(detector.backend)}, token=TOKEN) as running:
        yield running


def basic(password):
    return "Basic " + base64.b64encode(f"user:{password}".encode()).decode()


@pytest.mark.parametrize("shown, status", [
    (f"Bearer {TOKEN}", 200), (f"bearer {TOKEN}", 200), (basic(TOKEN), 200), (None, 401), ("Bearer wrong", 401),
    (f"Bearer {TOKEN}x", 401), (TOKEN, 401), (basic("wrong"), 401), ("Basic !!!", 401), ("", 401),
    ("Digest " + TOKEN, 401),
])  # fmt: skip
def test_a_token_is_asked_for(shown, status, closed):
    headers = {} if shown is None else {"Authorization": shown}
    answer = httpx.get(f"{closed.url}/v1/models", headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.json()["error"] == "unauthorized"
        assert TOKEN not in answer.text
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/detect", "/metrics", "/v2", "/v2/models/m/infer", "/predict",
                                  "/setup", "/v1/models/m/reload", "/nothing"])  # fmt: skip
def test_everything_but_the_page_and_health_needs_the_token(path, closed):
    assert httpx.post(closed.url + path).status_code == 401
    assert httpx.get(closed.url + path).status_code == 401


def test_the_page_and_health_need_no_token(closed):
    assert {httpx.get(closed.url + path).status_code for path in OPEN} == {200}


@pytest.mark.parametrize("host, status", [
    ("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("app.localhost", 200), ("evil.example", 403),
    ("127.0.0.1.evil.example:80", 403), ("localhost.evil.example", 403),
])  # fmt: skip
def test_without_a_token_the_server_answers_to_no_name_that_a_name_server_could_give_it(host, status, server):
    assert httpx.get(f"{server.url}/v1/models", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:1"])
def test_without_a_token_pages_of_other_sites_are_refused(origin, server, files):
    content = files[0].read_bytes()
    answer = httpx.post(f"{server.url}/v1/detect", content=content, headers={"Origin": origin})
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
    own = httpx.post(f"{server.url}/v1/detect", content=content, headers={"Origin": server.url})
    assert own.status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1/models", "/nothing", "/docs", "/metrics"])
def test_every_answer_has_the_headers_of_safety(path, http):
    answer = http.get(path)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers
    assert "server" not in answer.headers
    assert http.options(path, headers={"Access-Control-Request-Method": "POST"}).status_code in (404, 405)


def test_addresses_of_this_machine():
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.com", "")))
