"""Tests of lookonce.commands.serve: its options, and a server in a process of its own."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
import httpx

from lookonce import Detector
from lookonce.cli import main
from lookonce.commands import serve as module
from lookonce.commands.serve import Served, _checked_token, _named
from lookonce.errors import ConfigError
from lookonce.server.connections import listen
from served import serving


@pytest.mark.parametrize("words, message", [
    (["--host", "0.0.0.0"], "host: 0.0.0.0 can be reached from other machines; set a token (--token, or"),
    (["--token", "short"], "token: expected at least 8 characters of ASCII without spaces"),
    (["--token", "long enough"], "token: expected at least 8 characters"),
    (["--token", "12345678", "--no-token"], "no-token: a token is given as well"),
    (["--batch", "0"], "batch: 0; expected 1 to 1,024"),
    (["--label-studio", "localhost:8080"], "label-studio: 'localhost:8080'; expected an address"),
    (["--port", "99999"], "cannot be used"),
])  # fmt: skip
def test_wrong_options_are_one_line(words, message, exported, capsys, monkeypatch):
    monkeypatch.delenv("LOOKONCE_TOKEN", raising=False)
    assert main(["serve", str(exported / "m.xml"), *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_one_line(exported, capsys):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(exported / "m.xml"), "--port", str(port)]) == 2
    assert f"lookonce: port: {port} on 127.0.0.1 is taken by another program" in capsys.readouterr().err


def test_a_missing_package_is_named(exported, capsys, monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("no_such_package",))
    assert main(["serve", str(exported / "m.xml")]) == 2
    assert "serve: no_such_package is not installed; run: pip install 'lookonce[serve]'" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_one_line(capsys):
    assert main(["serve", "cells=runs/none/model.safetensors"]) == 2
    assert "no such model file" in capsys.readouterr().err


def test_models_have_the_names_of_their_files_or_given_ones(run, exported):
    xml = exported / "m.xml"
    assert list(_named([str(run)])) == ["squares-1"]
    assert _named([xml, f"parts={xml}"]) == {"m": xml, "parts": xml}
    with pytest.raises(ConfigError, match="model: two have the name 'm'"):
        _named([xml, xml])


def test_the_token_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("LOOKONCE_TOKEN", "12345678")
    assert _checked_token("0.0.0.0", None, False) == "12345678"
    monkeypatch.delenv("LOOKONCE_TOKEN")
    assert _checked_token("127.0.0.1", None, False) is None
    assert _checked_token("0.0.0.0", None, True) is None


def test_the_result_is_what_was_answered():
    assert str(Served(1, 2)) == "stopped after 1 request and 2 images"
    assert Served(1, 2).to_json() == {"requests": 1, "images": 2}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a program can handle")
def test_a_server_starts_answers_and_ends_with_code_0(exported, squares):
    words = [sys.executable, "-m", "lookonce", "serve", f"cells={exported / 'm.xml'}", "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stderr.readline, "")
            url = next(found[0] for line in lines if (found := re.search(r"http://[\d.]+:\d+", line)))
            file = squares / "JPEGImages" / "test000.png"
            answer = httpx.post(f"{url}/v1/detect", content=file.read_bytes()).json()
            assert answer["model"] == "cells"
            assert answer["images"][0]["detections"] == Detector(exported / "m.xml")(file).to_json()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert process.stdout.read() == "stopped after 1 request and 1 image\n"
        finally:
            process.kill()


def test_detect_takes_the_address_of_a_server(run, squares, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = str(squares / "JPEGImages")
    with serving({"m": lambda: Detector(run, throughput=True)}) as running:
        words = ["--save", "yolo", "csv", "--threshold", ".05"]
        assert main(["detect", running.url, images, "--out", "there", *words]) == 0
        assert main(["detect", str(run), images, "--out", "here", *words]) == 0
        there, here = Path("there"), Path("here")
        assert sorted(p.relative_to(there) for p in there.rglob("*")) == sorted(
            p.relative_to(here) for p in here.rglob("*")
        )
        for file in here.rglob("*"):
            if file.is_file() and file.name != "detections.json":
                assert file.read_bytes() == (there / file.relative_to(here)).read_bytes()
        texts = [(each / "detections.json").read_text() for each in (there, here)]
        assert texts[0].partition('"images"')[2] == texts[1].partition('"images"')[2]
        assert f'"model": "{running.url}/v1/models/m"' in texts[0]
        capsys.readouterr()
        assert main(["detect", running.url, images, "--out", "other", "--backend", "torch"]) == 2
        assert "those of the server; leave them out" in capsys.readouterr().err
