"""train: a data set becomes a run folder with a model, its checkpoints and its curves."""

from __future__ import annotations

import logging
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from safetensors.torch import save_file

from lookonce import zoo
from lookonce.anchors import STRIDE, cluster_anchors
from lookonce.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.darknet.pair import detector_of, read_text
from lookonce.data.canvas import Canvases
from lookonce.data.catalog import check_pictures, read_splits
from lookonce.data.pictures import measure_range
from lookonce.data.record import Dataset
from lookonce.data.voc import DataPolicy
from lookonce.detector import Detector
from lookonce.errors import ConfigError, Interrupted, NonFiniteLossError, UserError
from lookonce.evaluation import RULES, detect_all
from lookonce.files import replacing, sweep, write_text
from lookonce.layers import Layer, stride
from lookonce.metrics import best_thresholds, score
from lookonce.model_file import Model, save_model
from lookonce.network import Network
from lookonce.training.engine import Engine
from lookonce.training.module import Training, expect_little, frozen_convolutions
from lookonce.training.options import takes_settings
from lookonce.training.plan import Device, Plan, Precision, plain
from lookonce.training.recipes import RecipeName, settings
from lookonce.training.saving import Stopped
from lookonce.training.transfer import start_from
from lookonce.training.validation import Validation
from lookonce.training.watch import Watch

log = logging.getLogger("lookonce")

CANVAS_TO_INPUT = 1.5
"""Longest side of a canvas, of the largest training side."""


@takes_settings
def train(
    data: Path | None = None,
    *,
    recipe: RecipeName = "quick",
    labels: tuple[str, ...] | None = None,
    train_split: str = "train",
    val_split: str = "val",
    policy: DataPolicy = "drop",
    keep_empty: bool = False,
    out: Path = Path("runs"),
    name: str | None = None,
    resume: Path | None = None,
    seed: int = 0,
    workers: int = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    deterministic: bool = False,
    checkpoint_minutes: float = 5.0,
    weights: Path | None = None,
    keep_last: bool = False,
    **changes: Any,
) -> Path:
    """Train a detector on labelled pictures.

    Args:
        data: a data set; its format is found, not asked.
        recipe: where every setting that is not given comes from.
        labels: learn these classes only, by name, in this order.
        train_split: which pictures to learn from.
        val_split: which pictures choose the best model; none: the last model is kept.
        policy: what becomes of wrong boxes and pictures: drop, clip or error.
        keep_empty: with labels, also learn from pictures that show none of them.
        out: where run folders are made.
        name: the run's folder; none: the data's name and a number.
        resume: a run folder to go on with; everything else comes from its config.yaml.
        seed: every random draw derives from it.
        workers: processes that decode pictures beside the training; 0: none.
        device: auto takes a GPU where there is one.
        precision: auto takes bf16 where the machine computes in it.
        deterministic: only computations that give one seed the same weights, also on a GPU; slower there.
        checkpoint_minutes: longest time between two checkpoints; each epoch ends with one as well.
        weights: start from a model file, a run, or Darknet's weights (whole, or a start such as
            darknet19_448.conv.23): every layer that fits is taken, the last one starts anew.
        keep_last: with weights, take the last layer too: they are of a detector of these same classes and anchors,
            so --network is its cfg and --anchors 0.
    Returns:
        The run folder: model.safetensors, checkpoints/, metrics.csv, config.yaml, network.cfg, report.html and
        tensorboard/.
    Raises:
        UserError: data or a setting outside its law; a loss that is not finite; a disk that is full.
        Interrupted: Ctrl-C or SIGTERM, after a checkpoint: resume goes on from there.
    """
    if resume is not None:
        if any(value is not None for value in changes.values()):
            raise ConfigError(
                f"--resume goes on as {resume}/config.yaml says; give no other setting, or start a new run"
            )
        return Run.resumed(Path(resume)).go()
    if data is None:
        raise ConfigError("data: none given; expected a folder of labelled pictures: lookonce train FOLDER")
    how = settings(recipe, **changes)
    start = None if weights is None else str(weights)
    plan = Plan(str(data), labels, train_split, val_split, policy, keep_empty, seed, workers, device, precision,
                deterministic, checkpoint_minutes, start, how, keep_last)  # fmt: skip
    return Run.new(plan, Path(out), name, exact_batch=changes.get("batch_size") is not None).go()


