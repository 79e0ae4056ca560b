"""A training run: from a configuration and a data set to a run folder with the model, checkpoints and curves."""

from __future__ import annotations

import logging
import math
import shlex
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from safetensors.torch import save_file

from lookonce.data.anchors import cluster_anchors
from lookonce.data.dataset import Dataset
from lookonce.data.images import measure_range
from lookonce.data.loader import ImageCache, TrainingImages, collate
from lookonce.data.remote import is_there
from lookonce.data.tiles import box_sizes, in_tiles
from lookonce.errors import ConfigError, Interrupted, NonFiniteLossError, UserError
from lookonce.evaluation.average_precision import Metrics, best_thresholds, score
from lookonce.evaluation.evaluate import RULES, detect_all
from lookonce.evaluation.hierarchy import in_use
from lookonce.files import optional_output, replacing, sweep, write_text
from lookonce.inference.detector import Detector
from lookonce.model.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.model.darknet.files import read_text, tree_of
from lookonce.model.layers import Layer, Region
from lookonce.model.model_file import Model, load_model, save_model
from lookonce.model.network import Network, empty
from lookonce.model.sizes import check_input_size, heads_of, stride
from lookonce.model.tree import Tree, write_tree
from lookonce.model.zoo import STRIDE
from lookonce.training.checkpoints import State, read_checkpoint
from lookonce.training.config import (
    MAP,
    MODEL,
    TREE,
    DataIdentity,
    RunConfig,
    absolute_path,
    fitted,
    network_cfg,
    plain,
    read_both,
    reason,
)
from lookonce.training.distillation import load_teacher
from lookonce.training.history import RunReport, WritePage, write_results
from lookonce.training.loop import Engine, Session
from lookonce.training.pretrained import LastLayer, LoadedLayer, start_from
from lookonce.training.progress import duration
from lookonce.training.ranks import ALONE, Ranks, connect, disconnect, together
from lookonce.training.recipes import RENAMED
from lookonce.training.signals import Stopped
from lookonce.training.start import NONE, choose_start, read_start, write_start
from lookonce.training.step import Training, choose_device, frozen_convolutions, set_objectness_prior
from lookonce.training.validation import Validation

log = logging.getLogger("lookonce")
CACHE_TO_INPUT = 1.5
"""Longest side of a cached image, relative to the largest training side."""


