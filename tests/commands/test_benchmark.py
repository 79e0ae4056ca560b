"""The command as a user has it. No test depends on how fast anything is."""

import itertools
import json

import pytest
from PIL import Image

from lookonce.cli import main
from lookonce.commands import benchmark as benchmarking
from lookonce.commands.benchmark import benchmark
from lookonce.deploy import benchmark as measuring
from lookonce.deploy import step_speed as steps
from lookonce.deploy.benchmark import PLAIN, Candidate, Series, Took
from lookonce.deploy.peer import Peer, PeerComparison, Scored
from lookonce.errors import ConfigError, UserError
from lookonce.evaluation.compare import Comparison
from lookonce.model.model_file import load_model

WARM_UP = 2  # of the networks


def series_of(name, raised=None):
    """A series of one candidate that takes no time, or raises."""

    def run():
        if raised:
            raise raised
        return Took(0.5)

    return Series([Candidate(f"table of {name}", name, "m", "fp32", "cpu", 2, run)], 2)


@pytest.fixture
def small(monkeypatch):
    """Two rows alone, which are opened in no time, and no rest between runs."""
    monkeypatch.setattr(measuring, "missing", lambda _: "left out of this test")
    monkeypatch.setattr(measuring, "computes_bf16", lambda: False)
    monkeypatch.setattr(measuring, "REST", 0)
    monkeypatch.setattr(measuring, "products", lambda _: ())


@pytest.fixture
def model(run):
    return run / "model.safetensors"


def test_the_table_is_printed_and_says_what_was_left_out(small, run, capsys):
    assert main(["benchmark", str(run), "--rounds", "2", "--batch", "3", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    for part in ("threads: 1", "batch 1, cpu, 2 rounds", "batch 3, cpu, 2 rounds", "torch", PLAIN, "x plain PyTorch",
                 "onnxruntime: left out of this test", "give --images FOLDER"):  # fmt: skip
        assert part in said, part


def test_json_is_the_same_as_in_the_folder_beside_table_and_plot(small, model, tmp_path, capsys):
    words = ["benchmark", str(model), "--rounds", "2", "--batch", "2", "--json", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "speed.json").read_text())
    table = (tmp_path / "out" / "speed.txt").read_text()
    rows = [row for shown in printed["tables"] for row in shown["rows"]]
    assert len(rows) == 4
    for row in rows:
        assert f"{row['images_per_s']:.1f}" in table
        assert f"{row['median_ms']:.1f}" in table
    with Image.open(tmp_path / "out" / "speed.png") as image:
        assert image.format == "PNG"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["speed.json", "speed.png", "speed.txt"]


@pytest.mark.parametrize("words, message", [
    (["none.safetensors"], "none.safetensors: no such model file"),
    (["none.xml"], "none.xml: no such file"),
    (["MODEL", "--rounds", "0"], "rounds: 0; expected at least 1"),
    (["MODEL", "--threads", "0"], "threads: 0; expected at least 1"),
    (["MODEL", "--batch", "1"], "batch: 1; expected at least 2"),
    (["MODEL", "--images", "EMPTY"], "no images there"),
    ([], "MODELS is missing"),
])  # fmt: skip
def test_wrong_input_is_one_line_and_code_2(model, tmp_path, words, message, capsys):
    given = [{"MODEL": str(model), "EMPTY": str(tmp_path)}.get(word, word) for word in words]
    assert main(["benchmark", *given]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def stopping(monkeypatch, calls):
    """Ctrl-C comes in the run after so many."""
    numbers, real = itertools.count(1), measuring.timed

    def timed(run):
        def measured():
            if next(numbers) > calls:
                raise KeyboardInterrupt
            return real(run)()

        return measured

    monkeypatch.setattr(measuring, "timed", timed)


def test_ctrl_c_gives_what_was_measured_so_far(small, model, monkeypatch, capsys, tmp_path):
    stopping(monkeypatch, calls=4 * (WARM_UP + 3) + 1)  # in the fourth of nine rounds
    monkeypatch.setattr(steps, "step_series", lambda *_: pytest.fail("what comes after is not begun"))
    words = ["benchmark", str(model), "--rounds", "9", "--batch", "2", "--train", "--out", str(tmp_path)]
    assert main(words) == 130
    assert "stopped before the last round" in capsys.readouterr().out
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["stopped"]
    assert [(len(table["rows"]), table["rounds"]) for table in found["tables"]] == [(2, 3)] * 2


def test_ctrl_c_before_the_first_round_is_told(small, model, monkeypatch, capsys):
    stopping(monkeypatch, calls=4 * WARM_UP + 3)
    assert main(["benchmark", str(model), "--rounds", "9"]) == 130
    assert "nothing was measured" in capsys.readouterr().err


def test_files_and_training_are_measured_on_request(small, model, squares, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(benchmarking, "files_series", lambda *given: asked.append(given) or series_of("files"))
    monkeypatch.setattr(steps, "step_series", lambda *given: asked.append(given[2:5]) or series_of("steps"))
    found = benchmark([model], rounds=2, batch=2, threads=1, images=squares, train=True, out=tmp_path)
    (file, files, *numbers), of_steps = asked
    assert (file, len(files), numbers, of_steps) == (model, 40, [2, 1], (2, 2, 1))
    assert [table.heading for table in found.tables[2:]] == ["table of files", "table of steps"]
    assert not any("not measured" in note for note in found.notes)
    assert "table of files, 2 rounds" in (tmp_path / "speed.txt").read_text()


def test_what_has_no_training_steps_says_why(small, model, exported, monkeypatch):
    def refuse(*_):
        raise ConfigError("training takes square inputs")

    monkeypatch.setattr(measuring, "missing", lambda name: "left out" if name != "openvino" else None)
    monkeypatch.setattr(steps, "step_series", refuse)
    notes = benchmark([model, exported / "m.xml"], rounds=1, batch=2, train=True).notes
    assert f"{model}: no training steps: training takes square inputs" in notes
    assert f"{exported / 'm.xml'}: no training steps: this file is exported; give the model file too" in notes


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), UserError("the process failed")])
def test_what_ends_the_training_steps_keeps_the_networks(small, model, monkeypatch, raised):
    monkeypatch.setattr(steps, "step_series", lambda *_: series_of("steps", raised))
    found = benchmark([model], rounds=1, batch=2, train=True)
    assert [len(table.rows) for table in found.tables] == [2, 2]
    assert found.stopped == isinstance(raised, KeyboardInterrupt)
    assert found.stopped or f"{model}: no training steps: the process failed" in found.notes


