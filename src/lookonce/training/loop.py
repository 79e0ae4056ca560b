"""The training loop: Lightning's Trainer with its callbacks, loggers and data loaders."""

from __future__ import annotations

import ctypes
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, cast

import lightning
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from lookonce.data.device_images import open_store
from lookonce.data.images import usable_cores
from lookonce.data.loader import ImageCache, Shuffled, TrainingImages, collate, tile_blocks
from lookonce.errors import UserError
from lookonce.model.sizes import num_floats, num_operations
from lookonce.training.checkpoints import LastCheckpoint, WholeFiles
from lookonce.training.config import RunConfig, reason
from lookonce.training.duration import StepLimit, TimeLimit, validate_every
from lookonce.training.feature_cache import FrozenBackbone
from lookonce.training.history import History, RunReport
from lookonce.training.progress import FirstBatch, Progress
from lookonce.training.recipes import Monitor
from lookonce.training.signals import Stopped, ignore_interrupts
from lookonce.training.step import Training, choose_device, choose_precision
from lookonce.training.validation import Inputs, Validation, collate_inputs

log = logging.getLogger("lookonce")
DIRECTION: dict[Monitor, Literal["min", "max"]] = {"mAP": "max", "loss": "min"}
MOST_WORKERS = 16
"""Most processes that load images unless --workers gives more."""


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint of the best validation, but none from the time of the prior loss.

    Args:
        folder: where best.ckpt is written.
        keep: called with each new best checkpoint.
        monitor: what is best: the highest mAP or the lowest loss.
    """

    def __init__(self, folder: Path, keep: Callable[[Path], None], monitor: Monitor = "mAP") -> None:
        # save after the validation, before LastCheckpoint saves this callback's state at the end of the epoch
        super().__init__(
            folder,
            "best",
            monitor=f"val/{monitor}",
            mode=DIRECTION[monitor],
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )
        self.keep = keep

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Set up without the warning that the folder is not empty: a resumed run has its checkpoints there."""
        self.save_top_k = 0
        super().setup(trainer, pl_module, stage)
        self.save_top_k = 1

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare this validation, unless the prior loss is still on."""
        if isinstance(pl_module, Training) and pl_module.uses_prior_loss:
            return
        before = self.best_model_score
        super().on_validation_end(trainer, pl_module)
        if self.best_model_score is not before:
            self.keep(Path(self.best_model_path))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score with the path of today: a run folder may have been moved or copied."""
        score, own = state_dict["best_model_score"], str(Path(self.dirpath or "", "best.ckpt"))
        best = {"best_model_path": own, "best_k_models": {own: score}, "kth_best_model_path": own, "kth_value": score}
        best = {} if score is None else best
        super().load_state_dict({**state_dict, "dirpath": self.dirpath, "last_model_path": "", **best})


class Patience(EarlyStopping):
    """Stops a run that no longer improves; validations under the prior loss do not count."""

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare this validation, unless the prior loss is still on."""
        if not (isinstance(pl_module, Training) and pl_module.uses_prior_loss):
            super().on_validation_end(trainer, pl_module)


class MovingAverage(AveragedModel):
    """A moving average of a module's weights and statistics; at update n its decay is min(decay, (1 + n) / (10 + n)).

    The number of updates stays on the host; AveragedModel reads it from the device, which a GPU waits for.
    """

    def __init__(self, module: lightning.LightningModule, decay: float) -> None:
        super().__init__(module, use_buffers=True)
        self.decay = decay

    def update_parameters(self, model: torch.nn.Module) -> None:
        """Average all floating-point tensors at once; counts are copied, and at first everything."""
        n = int(self.n_averaged)
        decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        own = chain(self.module.parameters(), self.module.buffers())
        pairs = list(zip(own, chain(model.parameters(), model.buffers()), strict=True))
        numbers = [(mine.detach(), new.detach()) for mine, new in pairs if mine.is_floating_point()]
        get_ema_multi_avg_fn(decay)([mine for mine, _ in numbers], [new for _, new in numbers], n)  # type: ignore[no-untyped-call]
        for mine, new in pairs:
            if not mine.is_floating_point():
                mine.copy_(new)
        self.n_averaged += 1


class Averaging(WeightAveraging):
    """Keeps a moving average of the weights on the device that trains, and validates and ends with it."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    @property
    def state_key(self) -> str:
        """Return the name in checkpoints, also in those of version 0.1."""
        return "WeightAveraging"

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Make the average."""
        self._average_model = MovingAverage(pl_module, self.decay)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Move the average to the network's device: Lightning sets callbacks up before it moves the network."""
        assert self._average_model is not None
        updates = self._average_model.n_averaged
        self._average_model.to(pl_module.device).n_averaged = updates


