"""train: a data set becomes a run folder with a model, its checkpoints and its curves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import DataLoader

from lookonce import zoo
from lookonce.anchors import cluster_anchors
from lookonce.data.canvas import Canvases
from lookonce.data.catalog import check_pictures, read_splits
from lookonce.data.loader import Pictures, Shuffled, collate
from lookonce.data.record import Dataset
from lookonce.data.voc import DataPolicy
from lookonce.detector import Detector
from lookonce.errors import ConfigError, NonFiniteLossError, UserError
from lookonce.evaluation import detect_all
from lookonce.files import write_text
from lookonce.metrics import best_thresholds, score
from lookonce.model_file import Model, save_model
from lookonce.network import Network
from lookonce.training.callbacks import BestCheckpoint, Inputs, Patience, Progress, Validation, averaging
from lookonce.training.module import Training, choose_precision
from lookonce.training.options import takes_settings
from lookonce.training.plan import Device, Plan, Precision, plain
from lookonce.training.recipes import RecipeName, settings

log = logging.getLogger("lookonce")

CANVAS_TO_INPUT = 1.5
"""Longest side of a canvas, of the largest training side."""
VALIDATIONS = 20
"""About so many times a run is validated; each epoch at most once."""

ADVERTISEMENTS = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*isinstance.treespec.*",
    ".*exists and is not empty.*",
    ".*lr_scheduler.step.*",
)


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
    Returns:
        The run folder: model.safetensors, checkpoints/, metrics.csv, config.yaml, tensorboard/.
    Raises:
        UserError: data or a setting outside its law; a loss that is not finite; a disk that is full.
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
    plan = Plan(str(data), labels, train_split, val_split, policy, keep_empty, seed, workers, device, precision, how)
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
        self.settings = plan.settings.fitted(pictures, exact_batch)
        self.plan = replace(plan, settings=self.settings)
        self.frame = (self.settings.size, self.settings.size)

    @staticmethod
    def new(plan: Plan, out: Path, name: str | None, exact_batch: bool) -> Run:
        """A run in a folder of its own. Raises UserError where that folder has one already."""
        folder = out / name if name else _free_folder(out, Path(plan.data).expanduser().resolve().name)
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
        write_text(self.folder / "config.yaml", self.plan.to_yaml())
        lightning.seed_everything(self.plan.seed, verbose=False)
        module = Training(self.network(), self.settings, self.plan.seed)
        side = round(CANVAS_TO_INPUT * max(self.settings.size, *self.settings.multi_scale, 0))
        canvases = Canvases(self.train_set, side, self.folder)
        try:
            with _quiet():
                self._fit(module, canvases)
        except NonFiniteLossError as error:
            names = [str(self.train_set.paths[int(i)]) for i in error.pictures]
            raise NonFiniteLossError(error.term, names) from None
        except OSError as error:
            raise UserError(f"{self.folder}: training stopped: {error.strerror or error}; free space or rights, "
                            f"then go on with --resume {self.folder}") from None  # fmt: skip
        finally:
            failed = canvases.failed()
            canvases.close()
        if failed:
            first = self.train_set.paths[failed[0]]
            log.warning("%d pictures could not be decoded and were skipped, the first: %s", len(failed), first)
        self._finish(module)
        return self.folder

    def network(self) -> Network:
        """The network, its anchors clustered on the training boxes as the network will see them."""
        how = self.settings
        anchors = zoo.VOC_ANCHORS
        if how.anchors:
            found = cluster_anchors(self.train_set, how.anchors, size=how.size, resize=how.resize, seed=self.plan.seed)
            anchors = found.wh
            log.info("anchors (cells): %s; mean best IoU %.3f, recall at .5 %.3f",
                     " ".join(f"{w:.2f},{h:.2f}" for w, h in anchors), found.mean_iou, found.recall)  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.plan.seed)
            return Network(zoo.detector(how.network, len(self.train_set.labels), anchors))

    def _fit(self, module: Training, canvases: Canvases) -> None:
        plan, how = self.plan, self.settings
        device = plan.device if plan.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        precision, why = choose_precision(device)
        if plan.precision != "auto":
            precision, why = ("32-true" if plan.precision == "fp32" else "bf16-mixed"), f"{plan.precision} as asked"
        log.info(
            "%d pictures, %d epochs of %d a batch; precision %s", len(self.train_set), how.epochs, how.batch_size, why
        )
        trainer = lightning.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision=cast(Any, precision),
            max_epochs=how.epochs,
            callbacks=self._callbacks(),
            logger=self._loggers(),
            gradient_clip_val=how.gradient_clip or None,
            check_val_every_n_epoch=validate_every(cast(int, how.epochs)),
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        module.to(memory_format=torch.channels_last)
        loader = DataLoader(
            Pictures(canvases, how.difficult), how.batch_size, collate_fn=collate, num_workers=plan.workers,
            sampler=Shuffled(len(self.train_set), plan.seed), persistent_workers=plan.workers > 0,
            pin_memory=device == "cuda",
        )  # fmt: skip
        val = None
        if self.val_set is not None:
            val = DataLoader(Inputs(self.val_set, self.frame, how.resize), batch_size=8)
        trainer.fit(module, loader, val, ckpt_path=self.checkpoint, weights_only=True)

    def _callbacks(self) -> list[Callback]:
        how, folder = self.settings, self.folder / "checkpoints"
        found: list[Callback] = [Progress()]
        if how.ema:
            found.append(averaging(how.ema))
        if self.val_set is not None:
            found.append(Validation(self.val_set, self.frame, how.resize))
            found.append(BestCheckpoint(folder, "best", monitor="val/mAP", mode="max", enable_version_counter=False))
            if how.patience:
                found.append(Patience("val/mAP", how.min_delta, how.patience, mode="max"))
        last = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        return [*found, last]

    def _loggers(self) -> list[Logger]:
        return [
            CSVLogger(self.folder, name="", version=""),
            TensorBoardLogger(self.folder, name="", version="tensorboard"),
        ]

    def _finish(self, module: Training) -> None:
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
        model = Model(network, self.train_set.labels, self.frame, self.settings.resize, (), int(state["seen"]), about)
        if self.val_set is not None:
            detections, _ = detect_all(Detector(model), self.val_set)
            thresholds = best_thresholds(score(self.val_set, detections, bootstrap=0)).tolist()
            model = replace(model, thresholds=tuple(round(value, 4) for value in thresholds))
        save_model(model, self.folder / "model.safetensors")


def read_both(plan: Plan) -> tuple[Dataset, Dataset | None]:
    """Training and validation pictures, checked. Raises UserError where nothing is left to learn from."""
    names = [plan.train_split] if plan.val_split == "none" else [plan.train_split, plan.val_split]
    train_set, *rest = read_splits(plan.data, names, plan.labels, policy=plan.policy)
    if plan.labels is not None and not plan.keep_empty:
        train_set = train_set.with_objects()
    if not len(train_set.boxes):
        raise UserError(f"{plan.data}: split {plan.train_split!r} has no objects to learn from; check labels and boxes")
    return check_pictures(train_set, plan.policy), check_pictures(rest[0], plan.policy) if rest else None


def validate_every(epochs: int) -> int:
    """Epochs from one validation to the next: some VALIDATIONS in a run, and always one after the last epoch."""
    return max(n for n in range(1, max(1, epochs // VALIDATIONS) + 1) if epochs % n == 0)


def _free_folder(out: Path, name: str) -> Path:
    number = 1
    while (out / f"{name}-{number}").exists():
        number += 1
    return out / f"{name}-{number}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning without its advertisements: hardware lists, tips, hints about workers."""
    engine = logging.getLogger("lightning.pytorch")
    level = engine.level
    engine.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for text in ADVERTISEMENTS:
            warnings.filterwarnings("ignore", text)
        try:
            yield
        finally:
            engine.setLevel(level)
