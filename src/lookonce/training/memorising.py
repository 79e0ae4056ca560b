"""Can a network learn a handful of pictures by heart? One that cannot will not learn more of them."""

from __future__ import annotations

from dataclasses import replace

import torch

from lookonce.data.record import Dataset
from lookonce.data.warp import Warped
from lookonce.detector import Detector
from lookonce.errors import UserError
from lookonce.evaluation import RULES, detect_all
from lookonce.metrics import score
from lookonce.model_file import Model
from lookonce.network import Network
from lookonce.progress import track
from lookonce.training.engine import keep_freed_memory
from lookonce.training.module import Training, choose_precision, expect_little, make_optimizer
from lookonce.training.recipes import Settings
from lookonce.training.schedule import rate
from lookonce.training.validation import Inputs, together

BY_HEART = 0.8
"""mAP@.5 on the pictures themselves from which on they count as learnt."""
LOOK = 20
"""Steps between two looks at it."""
TAKEN = ("loss", "match_iou", "objectness_prior", "difficult")
"""Settings of the model's own training that are taken; how fast it moves is the quick recipe's."""


def memorise(model: Model, pictures: Dataset, steps: int) -> tuple[float, int]:
    """Train the model's layers anew on a few pictures, as detection sees them, until they are known by heart.

    Args:
        model: its layers, anchors, input, resize and loss are taken, not its weights. Nothing is written.
        pictures: one batch; classes as the model's labels.
        steps: at most.
    Returns:
        (mAP@.5 on these pictures through the whole path of detection, steps taken).
    Raises:
        UserError: a loss that is not finite.
    """
    how = replace(Settings(), **{k: v for k, v in model.training.get("recipe", {}).items() if k in TAKEN})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(model.network.layers, model.network.channels)
    expect_little(network, how.objectness_prior)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = Training(network, how, 0).to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(network, how)
    precision, _ = choose_precision(device)
    batch = _batch(replace(pictures, pixel_range=model.pixel_range), model, device)
    keep_freed_memory()
    value, taken = 0.0, 0
    for step in track(range(steps), f"overfitting {len(pictures)} pictures"):
        for group in optimizer.param_groups:
            group["lr"] = how.learning_rate * rate(step, steps, how)
        network.train()
        with torch.autocast(device, torch.bfloat16, enabled=precision != "32-true"):
            raw = module.raw(batch)
        loss = module.loss_terms(raw, batch)["total"]
        if not loss.isfinite():
            raise UserError(f"the loss on {len(pictures)} pictures is {loss.item()} in step {step + 1}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), how.gradient_clip)
        optimizer.step()
        taken = step + 1
        if taken % LOOK == 0 or taken == steps:
            network.eval()
            fresh = Detector(replace(model, network=network, thresholds=()), precision="fp32")
            value = score(pictures, detect_all(fresh, pictures)[0], RULES, bootstrap=0).mean_ap or 0.0
            if value >= BY_HEART:
                break
    return value, taken


def _batch(pictures: Dataset, model: Model, device: str) -> Warped:
    inputs = Inputs(pictures, model.frame, model.resize)
    batch = together([inputs[n] for n in range(len(inputs))])
    return batch._replace(**{name: getattr(batch, name).to(device) for name in batch._fields if name != "outputs"})
