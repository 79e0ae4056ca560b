"""A training run: its configuration, its data, its folder, from the first step to the model file."""

from __future__ import annotations

import logging
import shlex
import shutil
import signal
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import lightning
import torch
from safetensors.torch import save_file

from lookonce.data.anchors import anchors_by_head, cluster_anchors
from lookonce.data.dataset import Dataset
from lookonce.data.images import measure_range
from lookonce.data.loader import ImageCache
from lookonce.data.read import check_images, read_splits
from lookonce.errors import ConfigError, Interrupted, NonFiniteLossError, UserError
from lookonce.evaluation.average_precision import Metrics, best_thresholds, score
from lookonce.evaluation.evaluate import RULES, detect_all
from lookonce.files import LOCK, new_folder, numbered_folder, replacing, sweep, write_text
from lookonce.inference.detector import Detector
from lookonce.model import zoo
from lookonce.model.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.model.darknet.files import detector_of, read_text
from lookonce.model.layers import check_input_size, heads_of, stride
from lookonce.model.model_file import Model, load_model, save_model
from lookonce.model.network import Network, empty
from lookonce.training.advice import RunReport, WritePage
from lookonce.training.checkpoints import Stopped, read_checkpoint
from lookonce.training.config import RunConfig, plain
from lookonce.training.identity import Identity
from lookonce.training.loop import Engine
from lookonce.training.pretrained import start_from
from lookonce.training.step import Training, choose_device, expect_little, frozen_convolutions
from lookonce.training.validation import Validation

log = logging.getLogger("lookonce")
CANVAS_TO_INPUT = 1.5
"""Longest side of a cached image, of the largest training side."""
MODEL = "model.safetensors"
OF_A_START = {"config.yaml", "data.json", "network.cfg", "metrics.csv", "report.html", "tensorboard", "checkpoints",
              "images.u8", "images.state", "canvas.u8", "canvas.state", "pruned.cfg", "pruned.safetensors",
              LOCK}  # fmt: skip
"""What a run folder holds that never came to a checkpoint: nothing to keep."""
FEW_TO_VALIDATE = 20
"""Validation images below which training warns."""


def _absolute(path: Path | str) -> str:
    """A path that means the same from every working folder."""
    return str(Path(path).expanduser().absolute())


@contextmanager
def run_folder(out: Path, name: str | None, stem: str) -> Iterator[Path]:
    """A new folder for a run, which this process alone holds; an error before the first checkpoint removes it.

    Args:
        out: where it is made.
        name: its name; None: STEM-1, STEM-2, ..., the first that does not exist.
        stem: for that.
    Raises UserError for a name that exists, unless it holds nothing but the start of a run that was killed.
    """
    killed = name is not None and (out / name / LOCK).exists()
    with new_folder(out / name, reuse=True) if name else numbered_folder(out / stem) as folder:
        if killed and _is_start(folder, {MODEL}):
            _clear(folder)
        if any(path.name != LOCK for path in folder.iterdir()):
            what = "holds a run" if (folder / "checkpoints").exists() else "is not empty"
            raise ConfigError(f"{folder}: {what} already; give another --name, or continue it with --resume {folder}")
        try:
            yield folder
        except BaseException:
            sweep(folder)
            if _is_start(folder):
                _clear(folder)
            raise


def _is_start(folder: Path, also: Set[str] = frozenset()) -> bool:
    """Whether a folder holds nothing but what a run writes before it can be resumed. also: names that do not count."""
    names = {path.name for path in folder.iterdir()}
    return names <= OF_A_START | also and not (folder / "checkpoints" / "last.ckpt").exists()


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)


