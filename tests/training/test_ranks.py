"""Tests of lookonce.training.ranks. Oracle of a training with several processes: the same training with one."""

import csv
import os
import subprocess
import sys
import threading

import pytest

from lookonce import train
from lookonce.errors import ConfigError, UserError
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.training.ranks import ALONE, Ranks, planned, surrounding
from sets import nano

SETTINGS = {"size": 64, "epochs": 2, "batch_size": 5, "anchors": 0, "weights": "none", "recipe": "quick",
            "precision": "fp32", "keep_checkpoints": True, "augment": {"mosaic": 0.6}}  # fmt: skip
OUTSIDE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def cfg(tmp_path):
    """A small network in a file: other processes do not have what a test adds to the zoo."""
    (tmp_path / "small.cfg").write_text(write_cfg(Cfg(nano(2, ((0.6, 0.6), (1.2, 1.2))), 64, 64)))
    return tmp_path / "small.cfg"


@pytest.fixture
def environment(monkeypatch):
    """Set variables of the environment; all others of torchrun and SLURM are absent."""
    for name in [*OUTSIDE, *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.setenv(name, "")  # so that it is as before afterwards, also if what is tested sets it
        monkeypatch.delenv(name)
    return lambda **values: [monkeypatch.setenv(name, str(value)) for name, value in values.items()]


def rows(run, column):
    with (run / "metrics.csv").open() as file:
        return {row["step"]: float(row[column]) for row in csv.DictReader(file) if row[column]}


def test_alone_every_agreement_is_ones_own_value():
    assert ALONE.sum([1, 2]) == [1, 2]
    assert ALONE.highest([3]) == [3]
    assert ALONE.from_first("a") == "a"
    assert ALONE.gathered("a") == ["a"]


def test_torchrun_and_slurm_say_who_a_process_is(environment):
    assert surrounding() == ALONE
    environment(RANK=5, WORLD_SIZE=8, LOCAL_RANK=1, LOCAL_WORLD_SIZE=4)
    found = surrounding()
    assert found == Ranks(5, 8, 1, 4, started=True)
    assert (found.node, found.nodes, found.is_first) == (1, 2, False)


def test_slurms_tasks_are_named_to_torch_as_by_torchrun(environment):
    environment(SLURM_PROCID=3, SLURM_STEP_NUM_TASKS=4, SLURM_LOCALID=1, SLURM_STEP_NUM_NODES=2,
                SLURM_STEP_NODELIST="gpu[07-08]", SLURM_JOB_ID=42)  # fmt: skip
    assert surrounding() == Ranks(3, 4, 1, 2, started=True)
    assert [os.environ[name] for name in OUTSIDE] == ["3", "4", "1", "2", "gpu07", "15042"]


def test_a_script_of_sbatch_outside_srun_is_one_process(environment):
    environment(SLURM_PROCID=0, SLURM_NTASKS=4, SLURM_LOCALID=0)
    assert surrounding() == ALONE


@pytest.mark.parametrize("devices, nodes, device, around, message", [
    (0, None, "cpu", {}, "devices: 0; expected 1 to 1024"),
    (None, 0, "cpu", {}, "nodes: 0; expected 1 to 1024"),
    (None, 2, "cpu", {}, "nodes: 2; the machines have to be started together"),
    (2, None, "cuda:1", {}, "device: cuda:1 is one device"),
    (99, None, "cuda", {}, "devices: 99; PyTorch .* finds"),
    (3, None, "cpu", {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2},
     "devices: 3, but torchrun or SLURM started 2 processes"),
    (None, None, "cpu", {"SLURM_PROCID": 0, "SLURM_STEP_NUM_TASKS": 3, "SLURM_LOCALID": 0, "SLURM_STEP_NUM_NODES": 2},
     "SLURM runs 3 tasks on 2 machines"),
])  # fmt: skip
def test_what_would_wait_forever_is_refused(devices, nodes, device, around, message, environment):
    environment(**around)
    with pytest.raises(ConfigError, match=message):
        planned(devices, nodes, device)


def test_a_training_without_these_options_is_one_process(environment):
    environment()
    assert planned(None, None, "auto") == ALONE
    assert planned(2, None, "cpu") == Ranks(size=2, local_size=2)


def test_two_processes_compute_what_one_does_and_another_number_goes_on(squares, cfg, tmp_path, monkeypatch):
    """24 images in batches of 5: the last batch has 4. Mosaics take images of both. Batch norm in evaluation."""
    monkeypatch.setattr("lookonce.training.step.LOG_EVERY", 1)
    given = {**SETTINGS, "network": cfg, "out": tmp_path, "freeze": "all_but_last"}
    one = train(squares, name="one", **given)
    two = train(squares, name="two", devices=2, **given)
    for column in ("loss_step", "class_step", "seen", "loss_epoch", "val/loss"):
        expected = rows(one, column)
        assert len(expected) >= (10 if column.endswith("_step") else 2)
        assert rows(two, column) == pytest.approx(expected, rel=1e-5)
    config = two / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 3"))
    train(resume=two, devices=1)
    assert rows(two, "seen")["14"] == 3 * 24


def test_batch_norm_takes_the_statistics_of_all_processes(squares, cfg, tmp_path, monkeypatch):
    """The first step is that of one process; then Adam enlarges differences in the last digits of small gradients."""
    monkeypatch.setattr("lookonce.training.step.LOG_EVERY", 1)
    given = {**SETTINGS, "network": cfg, "out": tmp_path, "epochs": None, "steps": 3, "val_split": "none"}
    one, two, apart = (rows(train(squares, name=name, **given, **more), "loss_step") for name, more in
                       (("one", {}), ("two", {"devices": 2}),
                        ("apart", {"devices": 2, "sync_batch_norm": "never"})))  # fmt: skip
    assert two["0"] == pytest.approx(one["0"], rel=1e-5)
    assert two == pytest.approx(one, rel=2e-3)
    assert apart["0"] != pytest.approx(one["0"], rel=1e-4)


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_when_one_process_is_lost_all_end_with_its_name_and_a_checkpoint(squares, cfg, tmp_path, monkeypatch):
    started, stop, popen = [], threading.Event(), subprocess.Popen

    def starting(words, **given):
        started.append(popen(words, **given))
        return started[-1]

    def kill():
        """Kill the other process as soon as a step was logged."""
        run = tmp_path / "lost"
        while not stop.wait(0.1):
            if (run / "metrics.csv").is_file() and rows(run, "seen"):
                started[0].kill()
                return

    monkeypatch.setattr("lookonce.training.ranks.subprocess.Popen", starting)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(UserError, match=r"process 2 of 2 .*signal 9 killed it; continue with") as lost:
            train(squares, name="lost", devices=2, network=cfg, out=tmp_path, **{**SETTINGS, "epochs": 4000})
    finally:
        stop.set()
        killer.join()
    assert f"(pid {started[0].pid})" in str(lost.value)
    assert (tmp_path / "lost" / "checkpoints" / "last.ckpt").is_file()
