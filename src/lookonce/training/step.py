"""One training step as the method reads: augment, network, targets, loss. The engine is Lightning's Trainer."""

from __future__ import annotations

import math
from typing import Any, cast

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from lookonce.data.augment import InputBatch, augment_batch, mosaic, sample_parameters
from lookonce.data.loader import Batch
from lookonce.errors import ConfigError, NonFiniteLossError
from lookonce.inference.backends.torch import computes_bf16
from lookonce.model.detections import Predictions
from lookonce.model.heads import decode, loss
from lookonce.model.losses import LossOptions, Objects
from lookonce.model.network import Network
from lookonce.training.config import Device
from lookonce.training.history import Means
from lookonce.training.recipes import Settings, learning_rate_factor

WHOLE_IMAGES = 0.3
"""Last share of a run that shows no mosaics, so that the network and its batch norm end on what detection sees."""
STEPS_A_ROW = 10
"""Steps from one row of numbers to the next."""
STEPS_A_SIDE = 10
"""Steps between two draws of the input side. Source: YOLO9000, section 2, multi-scale training."""


class Training(lightning.LightningModule):
    """A network being trained.

    Args:
        network: ends in a region layer.
        settings: fitted to the training set (epochs known).
        seed: every random draw derives from it, the epoch and the image.
    """

    def __init__(self, network: Network, settings: Settings, seed: int) -> None:
        super().__init__()
        self.network, self.settings, self.seed = network, settings, seed
        self.seen = 0
        self.means = Means()
        self.split_index = 0  # layers below it are not run: their outputs come from a cache
        network.freeze(frozen_convolutions(network, settings.freeze))

    @property
    def warming_up(self) -> bool:
        """Whether predictors are still drawn to their anchors."""
        return self.seen <= self.settings.prior_loss_images and self.settings.prior_loss_images > 0

    def input_size(self) -> tuple[int, int]:
        """(W, H) of the input at this step."""
        sides = self.settings.multi_scale or (self.settings.size,)
        side = int(np.random.default_rng((self.seed, self.global_step // STEPS_A_SIDE)).choice(sides))
        return side, side

    def training_step(self, batch: Batch, _: int) -> Tensor | None:
        """Loss of one batch; None where none of its images could be decoded."""
        if not len(batch):
            return None
        how = self.settings
        drawn = sample_parameters(self.seed, variant_of(self.current_epoch, how), batch.index.cpu().numpy())
        view = mosaic if self.shows_mosaic(drawn) else augment_batch
        given = view(batch, self.input_size(), how.resize, how.augment, drawn)
        raws = self.raws(given)
        self.seen += len(batch)
        terms = self.loss_terms(raws, given)
        for name, value in terms.items():
            if name != "recall" and not value.isfinite():
                raise NonFiniteLossError(name, batch.index.tolist(), batch)
        self._report(terms, len(batch))
        return terms["total"]

    def _report(self, terms: dict[str, Tensor], images: int) -> None:
        """Note the step's numbers, and give the loggers every tenth's: Lightning's own log takes 10 ms for them."""
        known = {("loss" if name == "total" else name): value.detach() for name, value in terms.items()}
        self.means.add(known, images)
        if self.global_step % STEPS_A_ROW == STEPS_A_ROW - 1:
            row = {f"{name}_step": value.item() for name, value in self.means.last.items()}
            row |= {"epoch": self.current_epoch, "seen": self.seen, "rate": self._rate()}
            for logger in self.loggers:
                logger.log_metrics(row, self.global_step)

    def _rate(self) -> float:
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self) -> None:
        """Report the means of the epoch's steps."""
        self.log_dict({f"{name}_epoch": value for name, value in self.means.take().items()})

    def shows_mosaic(self, drawn: NDArray[np.float64]) -> bool:
        """Whether this step's inputs are mosaics: by its draws [B, PARAMETERS], and never in a run's last part."""
        if self.settings.features != "none" or drawn[0, -1] >= (self.settings.augment.mosaic or 0):
            return False
        left = 1 - self.trainer.global_step / self.trainer.estimated_stepping_batches
        return left > WHOLE_IMAGES

    def raws(self, given: InputBatch) -> tuple[Tensor, ...]:
        """Return the raw maps, one a head, from the images or from the outputs of the frozen backbone."""
        if not given.outputs:
            return cast(tuple[Tensor, ...], self.network(given.images))
        return self.network.forward_head(tuple(output.float() for output in given.outputs), self.split_index)

    def loss_terms(self, raws: tuple[Tensor, ...], given: InputBatch) -> dict[str, Tensor]:
        """Return the loss terms of the raw maps, summed over heads, in float32."""
        objects = Objects(given.boxes, given.labels, given.image_index, given.ignore)
        options = LossOptions(self.settings.loss, self.settings.match_iou, self.warming_up)
        with torch.autocast(raws[0].device.type, enabled=False):
            return loss(raws, self.network.heads, objects, options)

    def validation_step(self, given: InputBatch, _: int) -> Predictions[Tensor]:  # type: ignore[override]
        """What the network (averaged, where there is an average) sees; its loss as `val/loss`."""
        raws = self.raws(given)
        self.log("val/loss", self.loss_terms(raws, given)["total"], batch_size=len(raws[0]))
        return decode(raws, self.network.heads)

    def configure_optimizers(self) -> Any:
        """The optimiser and its schedule, by step."""
        optimizer = make_optimizer(self.network, self.settings)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps, self.settings))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Limit the gradient. Not through Lightning, which refuses fused optimisers in bf16 for a scaler of fp16's."""
        if self.settings.gradient_clip:
            own = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(own, self.settings.gradient_clip)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the count of images seen (warm-up goes by it and never starts again) and how batch norms read."""
        checkpoint["seen"] = self.seen
        checkpoint["sigmas"] = [tuple(sigma) for sigma in self.network.sigmas]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take both."""
        self.seen = int(checkpoint["seen"])
        self.network.sigmas = checkpoint["sigmas"]


