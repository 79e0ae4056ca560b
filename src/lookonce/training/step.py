"""One training step as the method reads: augment, network, loss. The engine is Lightning's Trainer."""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import chain
from typing import Any, NamedTuple, cast

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from lookonce.data.augment import InputBatch, augment_batch, mosaic, sample_parameters
from lookonce.data.device_images import DeviceStore
from lookonce.data.loader import Batch, Share
from lookonce.errors import ConfigError, NonFiniteLossError
from lookonce.inference.backends.torch import computes_bf16, gains_from_bf16
from lookonce.model.detections import Predictions
from lookonce.model.heads import decode, loss
from lookonce.model.losses import LossOptions, Objects
from lookonce.model.network import Network
from lookonce.model.resize import FILL
from lookonce.model.sizes import last_convolutions, last_stage
from lookonce.model.tree import Tree
from lookonce.training.distillation import Teacher, distillation_loss
from lookonce.training.history import Means
from lookonce.training.ranks import ALONE, Ranks
from lookonce.training.recipes import Settings, learning_rate_factor

WITHOUT_MOSAICS = 0.3
"""Last fraction of a run, which uses no mosaics, so that the network and its batch norm end on whole images."""
LOG_EVERY = 10
"""Steps between two rows of metrics.csv, and between two readings from a GPU, each of which waits for its work."""
RESIZE_EVERY = 10
"""Steps between two random choices of the input size. Source: YOLO9000, section 2, multi-scale training."""


class _Step(NamedTuple):
    """A step whose loss was not read from the device yet."""

    terms: dict[str, Tensor]
    images: list[int]
    objects: int