class Engine:
    """The training loop of one run.

    Args:
        config: of the run, with settings fitted to the training set.
        folder: the run folder.
        cache: the training images.
        report: writes the page of the run; holds its validation.
        checkpoint: where to resume; None: start from the beginning.
        keep: called with each new best checkpoint or, without validation, with that of each epoch.
        began: time.monotonic() when the command began.
    """

    def __init__(self, config: RunConfig, folder: Path, cache: ImageCache, report: RunReport, checkpoint: Path | None,
                 keep: Callable[[Path], None], began: float) -> None:  # fmt: skip
        self.config, self.folder, self.cache, self.report, self.checkpoint = config, folder, cache, report, checkpoint
        self.keep = keep
        self.sampler = Shuffled(len(cache.dataset), config.seed, max(1, config.settings.variants),
                                tile_blocks(cache.dataset))  # fmt: skip
        self.progress = Progress(report, config.settings.steps)
        self.began = began
        self._held = ExitStack()
        self.history = History(folder / "metrics.csv")
        self.last = LastCheckpoint(folder / "checkpoints" / "last.ckpt", self.sampler, config.settings.batch_size,
                                   config.checkpoint_minutes, self.history,
                                   keep if report.validation is None else None)  # fmt: skip

    def fit(self, module: Training) -> None:
        """Train to the end.

        Raises Stopped after a signal, OSError or UserError if a file cannot be written, UserError for a checkpoint that
        does not fit.
        """
        config, how, val = self.config, self.config.settings, self.report.validation
        device = choose_device(config.device)
        precision, why = choose_precision(device)
        if config.precision != "auto":
            precision, why = (
                ("32-true" if config.precision == "fp32" else "bf16-mixed"),
                f"{config.precision} (--precision)",
            )
        steps = -(-len(self.sampler) // how.batch_size)
        length = f"{how.epochs} epochs of {steps} steps"
        length = f"{how.steps} steps" if how.steps else f"{how.minutes:g} min" if how.minutes else length
        log.info("%s, batch size %d%s; %s; %s", length, how.batch_size, ", mosaics" if how.augment.mosaic else "",
                 device, why)  # fmt: skip
        layers, channels = module.network.layers, module.network.channels
        self.report.state = replace(
            self.report.state, epochs=how.epochs, parameters=num_floats(layers, channels), device=device,
            gflop=num_operations(layers, (how.size, how.size), channels) / 1e9,
            precision="bf16" if precision.startswith("bf16") else "fp32",
        )  # fmt: skip
        keep_freed_memory()
        with quiet():
            trainer = lightning.Trainer(
                accelerator=kind if (kind := device.partition(":")[0]) != "cuda" else "gpu",
                devices=[int(device.partition(":")[2] or 0)] if kind == "cuda" else 1,
                precision=cast(Any, precision),
                max_epochs=how.epochs,
                min_epochs=0,  # StepLimit may end the first epoch
                callbacks=self._callbacks(),
                logger=[self.history, TensorBoardLogger(self.folder, name="", version="tensorboard")],
                plugins=[WholeFiles()],
                check_val_every_n_epoch=1 if how.patience else validate_every(cast(int, how.epochs)),
                num_sanity_val_steps=0,
                log_every_n_steps=10,
                enable_model_summary=False,
                enable_progress_bar=False,
                enable_checkpointing=val is not None,  # without validation Lightning would add its own
                use_distributed_sampler=False,
                deterministic=config.deterministic,
            )
            module.to(memory_format=torch.channels_last)
            try:
                with self._held:
                    loaders = self._loaders(module, device, val)
                    trainer.fit(module, *loaders, ckpt_path=self.checkpoint, weights_only=True)
            except (UserError, OSError):
                raise
            except Exception as error:
                if self.checkpoint is None or self.last.began:
                    raise
                raise UserError(f"{self.checkpoint}: does not fit this run ({reason(error)}); its network.cfg or "
                                "checkpoint belongs to another run, or is damaged") from error  # fmt: skip
            ended = trainer.current_epoch >= (trainer.max_epochs or 0) or trainer.global_step >= module.total_steps
            if self.last.stop_signal and not ended:
                raise Stopped(self.last.stop_signal)

    def _loaders(self, module: Training, device: str, val: Validation | None) -> tuple[DataLoader[Any], Any]:
        """Return the loaders of training and validation: of images, or of the frozen backbone's outputs."""
        how, on_gpu = self.config.settings, device.startswith("cuda")
        workers = self.config.workers
        if workers is None:
            workers = min(usable_cores() - 1, MOST_WORKERS) if on_gpu else 0
        own = torch.Generator()  # for the loaders; the global generator belongs to the network (dropout)
        images: Any = TrainingImages(self.cache, how.difficult)
        inputs: Any = None if val is None else Inputs(val.seen, val.input_size, val.mode)
        if how.features != "none":
            backbone = FrozenBackbone(module, self.config)
            self._held.callback(backbone.close)
            images, inputs = backbone.training(images), None if inputs is None else backbone.validation(inputs)
        else:
            module.store = open_store(self.cache.sizes, device)
            self.sampler.held = None if module.store is None else module.store.held
        training = DataLoader(
            images, how.batch_size, sampler=self.sampler, collate_fn=collate, num_workers=workers,
            persistent_workers=workers > 0, pin_memory=on_gpu, worker_init_fn=ignore_interrupts,
            generator=own,
        )  # fmt: skip
        if inputs is None:
            return training, None
        return training, DataLoader(inputs, batch_size=8, collate_fn=collate_inputs, generator=own)

    def _callbacks(self) -> list[Callback]:
        how, folder = self.config.settings, self.folder / "checkpoints"
        first = FirstBatch(self.folder / "train_batch.jpg", self.cache.dataset.labels)
        found: list[Callback] = [first, self.progress]
        if how.minutes:
            found.append(TimeLimit(how.minutes, self.began, how.steps, self.progress))
        elif how.steps:
            found.append(StepLimit(how.steps))
        if how.ema:
            found.append(Averaging(how.ema))
        if self.report.validation is not None:
            found.append(self.report.validation)
            found.append(BestCheckpoint(folder, self.keep, how.monitor))
            if how.patience:
                found.append(Patience(f"val/{how.monitor}", how.min_delta, how.patience, mode=DIRECTION[how.monitor],
                                      check_on_train_epoch_end=False))  # fmt: skip
        return [*found, self.report, self.last]


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step; without glibc do nothing.

    Feature maps take some 100 MB each. If they are returned to the kernel, it clears their pages again in every step,
    which took a third of the time of yolov2_tiny on two cores (docs/results.md).
    Source: mallopt(3), M_MMAP_MAX = -4 and M_TRIM_THRESHOLD = -1.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)
        mallopt(-1, -1)


@contextmanager
def quiet() -> Iterator[None]:
    """Run Lightning without its hardware lists and its hints, which are not about what a user of lookonce did."""
    engine = logging.getLogger("lightning.pytorch")
    level = engine.level
    engine.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)  # few workers, frozen layers, a run without validation
        warnings.simplefilter("ignore", FutureWarning)  # Lightning's own use of torch.utils._pytree
        try:
            yield
        finally:
            engine.setLevel(level)
