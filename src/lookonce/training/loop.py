"""The training loop: Lightning's Trainer with its callbacks, loggers and data loaders."""

from __future__ import annotations

import ctypes
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback, EarlyStopping, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from lookonce.data.device_images import open_store
from lookonce.data.images import usable_cores
from lookonce.data.loader import ImageCache, Share, Shuffled, TrainingImages, collate, tile_blocks
from lookonce.errors import UserError
from lookonce.model.model_file import Model
from lookonce.model.sizes import num_floats, num_operations
from lookonce.training.checkpoints import DIRECTION, BestModel, LastCheckpoint, State, WholeFiles
from lookonce.training.config import MODEL, RunConfig, reason
from lookonce.training.duration import StepLimit, TimeLimit, int8_obstacle, validate_every
from lookonce.training.feature_cache import FrozenBackbone
from lookonce.training.history import History, RunReport
from lookonce.training.progress import FirstBatch, Progress
from lookonce.training.ranks import ALONE, Ranks
from lookonce.training.signals import Stopped, ignore_interrupts
from lookonce.training.step import Training, choose_device, choose_precision
from lookonce.training.validation import Inputs, Validation, collate_inputs

log = logging.getLogger("lookonce")
FEW_TO_NORMALIZE = 16
"""Images of a process below which batch norm uses those of all, unless --sync-batch-norm says otherwise."""
MOST_WORKERS = 16
"""Most processes that load images unless --workers gives more."""


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


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Return the sum. values: [...]."""
        found = values.clone()
        torch.distributed.all_reduce(found)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the gradient of the values."""
        found = grad.clone()
        torch.distributed.all_reduce(found)
        return found


@dataclass(frozen=True)
class Session:
    """A stretch of a run: where, from which checkpoint (None: from the start), since when, and with which processes."""

    folder: Path
    checkpoint: Path | None
    began: float
    """time.monotonic() when the command began."""
    ranks: Ranks = ALONE


class Engine:
    """The training loop of one run.

    Args:
        config: of the run, with settings fitted to the training set.
        session: where the run goes on.
        cache: the training images.
        report: writes the page of the run; holds its validation.
        make: makes the model of a checkpoint.
    """

    def __init__(self, config: RunConfig, session: Session, cache: ImageCache, report: RunReport,
                 make: Callable[[State], Model]) -> None:  # fmt: skip
        self.config, self.session, self.cache, self.report = config, session, cache, report
        self.folder, self.checkpoint, self.ranks = session.folder, session.checkpoint, session.ranks
        folder, ranks = self.folder, self.ranks
        self.sampler = Shuffled(len(cache.dataset), config.seed, max(1, config.settings.variants),
                                tile_blocks(cache.dataset))  # fmt: skip
        self.progress = Progress(report, config.settings.steps)
        self._held = ExitStack()
        self.history = History(folder / "metrics.csv")
        monitor = None if report.validation is None else config.settings.monitor
        self.best = BestModel(folder / MODEL, make, monitor, ranks)
        self.last = LastCheckpoint(folder / "checkpoints" / "last.ckpt", self.sampler, config.settings.batch_size,
                                   config.checkpoint_minutes, self.history, folder / MODEL, ranks)  # fmt: skip

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
                **self._placed(device),
                precision=cast(Any, precision),
                max_epochs=how.epochs,
                min_epochs=0,  # StepLimit may end the first epoch
                callbacks=self._callbacks(),
                logger=self._loggers(),
                check_val_every_n_epoch=1 if how.patience else validate_every(cast(int, how.epochs)),
                num_sanity_val_steps=0,
                log_every_n_steps=10,
                enable_model_summary=False,
                enable_progress_bar=False,
                enable_checkpointing=False,  # Lightning would add its own
                use_distributed_sampler=False,
                deterministic=config.deterministic,
            )
            module.to(memory_format=torch.channels_last)
            self._join(module)
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

    def _placed(self, device: str) -> dict[str, Any]:
        """Return Lightning's words for the devices and processes."""
        kind, _, number = device.partition(":")
        found: dict[str, Any] = {"accelerator": "gpu" if kind == "cuda" else kind, "plugins": [WholeFiles()]}
        if self.ranks.size == 1:
            return {**found, "devices": [int(number or 0)] if kind == "cuda" else 1}
        found["plugins"].append(TorchElasticEnvironment())  # reads what Ranks says, and starts no process
        return {**found, "devices": self.ranks.local_size, "num_nodes": self.ranks.nodes,
                "strategy": DDPStrategy(broadcast_buffers=False)}  # fmt: skip

    def _loggers(self) -> list[Any] | bool:
        """Return the loggers; only rank 0 has any."""
        if not self.ranks.is_first:
            return False
        return [self.history, TensorBoardLogger(self.folder, name="", version="tensorboard")]

    def _join(self, module: Training) -> None:
        """Make a module part of those of the other processes: weights of rank 0, its share of the batches."""
        ranks, how = self.ranks, self.config.settings
        if ranks.size == 1:
            return
        for tensor in module.state_dict().values():
            torch.distributed.broadcast(tensor, 0)
        module.network.sigmas = ranks.from_first(module.network.sigmas)
        alone = None
        if how.augment.mosaic and how.features == "none":
            alone = np.array([record.image_label >= 0 for record in self.cache.dataset.records])
        module.share = Share(self.sampler, how.batch_size, ranks.rank, ranks.size, alone)
        few = how.batch_size < FEW_TO_NORMALIZE * ranks.size
        if self.config.sync_batch_norm == "always" or (self.config.sync_batch_norm == "auto" and few):
            for norm in module.network.norms():
                norm.sum_over_processes = SumOverProcesses.apply

    def _loaders(self, module: Training, device: str, val: Validation | None) -> tuple[DataLoader[Any], Any]:
        """Return the loaders of training and validation: of images, or of the frozen backbone's outputs."""
        how, on_gpu = self.config.settings, device.startswith("cuda")
        workers = self.config.workers
        if workers is None:
            cores = usable_cores() // self.ranks.local_size
            workers = min(max(1, cores - 1), MOST_WORKERS) if on_gpu and usable_cores() > 1 else 0
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
        batches: dict[str, Any] = {"batch_sampler": module.share}
        if module.share is None:
            batches = {"batch_size": how.batch_size, "sampler": self.sampler}
        training = DataLoader(
            images, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0, pin_memory=on_gpu,
            worker_init_fn=ignore_interrupts, generator=own, **batches,
        )  # fmt: skip
        if inputs is None or val is None:
            return training, None
        return training, DataLoader(inputs, batch_sampler=val.batches(), collate_fn=collate_inputs, generator=own)

    def _callbacks(self) -> list[Callback]:
        how = self.config.settings
        first = FirstBatch(self.folder / "train_batch.jpg", self.cache.dataset.labels)
        found: list[Callback] = [first, self.progress] if self.ranks.is_first else [self.progress]
        if how.minutes:
            images = 0 if self.report.validation is None else len(self.report.validation.dataset)
            int8 = int8_obstacle(self.config, images) is None
            found.append(TimeLimit(how.minutes, self.session.began, how.steps, self.progress, int8, self.ranks))
        elif how.steps:
            found.append(StepLimit(how.steps))
        if how.ema:
            found.append(Averaging(how.ema))
        if self.report.validation is not None:
            found.append(self.report.validation)
            if how.patience:
                found.append(Patience(f"val/{how.monitor}", how.min_delta, how.patience, mode=DIRECTION[how.monitor],
                                      check_on_train_epoch_end=False))  # fmt: skip
        return [*found, self.best, *([self.report] if self.ranks.is_first else []), self.last]


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