def variant_of(epoch: int, settings: Settings) -> int:
    """Which draws an epoch takes: its own, or those of one of the kept variants."""
    return epoch % settings.variants if settings.variants else epoch


def expect_little(network: Network, prior: float) -> None:
    """Set the last biases so that an untrained network's objectness is the prior: most cells are background.

    Source: Lin et al., Focal Loss for Dense Object Detection (2017), section 4.1, initialization.
    """
    for head, convolution in zip(network.heads, network.head_convolutions(), strict=True):
        bias = convolution.bias
        assert bias is not None  # the convolution before a head has no batch norm
        with torch.no_grad():
            bias.view(len(head.layer.anchors), -1)[:, 4] = math.log(prior / (1 - prior))


def frozen_convolutions(network: Network, freeze: str) -> int:
    """How many convolutions from the start stay as they are.

    Raises ConfigError where the network has no Darknet-19 backbone, not that many, or would learn nothing.
    """
    own = len(network.convolution_list())
    count = {"none": 0, "features": 18, "all_but_last": own - 1}.get(freeze)
    count = int(freeze) if count is None else count
    if freeze == "features" and own < 22:
        raise ConfigError(f"freeze: features are the 18 convolutions of Darknet-19, and this network has {own} in all; "
                          "give a number")  # fmt: skip
    if count >= own:
        raise ConfigError(f"freeze: {count} convolutions of {own} leave nothing to train; at most {own - 1}")
    return count


def make_optimizer(network: Network, settings: Settings) -> torch.optim.Optimizer:
    """The optimiser; weight decay on the weights of convolutions alone, as in Darknet."""
    own = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in own if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in own if p.ndim == 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    lr, beta = settings.learning_rate, settings.momentum
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, lr=lr, momentum=beta, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=lr, betas=(beta, 0.999), fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, betas=(beta, 0.999), fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=lr, momentum=beta)


def choose_device(device: Device) -> str:
    """cpu or cuda: what was asked for, or a GPU where there is one. Raises ConfigError for a GPU that is not there."""
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ConfigError(
            f"device: cuda; PyTorch {torch.__version__} finds no CUDA GPU on this machine; use device auto or cpu"
        )
    return "cuda" if there and device != "cpu" else "cpu"


def choose_precision(device: str) -> tuple[str, str]:
    """(Lightning's precision, why) for a device: bf16 where the machine computes in it, else fp32."""
    if device == "cuda":
        if computes_bf16(device):
            return "bf16-mixed", f"bf16 on {torch.cuda.get_device_name()}"
        return "32-true", f"fp32: {torch.cuda.get_device_name()} has no bf16"
    if computes_bf16():
        return "bf16-mixed", "bf16: this CPU has the instructions"
    return "32-true", "fp32: this CPU has no AVX512-BF16 or AMX instructions"