class Training(lightning.LightningModule):
    """A network being trained.

    Args:
        network: ends in a region layer.
        settings: fitted to the training set.
        seed: with the epoch and the image it gives every random number.
        class_weights: [C] weight of each class in the loss; None: all 1.
        tree: of the classes; None: there is none.
        ranks: the processes that train it together.
        teacher: whose predictions it learns as well; None: it learns the labels alone.
    """

    def __init__(
        self, network: Network, settings: Settings, seed: int, class_weights: tuple[float, ...] | None = None,
        tree: Tree | None = None, ranks: Ranks = ALONE, teacher: Teacher | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.teacher = teacher
        self.network, self.settings, self.seed, self.tree = network, settings, seed, tree
        self.class_weights, self.ranks = class_weights, ranks
        self.share: Share | None = None  # of each batch; None: this process computes all of it
        self.seen = 0
        self._recalls = (0.0, 0)  # their sum and number, over the steps of the run that had objects
        self.means = Means()
        self._unread: list[_Step] = []
        self.split_index = 0  # the outputs of the layers below come from a cache
        self.store: DeviceStore | None = None  # keeps images on a GPU
        self.planned_steps: int | None = None  # what a limit of time allows
        network.freeze(frozen_convolutions(network, settings.freeze))

    @property
    def uses_prior_loss(self) -> bool:
        """Whether the prior loss is still on, which pulls predictions to their anchors."""
        return self.seen <= self.settings.prior_loss_end and self.settings.prior_loss_end > 0

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the run; with a limit of time they change."""
        if self.planned_steps is not None:
            return self.planned_steps
        steps = int(self.trainer.estimated_stepping_batches)
        return min(steps, self.settings.steps or steps)

    def input_size(self) -> tuple[int, int]:
        """Return (W, H) of the input at this step."""
        sides = self.settings.multi_scale or (self.settings.size,)
        side = int(np.random.default_rng((self.seed, self.global_step // RESIZE_EVERY)).choice(sides))
        return side, side

    def training_step(self, batch: Batch, number: int) -> Tensor | None:
        """Return the loss of a batch; None if none of its images could be decoded.

        Of several processes each returns its part of the loss, weighted for DDP, which averages gradients.
        """
        own = self._own(batch, number)
        images = int(self.ranks.sum([len(own)])[0])
        if not images:
            return None
        inputs = self.inputs(batch, number) if len(own) else self._nothing()
        raws = self.raws(inputs)
        self.seen += images // (1 if self.share is None else self.share.copies(self.current_epoch, number))
        terms = self.loss_terms(raws, inputs)
        if self.teacher is not None:
            terms |= self._distillation(raws, inputs, self.teacher, terms["total"])
        values = {name: value.detach() for name, value in terms.items()}
        self._unread.append(_Step(values, own.index.tolist(), len(inputs.labels)))
        logged = self.global_step % LOG_EVERY == LOG_EVERY - 1
        if logged or self.device.type == "cpu":
            self.read_steps()
        if logged:
            self._log_step()
        return terms["total"] if self.ranks.size == 1 else terms["total"] * (len(own) * self.ranks.size / images)

    def _own(self, batch: Batch, number: int) -> Batch:
        """Return this process's images of a batch, without those that only its mosaics need."""
        return batch if self.share is None else batch.only(self.share.own(self.current_epoch, number))

    def _nothing(self) -> InputBatch:
        """Return a grey image without objects, for a process whose images cannot be decoded: the others wait for it."""
        width, height = self.input_size()
        grey = torch.full((1, 3, height, width), FILL, device=self.device)
        none = torch.zeros(0, dtype=torch.long)
        return InputBatch(grey, torch.zeros(0, 4), none, none, none.bool())

    def read_steps(self) -> None:
        """Add the steps since the last call to the means of the epoch: the device is read from once.

        Raises NonFiniteLossError.
        """
        unread, self._unread = self._unread, []
        if not unread:
            return
        values = iter(torch.cat([torch.stack([*step.terms.values()]) for step in unread]).tolist())
        for step in unread:
            own = {name: next(values) for name in step.terms}
            whole, count = self._of_all(own, step)
            for name, value in whole.items():
                if name != "recall" and not math.isfinite(value):
                    guilty = [] if math.isfinite(own[name]) else step.images
                    raise NonFiniteLossError(name, [*chain(*self.ranks.gathered(guilty))])
            if math.isfinite(whole["recall"]):
                self._recalls = self._recalls[0] + whole["recall"], self._recalls[1] + 1
            whole["average_recall"] = self._recalls[0] / max(self._recalls[1], 1)
            self.means.add({("loss" if name == "total" else name): value for name, value in whole.items()}, count)

    def leave_unread(self) -> None:
        """Forget the steps that were not read: the processes that would read them together have lost one another."""
        self._unread = []

    def _of_all(self, terms: dict[str, float], step: _Step) -> tuple[dict[str, float], int]:
        """Return the terms of a step over all processes, and its number of images."""
        if self.ranks.size == 1:
            return terms, len(step.images)
        weights = {name: step.objects if name == "recall" else len(step.images) for name in terms}
        parts = [weights[name] * value if weights[name] else 0.0 for name, value in terms.items()]
        sums = self.ranks.sum([*parts, *weights.values()])
        totals = zip(sums[: len(parts)], sums[len(parts) :], strict=True)
        found = {name: total / weight if weight else math.nan
                 for name, (total, weight) in zip(terms, totals, strict=True)}  # fmt: skip
        return found, int(sums[len(parts)])

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move what the network sees. The objects stay on the host, where targets are made."""
        moved = batch.to(device)
        return self.store.supply(moved) if self.store is not None and isinstance(moved, Batch) else moved

    def inputs(self, batch: Batch, number: int = 0) -> InputBatch:
        """Return the augmented inputs of a batch, the same for the same epoch. number: of the batch in the epoch."""
        how, own = self.settings, self._own(batch, number)
        variant = self.current_epoch % how.variants if how.variants else self.current_epoch
        first = batch.index.numpy() if self.share is None else self.share.whole(self.current_epoch, number)
        mixed = self.uses_mosaic(sample_parameters(self.seed, variant, first[:1]))
        source, augment = (batch, mosaic) if mixed else (own, augment_batch)
        parameters = sample_parameters(self.seed, variant, source.index.numpy())
        return augment(source, self.input_size(), how.resize, how.augment, parameters).first(len(own))

    def _log_step(self) -> None:
        """Write the last step to the logs. Lightning's own log would take 10 ms."""
        rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        row = {f"{name}_step": value for name, value in self.means.last.items()}
        for logger in self.loggers:
            logger.log_metrics({**row, "epoch": self.current_epoch, "seen": self.seen, "rate": rate}, self.global_step)

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch."""
        self.read_steps()
        self.log_dict({f"{name}_epoch": value for name, value in self.means.reset().items()})

    def uses_mosaic(self, parameters: NDArray[np.float64]) -> bool:
        """Return whether this step uses mosaics: by its parameters [B, PARAMETERS], never in the last part of a run."""
        if self.settings.features != "none" or parameters[0, -1] >= (self.settings.augment.mosaic or 0):
            return False
        return 1 - self.trainer.global_step / self.total_steps > WITHOUT_MOSAICS

    def raws(self, inputs: InputBatch) -> tuple[Tensor, ...]:
        """Return the raw maps, one per head, from the images or from the cached outputs of the frozen backbone."""
        if not inputs.outputs:
            return cast(tuple[Tensor, ...], self.network(inputs.images))
        return self.network.forward_head(tuple(output.float() for output in inputs.outputs), self.split_index)

    def loss_terms(self, raws: tuple[Tensor, ...], inputs: InputBatch) -> dict[str, Tensor]:
        """Return the loss terms of the raw maps, summed over heads, in float32."""
        objects = Objects(inputs.boxes, inputs.labels, inputs.image_index, inputs.ignore, inputs.image_labels)
        how = self.settings
        options = LossOptions(how.loss, how.match_iou, self.uses_prior_loss, self.class_weights, how.iou_gradient,
                              self.tree)  # fmt: skip
        with torch.autocast(raws[0].device.type, enabled=False):
            return loss(raws, self.network.heads, objects, options)

    def _distillation(self, raws: tuple[Tensor, ...], inputs: InputBatch, teacher: Teacher,
                      total: Tensor) -> dict[str, Tensor]:  # fmt: skip
        """Return the term of the teacher, and the total of the loss with it, in float32."""
        aims = teacher(inputs)
        with torch.autocast(raws[0].device.type, enabled=False):
            term = distillation_loss(raws, aims, self.network.heads, self.tree)
        return {"distillation": term, "total": total + term}

    def validation_step(self, inputs: InputBatch, _: int) -> tuple[Predictions[Tensor], Tensor]:  # type: ignore[override]
        """Return the predictions of the (averaged) network and their loss."""
        raws = self.raws(inputs)
        return decode(raws, self.network.heads, self.tree), self.loss_terms(raws, inputs)["total"]

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, by step."""
        optimizer = make_optimizer(self.network, self.settings)
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, self.total_steps, self.settings))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, then add that of --sparsity. Lightning's own clipping refuses fused optimizers in bf16."""
        if self.settings.gradient_clip:
            own = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(own, self.settings.gradient_clip)
        if self.settings.sparsity:
            add_sparsity(self.network, self.settings.sparsity)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the number of images seen, which the prior loss depends on, and the sigmas of batch norm.

        Raises NonFiniteLossError: the weights of a run that failed are not saved.
        """
        self.read_steps()
        checkpoint["seen"], checkpoint["recalls"] = self.seen, self._recalls
        checkpoint["sigmas"] = [tuple(sigma) for sigma in self.network.sigmas]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them; version 0.1 did not save the recalls."""
        self.seen = int(checkpoint["seen"])
        self._recalls = tuple(checkpoint.get("recalls", (0.0, 0)))
        self.network.sigmas = checkpoint["sigmas"]