class Run:
    """One run: its plan, its data, its folder."""

    def __init__(self, plan: Plan, folder: Path, exact_batch: bool = False, checkpoint: Path | None = None) -> None:
        self.folder, self.checkpoint = folder, checkpoint
        self.train_set, self.val_set = read_both(plan)
        pictures = len(self.train_set)
        if exact_batch and plan.settings.batch_size > pictures:
            raise ConfigError(f"batch-size: {plan.settings.batch_size}; the training split has {pictures} pictures, "
                              "and a batch cannot be larger")  # fmt: skip
        self.settings = plan.settings.fitted(pictures, self.train_set.object_side, exact_batch)
        self._settle_pixel_range()
        self.plan = replace(plan, settings=self.settings)
        self.frame = (self.settings.size, self.settings.size)

    def _settle_pixel_range(self) -> None:
        """One rule for images of more than 8 bits, measured unless it is given; both splits are read by it."""
        found = self.settings.pixel_range or measure_range([record.path for record in self.train_set.records])
        if found is None:
            return
        log.info("images of more than 8 bits: %g becomes black, %g white (--pixel-range)", *found)
        self.settings = replace(self.settings, pixel_range=found)
        self.train_set = replace(self.train_set, pixel_range=found)
        self.val_set = None if self.val_set is None else replace(self.val_set, pixel_range=found)

    @staticmethod
    def new(plan: Plan, out: Path, name: str | None, exact_batch: bool) -> Run:
        """A run in a folder of its own. Raises UserError where that folder has one already."""
        folder = out / name if name else free_folder(out, Path(plan.data).expanduser().resolve().name)
        if (folder / "checkpoints").exists():
            raise ConfigError(f"{folder}: holds a run already; give another --name, or go on with --resume {folder}")
        return Run(plan, folder, exact_batch)

    @staticmethod
    def resumed(folder: Path) -> Run:
        """A run that goes on from its last checkpoint."""
        config, last = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
        for file in (config, last):
            if not file.is_file():
                raise ConfigError(f"{file}: not there, so there is nothing to resume; start with lookonce train DATA")
        plan = Plan.from_yaml(config.read_text(encoding="utf-8"), config)
        return Run(plan, folder, exact_batch=True, checkpoint=last)

    def go(self) -> Path:
        """Train to the end, then write the model. Returns the run folder."""
        for folder in (self.folder, self.folder / "checkpoints"):
            sweep(folder)
        write_text(self.folder / "config.yaml", self.plan.to_yaml())
        lightning.seed_everything(self.plan.seed, verbose=False)
        module = Training(self.network(), self.settings, self.plan.seed)
        watch = Watch(self.folder, self.train_set, self._validation(), self.plan, module.region.anchors)
        for line in watch.data_advice:
            log.warning("%s", line)
        side = round(CANVAS_TO_INPUT * max(self.settings.size, *self.settings.multi_scale, 0))
        canvases = Canvases(self.train_set, side, self.folder)
        try:
            self._fit(module, Engine(self.plan, self.folder, canvases, watch, self.checkpoint))
        finally:
            failed = canvases.failed()
            canvases.close()
        if failed:
            first = self.train_set.paths[failed[0]]
            log.warning("%d pictures could not be decoded and were skipped, the first: %s", len(failed), first)
        self._finish(module, watch)
        return self.folder

    def _fit(self, module: Training, engine: Engine) -> None:
        """Train; what ends a run early becomes one line that says how to go on."""
        try:
            engine.fit(module)
        except NonFiniteLossError as error:
            names = [str(self.train_set.paths[int(i)]) for i in error.pictures]
            kept = {name: value.contiguous() for name, value in vars(error.batch).items() if name != "outputs"}
            with replacing(self.folder / "bad_batch.safetensors") as beside:
                save_file(kept, beside)
            raise NonFiniteLossError(error.term, names) from None
        except Stopped as stop:
            raise Interrupted(f"stopped after {module.seen} pictures; {self._again()}", stop.number) from None
        except KeyboardInterrupt:
            raise Interrupted(f"stopped before training began; {self._again()}", signal.SIGINT) from None
        except UserError as error:
            raise UserError(f"training stopped: {error}; {self._again()}") from None
        except OSError as error:
            raise UserError(f"{self.folder}: training stopped: {error.strerror or error}; free space or rights, "
                            f"then {self._again()}") from None  # fmt: skip
        log.info("%.1f images/s; waiting for pictures took %.1f %% of the training time",
                 engine.progress.rate, 100 * engine.progress.loader_share)  # fmt: skip

    def _again(self) -> str:
        """How to go on after a stop."""
        if (self.folder / "checkpoints" / "last.ckpt").is_file():
            return f"go on with: lookonce train --resume {self.folder}"
        return "no checkpoint yet: give the same command again (features computed so far are kept)"

    def _validation(self) -> Validation | None:
        return None if self.val_set is None else Validation(self.val_set, self.frame, self.settings.resize)

    def network(self) -> Network:
        """The network: that of the checkpoint to go on from, or a new one, which the run folder keeps as cfg."""
        how, cfg = self.settings, self.folder / "network.cfg"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.plan.seed)
            if self.checkpoint is not None:
                return Network(read_cfg(read_text(cfg), str(cfg)).layers)
            network = Network(self._layers())
            taken = self._start(network)
        if not taken:
            expect_little(network, how.objectness_prior)
        write_text(cfg, write_cfg(Cfg(network.layers, *self.frame)))
        return network

    def _start(self, network: Network) -> bool:
        """Fill a new network from the weights that were given; whether they gave the last layer as well."""
        keep_last = self.plan.keep_last
        if self.plan.weights is None:
            if keep_last:
                raise ConfigError("keep-last: no layer to keep; give the detector that has it: --weights MODEL")
            return False
        frozen = frozen_convolutions(network, self.settings.freeze)
        last = start_from(network, Path(self.plan.weights), frozen, self.frame, keep_last)[-1]
        if keep_last and last.came != "taken":
            raise ConfigError(f"keep-last: the last layer cannot be kept ({last.came}); classes and number of anchors "
                              "must be those of the weights")  # fmt: skip
        return keep_last

    def _layers(self) -> tuple[Layer, ...]:
        """The layers asked for, with anchors clustered on the training boxes as the network will see them."""
        how, classes = self.settings, len(self.train_set.labels)
        anchors = None
        if how.anchors:
            found = cluster_anchors(self.train_set, how.anchors, size=how.size, resize=how.resize, seed=self.plan.seed)
            anchors = found.wh
            log.info("anchors (cells): %s; mean best IoU %.3f, recall at .5 %.3f",
                     " ".join(f"{w:.2f},{h:.2f}" for w, h in anchors), found.mean_iou, found.recall)  # fmt: skip
        if not how.network.endswith(".cfg"):
            return zoo.detector(how.network, classes, anchors or zoo.VOC_ANCHORS)
        layers = detector_of(Path(how.network), classes, anchors)
        if stride(layers) != STRIDE:
            raise ConfigError(f"network: {how.network} has cells of {stride(layers)} px; training takes {STRIDE}")
        return layers

    def _finish(self, module: Training, watch: Watch) -> None:
        """The best weights (the last, where nothing was validated) as a model file with its thresholds."""
        folder = self.folder / "checkpoints"
        file = folder / "best.ckpt" if (folder / "best.ckpt").is_file() else folder / "last.ckpt"
        state = torch.load(file, map_location="cpu", weights_only=True)
        weights = {k.removeprefix("network."): v for k, v in state["state_dict"].items() if k.startswith("network.")}
        network = module.network.cpu()
        network.load_state_dict(weights)
        network.eval()
        about = {"recipe": plain(asdict(self.settings)), "data": self.train_set.name, "pictures": len(self.train_set),
                 "epoch": int(state["epoch"]), "torch": torch.__version__}  # fmt: skip
        model = Model(network, self.train_set.labels, self.frame, self.settings.resize, (), int(state["seen"]), about,
                      pixel_range=self.settings.pixel_range)  # fmt: skip
        if self.val_set is not None and watch.validation is not None:
            detections, _ = detect_all(Detector(model), self.val_set)
            metrics = score(self.val_set, detections, RULES)
            thresholds = best_thresholds(metrics).tolist()
            model = replace(model, thresholds=tuple(round(value, 4) for value in thresholds))
            watch.validation.detections, watch.validation.metrics = detections, metrics
        save_model(model, self.folder / "model.safetensors")
        for line in set(watch.advice()) - set(watch.data_advice):
            log.warning("%s", line)
        log.info("what it learnt, to look at: %s", watch.write())


def read_both(plan: Plan) -> tuple[Dataset, Dataset | None]:
    """Training and validation pictures, checked. Raises UserError where nothing is left to learn from."""
    names = [plan.train_split] if plan.val_split == "none" else [plan.train_split, plan.val_split]
    train_set, *rest = read_splits(plan.data, names, plan.labels, policy=plan.policy)
    if plan.labels is not None and not plan.keep_empty:
        train_set = train_set.with_objects()
    if not len(train_set.boxes):
        raise UserError(f"{plan.data}: split {plan.train_split!r} has no objects to learn from; check labels and boxes")
    return check_pictures(train_set, plan.policy), check_pictures(rest[0], plan.policy) if rest else None


def free_folder(out: Path, name: str) -> Path:
    """The first of NAME-1, NAME-2, ... that is not there."""
    number = 1
    while (out / f"{name}-{number}").exists():
        number += 1
    return out / f"{name}-{number}"
