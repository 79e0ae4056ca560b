"""Tests of lookonce.commands.prune: from a run to a smaller one, as a user has it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lookonce import Detector, evaluate, export
from lookonce.cli import main
from lookonce.commands.prune import prune
from lookonce.data.formats.voc import write_annotation
from lookonce.deploy import prune as pruning
from lookonce.deploy.prune import Pruned, Round
from lookonce.evaluation.compare import Comparison
from lookonce.model.darknet.cfg import Cfg, read_cfg
from lookonce.model.layers import Conv
from lookonce.model.model_file import load_model, save_model
from lookonce.model.network import Network, folded
from lookonce.model.sizes import num_floats
from lookonce.training.config import RunConfig
from sets import nano, write_squares

ANCHORS = ((1.0, 1.0), (1.6, 1.6))


@pytest.fixture(scope="module")
def pruned(run, squares, tmp_path_factory):
    out = tmp_path_factory.mktemp("pruned")
    return prune(run, squares, ratio=0.4, steps=60, sparsity=1e-3, max_drop=0.2, out=out, name="less")


def gammas(folder):
    return torch.cat([norm.weight.abs() for norm in load_model(folder).network.norms()]).detach()


def test_a_training_with_a_penalty_comes_first_and_the_model_teaches(pruned, run):
    sparse = pruned.run.with_name("less-sparse")
    first, second = (RunConfig.from_yaml((folder / "config.yaml").read_bytes(), folder) for folder in
                     (sparse, pruned.run))  # fmt: skip
    assert (first.settings.sparsity, first.teacher) == (1e-3, None)
    assert (second.settings.sparsity, second.teacher) == (0.0, str(run))
    assert load_model(sparse).network.layers == load_model(run).network.layers
    assert gammas(sparse).mean() < gammas(run).mean()
    assert pruned.kept.before == load_model(run).network.layers


def test_a_model_trained_with_a_penalty_is_pruned_at_once(pruned, squares, tmp_path):
    sparse = pruned.run.with_name("less-sparse")
    prune(sparse, squares, ratio=0.3, steps=1, max_drop=0.9, teacher="none", out=tmp_path, name="a")
    assert [folder.name for folder in tmp_path.iterdir()] == ["a"]
    assert "teacher: null" in (tmp_path / "a" / "config.yaml").read_text()


def test_training_is_as_long_as_that_of_the_model(run, squares, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(pruning, "_train", lambda _, config, __: found.append(config.settings) or 1 / 0)
    for steps in (None, 7):
        with pytest.raises(ZeroDivisionError):
            prune(run, squares, steps=steps, out=tmp_path)
    assert [(how.steps, how.epochs, how.minutes) for how in found] == [(None, 60, None), (7, None, None)]


def test_the_result_is_a_run_like_any_other(pruned, run, squares, tmp_path):
    small, large = load_model(pruned.run), load_model(run)
    assert pruned.exit_code == 0
    assert num_floats(small.network.layers) < num_floats(large.network.layers)
    assert (small.labels, small.input_size, small.resize) == (large.labels, large.input_size, large.resize)
    assert [head.layer for head in small.heads] == [head.layer for head in large.heads]
    assert read_cfg((pruned.run / "network.cfg").read_text(), "x") == Cfg(small.network.layers, *small.input_size)
    assert Detector(pruned.run)(squares / "JPEGImages" / "val000.png").names
    files = export(pruned.run, "darknet", out=tmp_path / "less").files
    assert load_model(files[0]).network.layers == small.network.layers


def test_accuracy_is_measured_on_the_validation_images(pruned, run, squares):
    comparison = pruned.kept.comparison
    assert comparison.images == 8
    assert ", fp32, " in comparison.computed_by
    assert comparison.computed_by in str(pruned)
    assert comparison.before == pytest.approx(evaluate(run, squares, split="val").mean_ap, abs=0.01)
    assert comparison.after == pytest.approx(evaluate(pruned.run, squares, split="val").mean_ap, abs=0.01)


def test_layers_keep_what_the_table_says(pruned):
    filters = [layer.filters for layer in load_model(pruned.run).network.layers if isinstance(layer, Conv)]
    assert [after for _, _, after in pruned.kept.channels] == filters
    assert [before for _, before, _ in pruned.kept.channels][:6] == [8, 16, 16, 32, 32, 48]
    assert all(number % 8 == 0 for number in filters[:-1])
    said = str(pruned)
    for layer, before, after in pruned.kept.channels:
        assert any(line.split()[:4] == [f"{layer}:", "channels", str(before), str(after)] for line in said.splitlines())
    for part in ("million parameters", "GFLOP an image", "mAP 0.", "kept: "):
        assert part in said
    with Image.open(pruned.run / "channels.png") as image:
        assert image.format == "PNG"


def test_training_starts_from_the_whole_cut_network(run, squares, tmp_path):
    """With a rate of next to nothing the run ends as it began: the last layer too was taken."""
    less = prune(run, squares, ratio=0.2, steps=1, sparsity=0, max_drop=0.9, out=tmp_path, name="a").rounds[0].run
    start, end = load_model(less / "pruned.safetensors").network, load_model(less).network
    last = [network.convolution_list()[-1].conv for network in (start, end)]
    torch.testing.assert_close(last[1].weight, last[0].weight, atol=0.05, rtol=0)
    torch.testing.assert_close(last[1].bias, last[0].bias, atol=0.05, rtol=0)


def test_rounds_go_on_until_too_much_is_lost(run, squares, tmp_path, monkeypatch):
    drops = iter([0.0, 0.005, 0.02])
    monkeypatch.setattr(pruning, "compare_detections", lambda *_: Comparison(0.9, 0.9 - next(drops), (0.0, 0.1), 8))
    found = prune(run, squares, ratio=0.8, rounds=4, steps=1, sparsity=0, out=tmp_path)
    assert [one.run.name for one in found.rounds] == [f"{run.name}-pruned-{n}" for n in (1, 2, 3)]
    assert found.run.name == f"{run.name}-pruned-2"
    sizes = [num_floats(one.after) for one in found.rounds]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2]


def test_a_first_round_that_loses_too_much_is_exit_code_1():
    layers = nano(2, ANCHORS)
    lost = Round(torch.__path__[0], layers, layers, (96, 96), Comparison(0.9, 0.8, (0.05, 0.15), 8))
    found = Pruned((lost,), 0.01)
    assert (found.exit_code, found.run) == (1, None)
    assert "lost more than 0.01; give a smaller --ratio" in str(found)
    assert Pruned((lost,), 0.2).exit_code == 0


@pytest.fixture
def wrong(run, tmp_path):
    """What a command line may name."""
    model = load_model(run)
    save_model(replace(model, loaded=folded(model.network)), tmp_path / "folded.safetensors")
    save_model(replace(model, labels=("cat", "dog")), tmp_path / "cats.safetensors")
    save_model(replace(model, input_size=(96, 128)), tmp_path / "oblong.safetensors")
    save_model(replace(model, loaded=Network(nano(2, ANCHORS))), tmp_path / "other.safetensors")
    (tmp_path / "runs" / "there" / "checkpoints").mkdir(parents=True)
    (tmp_path / "m.onnx").write_bytes(b"x")
    write_squares(tmp_path / "without", {"train": 8})
    empty = write_squares(tmp_path / "empty", {"train": 8, "val": 2})
    for stem in ("val000", "val001"):
        write_annotation(empty / "Annotations" / f"{stem}.xml", f"{stem}.png", (96, 96), np.zeros((0, 4)), [])
    return tmp_path


@pytest.mark.parametrize("words, message", [
    (["RUN", "DATA", "--ratio", "0"], "ratio: 0.0; expected above 0 and below 1"),
    (["RUN", "DATA", "--ratio", "30"], "ratio: 30.0; expected above 0 and below 1"),
    (["RUN", "DATA", "--rounds", "0"], "rounds: 0; expected at least 1"),
    (["RUN", "DATA", "--steps", "0"], "steps: 0; expected at least 1"),
    (["RUN", "DATA", "--sparsity", "-1"], "sparsity: -1.0; expected at least 0"),
    (["RUN", "DATA", "--teacher", "HERE/other.safetensors"], "other heads than the network"),
    (["RUN", "DATA", "--teacher", "nothing"], "no such file or run folder, and no published model"),
    (["RUN", "DATA", "--max-drop", "1"], "max-drop: 1.0; expected at least 0"),
    (["HERE/folded.safetensors", "DATA"], "nothing to prune"),
    (["HERE/m.onnx", "DATA"], "m.onnx: is an exported file; give the model file"),
    (["HERE/cats.safetensors", "DATA"], "labels: no object is a 'cat'"),
    (["HERE/oblong.safetensors", "DATA"], "input 96 x 128"),
    (["HERE/none.safetensors", "DATA"], "no such model file"),
    (["RUN", "HERE/without"], "split 'val'"),
    (["RUN", "HERE/empty"], "no objects on the images of its split 'val'"),
    (["RUN", "DATA", "--name", "there"], "there: holds a run already; give another --name"),
])  # fmt: skip
def test_wrong_input_is_one_line_and_code_2(words, message, wrong, run, squares, capsys):
    known = {"RUN": str(run), "DATA": str(squares)}
    given = [known.get(word, word.replace("HERE", str(wrong))) for word in words]
    assert main(["prune", *given, "--out", str(wrong / "runs")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert sum(line.startswith("lookonce: ") for line in said) == len(said)
