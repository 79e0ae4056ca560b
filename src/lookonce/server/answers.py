"""Answers with detections: JSON, CSV, or the image with its boxes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from lookonce.data.images import PixelRange, load_rgb
from lookonce.inference.draw import draw
from lookonce.inference.outputs import table_rows
from lookonce.model.detections import COLUMNS, Detections
from lookonce.server.models import Found


def to_json(model: str, found: Sequence[Found], rounded: bool, start: float) -> dict[str, Any]:
    """Return the answer for a request; its "images" are those of detections.json.

    Args:
        rounded: scores to 6 digits and boxes to 1/100 pixel; else every digit of their float32.
        start: perf_counter() when the request began.
    """
    return {
        "model": model,
        "model_digest": found[0].digest,
        "images": [
            {
                "file": one.upload.file,
                "width": one.size[0],
                "height": one.size[1],
                "detections": one.detections.to_json() if rounded else exact(one.detections),
            }
            for one in found
        ],
        "time_ms": times(found, start),
    }


def exact(detections: Detections) -> list[dict[str, Any]]:
    """Return the entries of Detections.to_json with every digit of scores and boxes."""
    return [
        {**entry, "score": _digits(score), "box": [_digits(v) for v in box]}
        for entry, score, box in zip(detections.to_json(), detections.scores, detections.boxes, strict=True)
    ]


def _digits(value: np.float32) -> float:
    """Return a float32 as the number with the fewest digits that is read as the same float32."""
    return float(str(value))


def times(found: Sequence[Found], start: float) -> dict[str, float]:
    """Return where the time of a request went, in ms: of its slowest image in each stage, and in all."""
    stages = {stage: max(getattr(one.timing, stage) for one in found) for stage in ("decode", "queue", "network")}
    return {name: round(1000 * value, 3) for name, value in (*stages.items(), ("total", perf_counter() - start))}


def to_csv(found: Sequence[Found]) -> str:
    """Return the table that detect --save csv writes."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("file", *COLUMNS))
    for one in found:
        rows.writerows(table_rows(one.upload.file, one.detections))
    return text.getvalue()


def to_jpeg(found: Found, pixel_range: PixelRange | None) -> bytes:
    """Return the image with its boxes as JPEG, as detect draws it. pixel_range: of the model."""
    drawn = draw(load_rgb(found.upload.content, pixel_range=pixel_range), replace(found.detections, file=None))
    file = io.BytesIO()
    drawn.save(file, "JPEG", quality=90)
    return file.getvalue()