class Run:
    """One run: its config, its data, its folder.

    Args:
        config: of the run, fitted to the data.
        folder: made by the caller, for this run only.
        sets: the training and validation images, from `read_both`.
        checkpoint: where to resume; None: a new run.
        write_page: writes the page while the run trains; None: no page.
        tree: of the classes; None: there is none.
        began: time.monotonic() when the command began; None: now.
    """

    def __init__(self, config: RunConfig, folder: Path, sets: tuple[Dataset, Dataset | None],
                 checkpoint: Path | None = None, write_page: WritePage | None = None, tree: Tree | None = None,
                 began: float | None = None) -> None:  # fmt: skip
        self.tree, self.began = tree, time.monotonic() if began is None else began
        self.folder, self.checkpoint, self.write_page = folder, checkpoint, write_page
        self.train_set, self.val_set = sets
        settings = config.settings
        pixel_range = settings.pixel_range or measure_range([record.path for record in self.train_set.records])
        if pixel_range is not None:
            log.info("images of more than 8 bits: %g becomes black, %g white (--pixel-range)", *pixel_range)
            self.train_set = replace(self.train_set, pixel_range=pixel_range)
            self.val_set = None if self.val_set is None else replace(self.val_set, pixel_range=pixel_range)
        self.settings = replace(settings, pixel_range=pixel_range)
        self.config = replace(config, settings=self.settings)
        self.input_size = (settings.size, settings.size)
        self.seen_set = in_tiles(self.train_set, settings.tiling)
        """The training images, or their tiles as well."""

    @staticmethod
    def resumed(folder: Path, data: Path | None = None, write_page: WritePage | None = None) -> Run:
        """Return a run that continues from its last checkpoint. data: the path of its data now; None: as before.

        Raises UserError if the data is missing or has changed.
        """
        file, last = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
        for needed in (file, last):
            if not needed.is_file():
                raise ConfigError(f"{needed}: no such file, so there is nothing to resume; start with "
                                  "lookonce train DATA")  # fmt: skip
        config = RunConfig.from_yaml(file.read_bytes(), file)
        choose_device(config.device)
        read_checkpoint(last)
        place = absolute_path(data or config.data)
        if not is_there(place):
            raise ConfigError(f"{place}: the data of {folder} is not there; if it has moved, give its new path: "
                              f"lookonce train NEWPATH --resume {folder}")  # fmt: skip
        before = DataIdentity.read(folder)
        if before is None:
            log.warning("%s: a run of version 0.1, which kept no list of its data; changes of classes, splits and "
                        "labels cannot be detected", folder)  # fmt: skip
            config = replace(config, settings=replace(config.settings, steps=None))  # it did not stop exactly there
        config = replace(config, data=place)
        tree = saved_tree(folder)
        sets = read_both(config, tree)
        run = Run(fitted(config, sets[0], exact_batch=True), folder, sets, last, write_page, tree)
        if before and (difference := before.difference(run.identity())):
            again = f"lookonce train {shlex.quote(place)} --weights {folder}"
            raise UserError(f"{place}: not the data that {folder} was trained on: {difference}; restore it, or start "
                            f"a new run: {again}")  # fmt: skip
        return run

    def identity(self) -> DataIdentity:
        """Return the identity of the training and validation images."""
        splits = {self.config.train_split: self.train_set}
        return DataIdentity.of(splits if self.val_set is None else {**splits, self.config.val_split: self.val_set})

    def finished(self) -> bool:
        """Return whether a resumed run has nothing left to do; a warning then says how to train further."""
        try:
            training = load_model(self.folder / MODEL).training if (self.folder / MODEL).is_file() else {}
        except UserError:
            return False  # it will be written again
        wanted = plain(asdict(self.settings))
        recipe = {RENAMED.get(name, name): value for name, value in training.get("recipe", {}).items()}
        recipe = {**wanted, **recipe, **({} if self.settings.steps else {"steps": None})}
        if not training.get("finished", bool(training)) or recipe != wanted:
            return False
        log_finished(self.folder, self.config)
        return True

    def go(self, ranks: Ranks = ALONE) -> Path:
        """Train to the end, then write the model. Return the run folder. ranks: the processes that train together."""
        if self.checkpoint is not None:
            epoch = int(read_checkpoint(self.checkpoint)["place"]["epoch"]) + 1
            log.info("%s: continues in epoch %d of %s", self.folder, epoch, self.settings.epochs)
        for folder in (self.folder, self.folder / "checkpoints"):
            sweep(folder)
        write_text(self.folder / "config.yaml", self.config.to_yaml())
        self.identity().write(self.folder)
        network = self.network() if self.checkpoint is None else self._saved_network()
        cache = self._cache()
        module, engine = self._engine(network, cache, ranks)
        report = engine.report
        for line in report.data_advice:
            log.warning("%s", line)
        try:
            self._fit(module, engine)
        except BaseException:
            report.state = replace(report.state, stopped=True)
            with suppress(Exception):  # the model is kept and the page says so if they still can
                engine.best.write()
                report.write(whole=False)
            raise
        finally:
            failed = cache.failed()
            cache.close()
        if failed:
            first = cache.dataset.paths[failed[0]]
            log.warning("%d images could not be decoded and were skipped, the first: %s", len(failed), first)
        try:
            self._finish(module, engine.best.model(), report)
        except Stopped as stop:
            raise Interrupted(f"stopped after the last step; {self._again()}", stop.number) from None
        if not self.config.keep_checkpoints:
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        return self.folder

    def _cache(self, name: str = "images", share: bool = False) -> ImageCache:
        """Return the training images as bytes. share: another process of this machine made the file."""
        side = round(CACHE_TO_INPUT * max(self.settings.size, *self.settings.multi_scale, 0))
        return ImageCache(self.seen_set, side, self.folder, name, share)

    def _engine(self, network: Network, cache: ImageCache, ranks: Ranks) -> tuple[Training, Engine]:
        """Return what trains the network."""
        lightning.seed_everything(self.config.seed, verbose=False)
        weights = self.settings.weights_of(self.train_set.labels)
        teacher = None if self.config.teacher is None else load_teacher(self.config.teacher, network)
        module = Training(network, self.settings, self.config.seed, weights, self.tree, ranks, teacher)
        val_set = self.val_set
        validation = None if val_set is None else Validation(val_set, self.input_size, self.settings.resize,
                                                             self.settings.tiling, ranks)  # fmt: skip
        report = RunReport(self.folder, self.train_set, validation, self.config, network.heads,
                           self.write_page)  # fmt: skip

        def make(state: State) -> Model:
            """Return the model of a run that still trains."""
            return self._model(network, state, None if validation is None else validation.metrics)

        session = Session(self.folder, self.checkpoint, self.began, ranks)
        return module, Engine(self.config, session, cache, report, make)

    def follow(self, ranks: Ranks) -> None:
        """Train as one of several processes, all but the first, which writes everything."""
        here = f"images-{ranks.node}" if ranks.node else "images"
        makes = ranks.node > 0 and ranks.local_rank == 0
        cache = self._cache(here) if makes else None
        ranks.wait()
        cache = cache or self._cache(here, share=True)
        try:
            module, engine = self._engine(self._saved_network(), cache, ranks)
            engine.fit(module)
        except Stopped as stop:
            raise Interrupted("stopped", stop.number) from None
        finally:
            cache.close()

    def _fit(self, module: Training, engine: Engine) -> None:
        """Train; an early end becomes one line that says how to resume."""
        ranks = engine.ranks
        checkpoint = None if self.checkpoint is None else str(self.checkpoint)
        try:
            with together(ranks, {"folder": str(self.folder), "checkpoint": checkpoint}):
                ranks.wait()  # for the image caches of other machines
                engine.fit(module)
        except NonFiniteLossError as error:
            names = [str(self.seen_set.paths[int(i)]) for i in error.images]
            images = TrainingImages(engine.cache, self.config.settings.difficult)
            batch = collate([images[int(i)] for i in error.images])
            tensors = {name: value.contiguous() for name, value in vars(batch).items() if name != "outputs"}
            with replacing(self.folder / "bad_batch.safetensors") as temporary:
                save_file(tensors, temporary)
            raise NonFiniteLossError(error.term, names) from None
        except torch.OutOfMemoryError:
            many = self.settings.batch_size
            fewer = f"--batch-size {many // 2}" if many > 1 else f"--size {max(32, self.settings.size // 64 * 32)}"
            raise UserError(f"{choose_device(self.config.device)}: out of memory with {many} images of "
                            f"{self.settings.size} px at once; start again with {fewer}") from None  # fmt: skip
        except Stopped as stop:
            raise Interrupted(f"stopped after {module.seen} images; {self._again()}", stop.number) from None
        except KeyboardInterrupt:
            raise Interrupted(f"stopped before training began; {self._again()}", signal.SIGINT) from None
        except UserError as error:
            raise UserError(f"training stopped: {error}; {self._again()}") from None
        except OSError as error:
            raise UserError(f"{self.folder}: training stopped: {error.strerror or error}; free space or allow writing, "
                            f"then {self._again()}") from None  # fmt: skip
        log.info("%.1f images/s; data loading: %.1f %% of training time",
                 engine.progress.rate, 100 * engine.progress.loading_fraction)  # fmt: skip

    def _again(self) -> str:
        """Return how to continue after a stop."""
        if (self.folder / "checkpoints" / "last.ckpt").is_file():
            return f"continue with: lookonce train --resume {self.folder}"
        return "no checkpoint yet: give the same command again (features computed so far are kept)"

    def network(self) -> Network:
        """Return a new network, which it writes to the run folder."""
        cfg, config = self.folder / "network.cfg", self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            new = self._new_cfg()
            network = Network(tuple(map(self._in_tree, new.layers)), new.channels)
            rows: list[LoadedLayer] = []
            start = choose_start(config.weights or NONE, None)
            if start is not None:
                frozen = frozen_convolutions(network, self.settings.freeze)
                last: LastLayer = "keep" if config.keep_last else "match" if self.settings.match_classes else "random"
                rows = start_from(network, start.weights, frozen, self.input_size, self.train_set.labels, last)
                write_start(start, self.folder)
            elif config.keep_last:
                raise ConfigError("keep-last: no layer to keep; give the detector that has it: --weights MODEL")
        loaded = {row.layer for row in rows if not row.status.startswith("random")}
        set_objectness_prior(network, self.settings.objectness_prior, loaded)
        write_text(cfg, write_cfg(Cfg(network.layers, *self.input_size, network.channels)))
        if self.tree is not None:
            write_text(self.folder / TREE, write_tree(self.tree))
            if self.tree.map:
                write_text(self.folder / MAP, "".join(f"{node}\n" for node in self.tree.map))
        return network

    def _saved_network(self) -> Network:
        """Return the network of the run folder, without its weights."""
        cfg = self.folder / "network.cfg"
        read = read_cfg(read_text(cfg), str(cfg))
        if {head.layer.classes for head in heads_of(read.layers)} != {len(self.train_set.labels)}:
            raise ConfigError(f"{cfg}: not a detector of the {len(self.train_set.labels)} classes of the data; "
                              f"start a new run: lookonce train DATA --weights {self.folder}")  # fmt: skip
        return Network(read.layers, read.channels)

    def _new_cfg(self) -> Cfg:
        """Return the cfg of the network for these classes, with anchors clustered on the training boxes.

        Raises ConfigError if it does not run at the input sizes of the training.
        """
        how, classes = self.settings, len(self.train_set.labels)
        cfg = network_cfg(how, classes)
        for side in (how.size, *how.multi_scale):
            check_input_size(cfg.layers, (side, side), cfg.channels)
        if given := how.anchor_sizes:
            by_area = given if len(heads_of(cfg.layers)) == 1 else tuple(sorted(given, key=math.prod))
            return network_cfg(how, classes, by_area)
        if not how.anchors:
            return cfg
        cell = stride(cfg.layers)
        found = cluster_anchors(self.seen_set, int(how.anchors), size=how.size, resize=how.resize,
                                stride=cell, seed=self.config.seed)  # fmt: skip
        log.info("anchors (cells): %s; mean best IoU %.3f, recall at .5 %.3f",
                 " ".join(f"{w:.2f},{h:.2f}" for w, h in found.wh), found.mean_iou, found.recall)  # fmt: skip
        return network_cfg(how, classes, tuple((w * cell / STRIDE, h * cell / STRIDE) for w, h in found.wh))

    def _in_tree(self, layer: Layer) -> Layer:
        """Return a layer that names the files of the class tree, if it is a region layer and there is a tree."""
        if self.tree is None or not isinstance(layer, Region):
            return layer
        return replace(layer, tree=TREE, map=MAP if self.tree.map else "")

    def _model(self, trained: Network, state: State, metrics: Metrics | None) -> Model:
        """Return the model of a state, with the thresholds of best F1 in the metrics. It is not finished."""
        weights = {k.removeprefix("network."): v for k, v in state["state_dict"].items() if k.startswith("network.")}
        network = empty(trained.layers, trained.channels)
        network.load_state_dict(weights)
        network.sigmas = state["sigmas"]
        return Model(network.eval(), self.train_set.labels, self.input_size, self.settings.resize,
                     self._thresholds(metrics), int(state["seen"]), self._description(int(state["epoch"])), self.tree,
                     self.settings.pixel_range)  # fmt: skip

    def _description(self, epoch: int, finished: bool = False) -> dict[str, Any]:
        """Return what a model file says about its training."""
        training = {"recipe": plain(asdict(self.settings)), "data": self.train_set.name, "images": len(self.train_set),
                    "boxes": box_sizes(self.train_set), "epoch": epoch, "torch": torch.__version__,
                    "finished": finished}  # fmt: skip
        start = read_start(self.folder)
        return {**training, "start": start} if start else training

    def _thresholds(self, metrics: Metrics | None) -> tuple[float, ...]:
        """Return the thresholds of best F1; none with a tree, whose detections are scored by objectness alone."""
        if metrics is None or self.tree is not None:
            return ()
        return tuple(round(value, 4) for value in best_thresholds(metrics).tolist())

    def _finish(self, module: Training, best: Model | None, report: RunReport) -> None:
        """Write the best model (without a validation that counts the last one), scored as in detection."""
        if best is None:
            last = self.folder / "checkpoints" / "last.ckpt"
            best = self._model(module.network, read_checkpoint(last), None)
        training = self._description(best.training["epoch"], finished=True)
        if self.checkpoint is None:
            training["minutes"] = round((time.monotonic() - self.began) / 60, 2)
        model, validation = replace(best, thresholds=(), training=training), report.validation
        if validation is not None:
            detector = Detector(model, precision="fp32", tile=self.settings.tile)
            validation.detections, _ = detect_all(detector, validation.dataset)
            validation.metrics = score(*in_use(validation.dataset, validation.detections, self.tree), RULES)
            validation.computed_by = str(detector.backend.info)
            model = replace(model, thresholds=self._thresholds(validation.metrics))
        save_model(model, self.folder / MODEL)
        for line in set(report.advice()) - set(report.data_advice):
            log.warning("%s", line)
        report.state = replace(report.state, finished=True)
        files = [self.folder / MODEL]
        with optional_output():
            files.append(write_results(self.folder))
        page = report.write()
        self._announce(report, [*files, *([page] if page else [])])

    def _announce(self, report: RunReport, files: list[Path]) -> None:
        """Log the result: the classes of the best model, the files, and what to do next."""
        state, validation = report.state, report.validation
        if validation is not None and validation.metrics is not None:
            for line in f"best model on the validation images:\n{validation.metrics}".splitlines():
                log.info("%s", line)
            if state.best_epoch is not None:
                log.info("best epoch: %d of %s", state.best_epoch, state.epochs or state.epoch)
        log.info("training took %s", duration(time.monotonic() - self.began))
        log.info("wrote %s", ", ".join(map(str, files)))
        tiles = "" if self.settings.tiling is None else " --tile auto"
        log.info("next: lookonce evaluate %s%s; lookonce detect %s photos/%s", self.folder, tiles, self.folder, tiles)