def test_ctrl_c_while_images_are_written_keeps_the_networks(small, model, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "step_series", stop)
    found = benchmark([model], rounds=1, batch=2, train=True)
    assert found.stopped
    assert [len(table.rows) for table in found.tables] == [2, 2]


def test_a_result_replaces_nothing(run, tmp_path):
    (tmp_path / "speed.json").write_text("the user's")
    with pytest.raises(UserError, match=r"speed\.json: already exists; give another name, or --overwrite"):
        benchmark([run], out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["speed.json"]


def test_a_peer_is_compared_after_the_networks_for_the_minutes_of_the_run(small, run, monkeypatch):
    asked = []

    def compared(path, peer, took, folder):
        asked.append((path, peer, took, folder.is_dir()))
        return PeerComparison("d", "test", *[Scored("x", 1.0, 0.5, None, 0.3)] * 2, Comparison(0.5, 0.5, (0, 0), 8))

    monkeypatch.setattr(benchmarking, "read_peer", lambda text: f"{text}.yaml")
    monkeypatch.setattr(benchmarking, "compare_with_peer", compared)
    found = benchmark([run], rounds=1, batch=2, threads=1, compare="ultralytics")
    took = load_model(run).training["minutes"]
    assert took > 0
    assert asked == [(run / "model.safetensors", Peer("ultralytics.yaml", took, 96, 1), took, True)]
    assert "the run's mAP less the peer's: +0.000" in str(found)
    assert found.to_json()["peers"][0]["ours"]["mean_ap"] == 0.5
    benchmark([run], rounds=1, batch=2, threads=1, compare="ultralytics", minutes=7.0)
    assert asked[1][1].minutes == 7.0


@pytest.mark.parametrize("words, message", [
    (["--compare", "ultralytics"], "compare: ultralytics is not installed"),
    (["--compare", "darknet"], "compare: 'darknet'; expected ultralytics"),
    (["--minutes", "3"], "minutes: without --compare nothing is trained"),
])  # fmt: skip
def test_what_is_wrong_with_a_comparison_is_told_before_anything_is_measured(words, message, run, monkeypatch, capsys):
    monkeypatch.setattr(benchmarking, "network_series", lambda *_: pytest.fail("measured"))
    assert main(["benchmark", str(run), *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