def add_sparsity(network: Network, weight: float) -> None:
    """Add to the gradients of batch norm's gammas that of weight * sum |gamma|: channels that matter little go to 0.

    Source: Liu et al., Learning Efficient Convolutional Networks through Network Slimming (2017), equation 1.
    """
    for norm in network.norms():
        if norm.weight.grad is not None:
            norm.weight.grad.add_(norm.weight.detach().sign(), alpha=weight)


def set_objectness_prior(network: Network, prior: float, loaded: Collection[int] = ()) -> None:
    """Set the last biases so that an untrained network's objectness is the prior: most cells are background.

    loaded: layers of last convolutions that are trained already. A prior of .5 changes nothing: it is what biases about
    0 give.
    Source: Lin et al., Focal Loss for Dense Object Detection (2017), section 4.1, initialization.
    """
    if prior == 0.5:
        return
    last = last_convolutions(network.layers)
    for index, head, convolution in zip(last, network.heads, network.head_convolutions(), strict=True):
        if index in loaded:
            continue
        bias = convolution.bias
        assert bias is not None  # the convolution before a head has no batch norm
        if not head.layer.anchors:  # a detection layer: its objectness is no logit
            continue
        with torch.no_grad():
            bias.view(len(head.layer.anchors), -1)[:, 4] = math.log(prior / (1 - prior))