def follow(ranks: Ranks) -> Path:
    """Train as one of several processes, as rank 0 says; return the run folder.

    Raises UserError if this process does not see the data and the run folder of rank 0; Interrupted.
    """
    connect(ranks)
    try:
        news = ranks.from_first(None)
        folder, file = Path(news["folder"]), Path(news["folder"]) / "config.yaml"
        if not file.is_file():
            raise UserError(f"{folder}: not here; the run folder has to be on a disk that all machines share")
        config = RunConfig.from_yaml(file.read_bytes(), file)
        sets = read_both(config, saved_tree(folder))
        checkpoint = None if news["checkpoint"] is None else Path(news["checkpoint"])
        run = Run(config, folder, sets, checkpoint, tree=saved_tree(folder))
        of_first = DataIdentity.read(folder)
        if of_first is not None and (difference := of_first.difference(run.identity())):
            raise UserError(f"{config.data}: not the data that rank 0 has, with its changes: {difference}")
        run.follow(ranks)
        return folder
    except (RuntimeError, ConnectionError) as error:
        raise UserError(f"rank {ranks.rank}: {reason(error)}") from error
    finally:
        disconnect()


def saved_tree(folder: Path) -> Tree | None:
    """Return the class tree of a run folder; None: there is none."""
    cfg = folder / "network.cfg"
    return tree_of(read_cfg(read_text(cfg), str(cfg)).layers, cfg) if cfg.is_file() else None


def is_complete(folder: Path) -> bool:
    """Return whether a run is complete and has no checkpoint to continue from; a warning then says how to go on."""
    try:
        complete = (folder / MODEL).is_file() and bool(load_model(folder / MODEL).training.get("finished"))
    except UserError:
        return False
    if not complete or (folder / "checkpoints" / "last.ckpt").exists() or not (folder / "config.yaml").is_file():
        return False
    log_finished(folder, RunConfig.from_yaml((folder / "config.yaml").read_bytes(), folder / "config.yaml"))
    return True


def log_finished(folder: Path, config: RunConfig) -> None:
    """Warn that a run is complete, with the command that trains it further."""
    words = [config.data, "--weights", folder, "--keep-last", "--network", folder / "network.cfg",
             "--size", config.settings.size, "--anchors", 0]  # fmt: skip
    again = shlex.join(["lookonce", "train", *map(str, words)])
    log.warning("%s: finished already; to train it further, start a new run from it: %s", folder, again)
