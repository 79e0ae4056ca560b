"""Milliseconds of the region loss (forward and backward, batch 16) and of decode with NMS (one image): prints both.

13 x 13 cells, 5 anchors, 20 classes; 20 objects on each image, and some fifty sure predictors. Median of the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from lookonce.model import zoo
from lookonce.model.heads.region import decode, encode, region_loss
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.postprocess import Selection, postprocess
from lookonce.training.loop import keep_freed_memory

ROUNDS = 60
LABELS = tuple(f"class {n}" for n in range(20))


def milliseconds(work: Callable[[], object]) -> float:
    """Median time of the work, after a few rounds that do not count."""
    times = []
    for _ in range(ROUNDS + 5):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[5:])


def main() -> None:
    """Measure both."""
    keep_freed_memory()  # as training does
    generator = torch.Generator().manual_seed(0)
    [region] = [layer for layer in zoo.yolov2(len(LABELS), zoo.VOC_ANCHORS) if isinstance(layer, Region)]
    anchors = torch.tensor(region.anchors)
    raw = torch.randn(16, region.channels, 13, 13, generator=generator, requires_grad=True)
    corner = torch.rand(320, 2, generator=generator) * 300
    boxes = torch.cat((corner, corner + 16 + torch.rand(320, 2, generator=generator) * 100), 1)
    labels = torch.randint(len(LABELS), (320,), generator=generator)
    image = torch.arange(16).repeat_interleave(20)

    def loss() -> None:
        targets = encode(boxes, labels, image, anchors, (13, 13), 32)
        region_loss(raw, targets, region)["total"].backward()  # type: ignore[no-untyped-call]

    one = torch.randn(1, region.channels, 13, 13, generator=generator) * 2
    one.view(1, len(anchors), -1, 13, 13)[:, :, 4] -= 4  # a trained network is sure of some fifty predictors

    output = one.numpy()  # as a detector has it

    def found() -> None:
        postprocess(
            decode(output, PlacedHead(region, 32)), [(500, 375)], (416, 416), "letterbox", LABELS, Selection(0.3, 0.45)
        )

    threads = torch.get_num_threads()
    print(f"encode and region loss, forward and backward, batch 16: {milliseconds(loss):.1f} ms on {threads} threads")
    print(f"decode and NMS, 845 predictors, 20 classes: {milliseconds(found):.2f} ms")


if __name__ == "__main__":
    main()