def frozen_convolutions(network: Network, freeze: str) -> int:
    """Return how many convolutions from the start are frozen.

    Raises ConfigError if the network has no Darknet-19 backbone, or if nothing would be left to train.
    """
    own = len(network.convolution_list())
    before = sum(int(index) < last_stage(network.layers) for index in network.convolutions)
    count = {"none": 0, "features": 18, "all_but_last_stage": before, "all_but_last": own - 1}.get(freeze)
    count = int(freeze) if count is None else count
    if freeze == "features" and own < 22:
        raise ConfigError(f"freeze: features means the 18 convolutions of Darknet-19, but this network has only {own}; "
                          "give a number")  # fmt: skip
    if count >= own:
        raise ConfigError(f"freeze: {count} convolutions of {own} leave nothing to train; at most {own - 1}")
    return count


def make_optimizer(network: Network, settings: Settings) -> torch.optim.Optimizer:
    """Return the optimizer; weight decay applies to the weights of convolutions only, as in Darknet."""
    own = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in own if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in own if p.ndim == 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    lr, beta, epsilon = settings.learning_rate, settings.momentum, settings.epsilon
    betas = beta, 0.999 if settings.beta2 is None else settings.beta2
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, lr=lr, momentum=beta, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=lr, betas=betas, eps=epsilon, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=epsilon, fused=True)
        case "rmsprop":
            rho = 0.99 if settings.beta2 is None else settings.beta2
            return torch.optim.RMSprop(groups, lr=lr, momentum=beta, alpha=rho, eps=epsilon)


def choose_device(device: str) -> str:
    """Return cpu, cuda, cuda:NUMBER or mps. Raises ConfigError for a device that this machine does not have."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(f"device: {device}; PyTorch {torch.__version__} finds {count} CUDA GPUs on this machine; use "
                          "device auto or cpu")  # fmt: skip
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device: mps; PyTorch {torch.__version__} finds no Apple GPU here; use device auto or cpu")
    return device


def choose_precision(device: str) -> tuple[str, str]:
    """Return (Lightning's precision, reason) for a device: bf16 if the hardware computes it faster, otherwise fp32."""
    if device == "mps":
        return "32-true", "fp32 on an Apple GPU"
    if device.startswith("cuda"):
        if computes_bf16("cuda"):
            return "bf16-mixed", f"bf16 on {torch.cuda.get_device_name()}"
        return "32-true", f"fp32: {torch.cuda.get_device_name()} has no bf16"
    if gains_from_bf16():
        return "bf16-mixed", "bf16: this CPU has the instructions"
    if computes_bf16():
        return "32-true", "fp32: without AMX, this CPU computes bf16 more slowly"
    return "32-true", "fp32: this CPU has no AVX512-BF16 or AMX instructions"
