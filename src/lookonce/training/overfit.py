"""The overfit check: can a new network learn a few images? One that cannot will not learn more of them."""

from __future__ import annotations

from dataclasses import replace

import torch

from lookonce.console import track
from lookonce.data.augment import InputBatch
from lookonce.data.dataset import Dataset
from lookonce.errors import UserError
from lookonce.evaluation.average_precision import score
from lookonce.evaluation.evaluate import RULES, detect_all
from lookonce.evaluation.hierarchy import in_use
from lookonce.inference.detector import Detector
from lookonce.model.model_file import Model
from lookonce.model.network import Network
from lookonce.training.loop import keep_freed_memory
from lookonce.training.recipes import Settings, learning_rate_factor
from lookonce.training.step import Training, choose_precision, make_optimizer, set_objectness_prior
from lookonce.training.validation import Inputs, collate_inputs

LEARNT = 0.8
"""mAP@.5 on the training images themselves from which they count as learnt."""
INTERVAL = 20
"""Steps between two measurements of mAP."""
KEPT_SETTINGS = ("loss", "match_iou", "objectness_prior", "difficult")
"""Settings taken from the model's own training. The optimizer and its rates are those of the default recipe."""


def overfit(model: Model, images: Dataset, steps: int) -> tuple[float, int]:
    """Train a new network on a few images, resized as in detection and not augmented, until it has learnt them.

    Args:
        model: gives the layers, anchors, input size, resize mode and loss, not the weights. It is not changed.
        images: one batch, with the model's classes.
        steps: the most training steps.
    Returns:
        (mAP@.5 of detection on these images, number of steps taken).
    Raises:
        UserError: the loss is not finite.
    """
    recipe = {k: v for k, v in model.training.get("recipe", {}).items() if k in KEPT_SETTINGS}
    settings = replace(Settings(), **recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(model.network.layers, model.network.channels)
    set_objectness_prior(network, settings.objectness_prior)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = Training(network, settings, 0, tree=model.tree).to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(network, settings)
    precision, _ = choose_precision(device)
    batch = _batch(replace(images, pixel_range=model.pixel_range), model, device)
    keep_freed_memory()
    mean_ap, taken = 0.0, 0
    for step in track(range(steps), f"overfitting {len(images)} images"):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(step, steps, settings)
        network.train()
        with torch.autocast(device, torch.bfloat16, enabled=precision != "32-true"):
            raws = module.raws(batch)
        loss = module.loss_terms(raws, batch)["total"]
        if not loss.isfinite():
            raise UserError(f"the loss on {len(images)} images is {loss.item()} in step {step + 1}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
        optimizer.step()
        taken = step + 1
        if taken % INTERVAL == 0 or taken == steps:
            network.eval()
            detector = Detector(replace(model, loaded=network, thresholds=()), precision="fp32")
            used, found = in_use(images, detect_all(detector, images)[0], model.tree)
            mean_ap = score(used, found, RULES, bootstrap=0).mean_ap or 0.0
            if mean_ap >= LEARNT:
                break
    return mean_ap, taken


def _batch(images: Dataset, model: Model, device: str) -> InputBatch:
    """Return all images as one batch on the device."""
    inputs = Inputs(images, model.input_size, model.resize)
    return collate_inputs([inputs[n] for n in range(len(inputs))]).to(device)
