"""compare: which of two runs is better, on data that it finds by itself."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lookonce import evaluate
from lookonce.cli import main
from lookonce.commands.compare import RunComparison, common_labels, compare
from lookonce.errors import UserError
from lookonce.evaluation.compare import Change
from lookonce.model.model_file import load_model, save_model


@pytest.fixture(scope="module")
def worse(run, tmp_path_factory):
    """A copy of the run whose last layer is damaged."""
    import torch

    folder = tmp_path_factory.mktemp("worse") / "worse"
    shutil.copytree(run, folder)
    model = load_model(folder)
    with torch.no_grad():
        list(model.network.parameters())[-2].mul_(0.3)
    save_model(model, folder / "model.safetensors")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 60", "epochs: 7"))
    return folder


@pytest.fixture(scope="module")
def done(run, worse, squares, tmp_path_factory):
    page = tmp_path_factory.mktemp("page") / "c.html"
    return compare(worse, run, squares, split="all", bootstrap=50, backend="torch", report=page)


def test_both_are_scored_as_evaluate_scores_them(done, run, worse, squares):
    scores = [evaluate(one, squares, split="all", bootstrap=0, backend="torch") for one in (worse, run)]
    mean, *classes = done.changes
    assert (mean.before, mean.after) == tuple(score.mean_ap for score in scores)
    for change, one, other in zip(classes, *(score.metrics.classes for score in scores), strict=True):
        assert (change.name, change.before, change.after) == (one.name, one.ap, other.ap)
    assert mean.difference > 0.05
    assert mean.interval[0] <= mean.difference <= mean.interval[1]
    assert done.verdict.startswith(f"B is better: mAP {mean.before:.3f} -> {mean.after:.3f} (+")


def test_the_printed_table_fits_80_columns(done):
    many = tuple(Change("a class of a very long name, number " + str(n), 0.5, 0.25, (-0.5, -0.125)) for n in range(50))
    wide = RunComparison("a", "b", "data", "test", 8, (done.changes[0], *many), done.page, "torch")
    for line in str(wide).splitlines():
        assert len(line) <= 80, line
    assert "and 30 classes that differ less" in " ".join(str(wide).split())
    assert "-0.250" in str(wide)


def test_the_page_shows_images_classes_curves_and_settings_that_differ(done):
    text = done.page.read_text(encoding="utf-8")
    for said in ("B is better", "Classes", "Settings that differ", 'scope="row" class="nowrap">epochs</th><td>7</td>',
                 "Validation mAP@0.5", "A worse", "A: F1", "B: F1", "40 images of squares"):  # fmt: skip
        assert said in text, said
    assert text.count("<script") == 1


def test_the_data_is_found_in_the_runs_and_the_page_is_numbered(run, worse, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["compare", str(worse), str(run), "--bootstrap", "5", "--backend", "torch"]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert Path(said["data"]).name == "squares"  # of the process that trained the run
    assert said["images"] == 8
    assert main(words) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "compare-worse-squares-1-2.html",
        "compare-worse-squares-1.html",
    ]


def test_a_run_that_equals_the_other_is_not_better(run, squares, tmp_path):
    done = compare(run, run, squares, bootstrap=20, backend="torch", report=tmp_path / "c.html")
    assert done.verdict.startswith("No clear difference")
    text = done.page.read_text(encoding="utf-8")
    assert "Settings that differ" not in text
    assert "is better" not in text


def test_runs_of_different_data_ask_for_the_data(run, worse, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(worse, other)
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("squares", "circles"))
    with pytest.raises(UserError, match=r"was trained on .*squares, .* on .*circles; name the images to compare on: "
                                        r"lookonce compare .* DATA"):  # fmt: skip
        compare(run, other)
    with pytest.raises(UserError, match=r"nosuch: no such run"):
        compare(run, tmp_path / "nosuch")
    with pytest.raises(UserError, match=r"has no config\.yaml"):
        compare(run / "model.safetensors", run)
    for file in (run, other):
        shutil.copytree(file, tmp_path / "moved" / file.name)
        text = (tmp_path / "moved" / file.name / "config.yaml").read_text()
        changed = "\n".join("data: /nowhere" if line.startswith("data:") else line for line in text.splitlines())
        (tmp_path / "moved" / file.name / "config.yaml").write_text(changed)
    with pytest.raises(UserError, match=r"/nowhere: the data of both runs is not there"):
        compare(tmp_path / "moved" / run.name, tmp_path / "moved" / "other")


def test_an_existing_page_and_other_endings_are_refused(run, squares, tmp_path):
    (tmp_path / "c.html").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        compare(run, run, squares, report=tmp_path / "c.html")
    with pytest.raises(UserError, match=r"ends in \.html"):
        compare(run, run, squares, report=tmp_path / "c.pdf")
    with pytest.raises(UserError, match="bootstrap: 0"):
        compare(run, run, squares, bootstrap=0)
    assert (tmp_path / "c.html").read_text() == "mine"


def test_runs_of_other_classes_are_compared_on_those_that_both_know(caplog):
    runs = Path("a"), Path("b")
    known = [SimpleNamespace(labels=("cat", "dog", "cow")), SimpleNamespace(labels=("dog", "bird", "cat"))]
    assert common_labels(runs, known) == ("cat", "dog")
    assert "only one of the two knows cow, bird; compared on the other 2" in caplog.text
    with pytest.raises(UserError, match=r"a and b have no class in common: the first knows cat, .* the second fish"):
        common_labels(runs, [known[0], SimpleNamespace(labels=("fish",))])