class Run:
    """One run: its config, its data, its folder. write_page writes its page while it trains; None: no page."""

    def __init__(self, config: RunConfig, folder: Path, exact_batch: bool = False, checkpoint: Path | None = None,
                 write_page: WritePage | None = None) -> None:  # fmt: skip
        self.folder, self.checkpoint, self.write_page = folder, checkpoint, write_page
        self.train_set, self.val_set = read_both(config)
        images = len(self.train_set)
        if exact_batch and config.settings.batch_size > images:
            raise ConfigError(f"batch-size: {config.settings.batch_size}; the training split has {images} images, "
                              "and a batch cannot be larger")  # fmt: skip
        self.settings = config.settings.fitted(images, self.train_set.object_side, exact_batch)
        self._settle_pixel_range()
        self.config = replace(config, settings=self.settings)
        self.input_size = (self.settings.size, self.settings.size)

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
    def new(config: RunConfig, folder: Path, exact_batch: bool, write_page: WritePage | None = None) -> Run:
        """A run in a folder that the caller has made for it."""
        write_text(folder / "config.yaml", config.to_yaml())  # what is asked for, while the data is read
        return Run(config, folder, exact_batch, write_page=write_page)

    @staticmethod
    def resumed(folder: Path, data: Path | None = None, write_page: WritePage | None = None) -> Run:
        """A run that continues from its last checkpoint. data: where its data lies now; None: where it lay.

        Raises UserError where the data is not there, or is no longer that of the run.
        """
        file, last = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
        for place in (file, last):
            if not place.is_file():
                raise ConfigError(f"{place}: no such file, so there is nothing to resume; start with "
                                  "lookonce train DATA")  # fmt: skip
        config = RunConfig.from_yaml(file.read_bytes(), file)
        choose_device(config.device)
        read_checkpoint(last)
        place = Path(_absolute(data or config.data))
        if not place.exists():
            raise ConfigError(f"{place}: the data of {folder} is not there; if it has moved, give its place: "
                              f"lookonce train NEWPATH --resume {folder}")  # fmt: skip
        before = Identity.read(folder)
        if before is None:
            log.warning("%s: a run of an earlier version, which kept no list of its data; whether classes, splits and "
                        "labels are still the same cannot be compared", folder)  # fmt: skip
            config = replace(config, settings=replace(config.settings, steps=None))  # which were only aimed at
        run = Run(replace(config, data=str(place)), folder, exact_batch=True, checkpoint=last,
                  write_page=write_page)  # fmt: skip
        if before and (said := before.difference(run.identity())):
            again = f"lookonce train {shlex.quote(str(place))} --weights {folder}"
            raise UserError(f"{place}: not the data that {folder} was trained on: {said}; restore it, or start a new "
                            f"run: {again}")  # fmt: skip
        return run

    def identity(self) -> Identity:
        """What it learns from and what judges it."""
        splits = {self.config.train_split: self.train_set}
        return Identity.of(splits if self.val_set is None else {**splits, self.config.val_split: self.val_set})

    def finished(self) -> bool:
        """Whether a resumed run has nothing left to do, which is then said."""
        try:
            training = load_model(self.folder / MODEL).training if (self.folder / MODEL).is_file() else {}
        except UserError:
            return False  # it will be written again
        asked = plain(asdict(self.settings))
        recipe = {**asked, **training.get("recipe", {}), **({} if self.settings.steps else {"steps": None})}
        if not training.get("finished", bool(training)) or recipe != asked:
            return False
        words = [self.config.data, "--weights", self.folder, "--keep-last", "--network", self.folder / "network.cfg",
                 "--size", self.settings.size, "--anchors", 0]  # fmt: skip
        again = shlex.join(["lookonce", "train", *map(str, words)])
        log.warning("%s: finished already; to train it further, start a new run from it: %s", self.folder, again)
        return True

    def go(self) -> Path:
        """Train to the end, then write the model. Returns the run folder."""
        for folder in (self.folder, self.folder / "checkpoints"):
            sweep(folder)
        write_text(self.folder / "config.yaml", self.config.to_yaml())
        self.identity().write(self.folder)
        lightning.seed_everything(self.config.seed, verbose=False)
        module = Training(self.network(), self.settings, self.config.seed)
        report = RunReport(self.folder, self.train_set, self._validation(), self.config, module.network.heads,
                           self.write_page)  # fmt: skip
        for line in report.data_advice:
            log.warning("%s", line)
        side = round(CANVAS_TO_INPUT * max(self.settings.size, *self.settings.multi_scale, 0))
        cache = ImageCache(self.train_set, side, self.folder)

        def keep(checkpoint: Path) -> None:
            """The model file is there as soon as there is a model: a run that stops or still runs can be used."""
            metrics = None if report.validation is None else report.validation.metrics
            save_model(self._model(module.network, checkpoint, metrics, finished=False), self.folder / MODEL)

        try:
            self._fit(module, Engine(self.config, self.folder, cache, report, self.checkpoint, keep))
        finally:
            failed = cache.failed()
            cache.close()
        if failed:
            first = self.train_set.paths[failed[0]]
            log.warning("%d images could not be decoded and were skipped, the first: %s", len(failed), first)
        try:
            self._finish(module, report)
        except Stopped as stop:
            raise Interrupted(f"stopped after the last step; {self._again()}", stop.number) from None
        return self.folder

    def _fit(self, module: Training, engine: Engine) -> None:
        """Train; what ends a run early becomes one line that says how to go on."""
        try:
            engine.fit(module)
        except NonFiniteLossError as error:
            names = [str(self.train_set.paths[int(i)]) for i in error.images]
            kept = {name: value.contiguous() for name, value in vars(error.batch).items() if name != "outputs"}
            with replacing(self.folder / "bad_batch.safetensors") as beside:
                save_file(kept, beside)
            raise NonFiniteLossError(error.term, names) from None
        except Stopped as stop:
            raise Interrupted(f"stopped after {module.seen} images; {self._again()}", stop.number) from None
        except KeyboardInterrupt:
            raise Interrupted(f"stopped before training began; {self._again()}", signal.SIGINT) from None
        except UserError as error:
            raise UserError(f"training stopped: {error}; {self._again()}") from None
        except OSError as error:
            raise UserError(f"{self.folder}: training stopped: {error.strerror or error}; free space or rights, "
                            f"then {self._again()}") from None  # fmt: skip
        log.info("%.1f images/s; data loading: %.1f %% of training time",
                 engine.progress.rate, 100 * engine.progress.loader_share)  # fmt: skip

    def _again(self) -> str:
        """How to go on after a stop."""
        if (self.folder / "checkpoints" / "last.ckpt").is_file():
            return f"go on with: lookonce train --resume {self.folder}"
        return "no checkpoint yet: give the same command again (features computed so far are kept)"

    def _validation(self) -> Validation | None:
        return None if self.val_set is None else Validation(self.val_set, self.input_size, self.settings.resize)

    def network(self) -> Network:
        """The network: that of the checkpoint to go on from, or a new one, which the run folder keeps as cfg."""
        how, cfg = self.settings, self.folder / "network.cfg"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            if self.checkpoint is not None:
                read = read_cfg(read_text(cfg), str(cfg))
                if {head.layer.classes for head in heads_of(read.layers)} != {len(self.train_set.labels)}:
                    raise ConfigError(f"{cfg}: not a detector of the {len(self.train_set.labels)} classes of the data; "
                                      f"start a new run: lookonce train DATA --weights {self.folder}")  # fmt: skip
                return Network(read.layers, read.channels)
            asked = self._asked()
            network = Network(asked.layers, asked.channels)
            taken = self._start(network)
        if not taken:
            expect_little(network, how.objectness_prior)
        write_text(cfg, write_cfg(Cfg(network.layers, *self.input_size, network.channels)))
        return network

    def _start(self, network: Network) -> bool:
        """Fill a new network from the weights that were given; whether they gave the last layer as well."""
        keep_last = self.config.keep_last
        if self.config.weights is None:
            if keep_last:
                raise ConfigError("keep-last: no layer to keep; give the detector that has it: --weights MODEL")
            return False
        frozen = frozen_convolutions(network, self.settings.freeze)
        labels = self.train_set.labels if keep_last else None
        found = start_from(network, Path(self.config.weights), frozen, self.input_size, labels)
        random = next((row for row in found if row.last and row.status != "loaded"), None)
        if keep_last and random is not None:
            raise ConfigError(f"keep-last: the last layer cannot be kept ({random.status}); classes and anchors "
                              "must be those of the weights")  # fmt: skip
        return keep_last

    def _asked(self) -> Cfg:
        """The network asked for, with anchors clustered on the training boxes as the network will see them.

        Raises ConfigError for one that does not run on the sizes that are trained at.
        """
        how, classes = self.settings, len(self.train_set.labels)

        def made(*anchors: zoo.AnchorSizes) -> Cfg:
            if how.network.endswith(".cfg"):
                return detector_of(Path(how.network), classes, anchors)
            return Cfg(zoo.detector(how.network, classes, *(anchors or (zoo.VOC_ANCHORS,))))

        plain = made()
        for side in (how.size, *how.multi_scale):
            check_input_size(plain.layers, (side, side), plain.channels)
        if not how.anchors:
            return plain
        found = cluster_anchors(self.train_set, how.anchors, size=how.size, resize=how.resize,
                                stride=stride(plain.layers), seed=self.config.seed)  # fmt: skip
        log.info("anchors (cells): %s; mean best IoU %.3f, recall at .5 %.3f",
                 " ".join(f"{w:.2f},{h:.2f}" for w, h in found.wh), found.mean_iou, found.recall)  # fmt: skip
        return made(*anchors_by_head(found.wh, stride(plain.layers), heads_of(plain.layers)))

    def _model(self, trained: Network, checkpoint: Path, metrics: Metrics | None, finished: bool) -> Model:
        """The weights of a checkpoint as a model, with the thresholds of best F1 in its validation."""
        state = read_checkpoint(checkpoint)
        weights = {k.removeprefix("network."): v for k, v in state["state_dict"].items() if k.startswith("network.")}
        network = empty(trained.layers, trained.channels)
        network.load_state_dict(weights)
        network.sigmas = state["sigmas"]
        about = {"recipe": plain(asdict(self.settings)), "data": self.train_set.name, "images": len(self.train_set),
                 "epoch": int(state["epoch"]), "torch": torch.__version__, "finished": finished}  # fmt: skip
        found = [] if metrics is None else best_thresholds(metrics).tolist()
        thresholds = tuple(round(value, 4) for value in found)
        labels, seen = self.train_set.labels, int(state["seen"])
        return Model(network.eval(), labels, self.input_size, self.settings.resize, thresholds, seen, about,
                     pixel_range=self.settings.pixel_range)  # fmt: skip

    def _finish(self, module: Training, report: RunReport) -> None:
        """Write the model of the best checkpoint (the last, where nothing was validated), scored as detection does."""
        folder = self.folder / "checkpoints"
        file = folder / "best.ckpt" if (folder / "best.ckpt").is_file() else folder / "last.ckpt"
        model = self._model(module.network, file, None, finished=True)
        if self.val_set is not None and report.validation is not None:
            detector = Detector(model, precision="fp32")
            detections, _ = detect_all(detector, self.val_set)
            metrics = score(self.val_set, detections, RULES)
            report.validation.detections, report.validation.metrics = detections, metrics
            report.validation.computed_by = str(detector.backend.info)
            model = self._model(module.network, file, metrics, finished=True)
        save_model(model, self.folder / MODEL)
        for line in set(report.advice()) - set(report.data_advice):
            log.warning("%s", line)
        page = report.write()
        if page is not None:
            log.info("report: %s", page)


def read_both(config: RunConfig) -> tuple[Dataset, Dataset | None]:
    """Training and validation images, checked. Raises UserError where nothing is left to learn from."""
    names = [config.train_split] if config.val_split == "none" else [config.train_split, config.val_split]
    train_set, *rest = read_splits(config.data, names, config.labels, policy=config.policy)
    if config.labels is not None and not config.keep_empty:
        train_set = train_set.with_objects()
    if not len(train_set.boxes):
        raise UserError(
            f"{config.data}: split {config.train_split!r} has no objects to learn from; check labels and boxes"
        )
    if rest and len(rest[0]) < FEW_TO_VALIDATE:
        log.warning("%s: few images to validate on: %d in split %r; below %d mAP varies by chance, so the best model "
                    "is hard to tell", config.data, len(rest[0]), config.val_split, FEW_TO_VALIDATE)  # fmt: skip
    return check_images(train_set, config.policy), check_images(rest[0], config.policy) if rest else None
