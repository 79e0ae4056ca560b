"""What the notebooks in docs/tutorial share: data, a small network and its run, and exercises that check answers."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lookonce.commands.demo import DIGITS
from lookonce.commands.train import train
from lookonce.data.digits import write_digits
from lookonce.files import replacing, write_text
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.model.layers import Conv, Layer, MaxPool
from lookonce.model.zoo import AnchorSizes, head
from lookonce.report.explain_drawings import Drawing

PAGES = (300, 40, 40)
"""Pages of digits for train, val and test."""
RUN = Path("runs/tutorial")
"""Where small_run trains."""


def own_or_digits(data: str) -> Path:
    """Return the reader's data set; none given: pages of handwritten digits, written to the folder digits."""
    return Path(data).expanduser() if data else write_digits(Path("digits"), pages=PAGES)


def small_network(classes: int, anchors: AnchorSizes) -> tuple[Layer, ...]:
    """Return a network of six convolutions and stride 16 that learns digits in 40 s on two cores."""
    grow = [layer for filters in (16, 32, 64, 128) for layer in (Conv(filters), MaxPool())]
    return (*grow, Conv(128), *head(classes, anchors))


def small_run(data: Path, size: int, epochs: int, classes: int = 10) -> Path:
    """Train the small network on a data set, or return its run if it is there already.

    size: side of the input, px; classes: of the data set.
    """
    if (RUN / "model.safetensors").is_file():
        return RUN
    cfg = Path("small.cfg")
    write_text(cfg, write_cfg(Cfg(small_network(classes, ((1.0, 1.0),) * 3), size, size, 3)))
    augment = {"augment": DIGITS["augment"]} if data == Path("digits") else {}
    return train(data, network=str(cfg), size=size, epochs=epochs, batch_size=8, anchors=3, learning_rate=3e-3,
                 out=RUN.parent, name=RUN.name, **augment)  # fmt: skip


def lines_of(function: Callable[..., Any], *texts: str) -> str:
    """Return the lines of a function's source that contain these texts, so that a formula stands beside its code.

    Raises LookupError for a text that is in no line.
    """
    lines = inspect.getsource(function).splitlines()
    code = lines[len(lines) - len(_without_docstring(lines)) :]
    found = []
    for text in texts:
        matching = [line.strip() for line in code if text in line]
        if not matching:
            raise LookupError(f"{function.__module__}.{function.__name__}: no line contains {text!r}")
        found += [line for line in matching if line not in found]
    place = f"# {function.__module__.replace('.', '/')}.py, {function.__name__}"
    return "\n".join((place, *found))


def _without_docstring(lines: list[str]) -> list[str]:
    """Return the lines of a function behind its docstring."""
    marks = [n for n, line in enumerate(lines) for _ in range(line.count('"""'))]
    return lines[marks[1] + 1 :] if len(marks) > 1 else lines


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right."""

    right: bool | None
    """None: there is no answer yet."""
    message: str

    def __repr__(self) -> str:
        return self.message


def check(answer: Any, expected: Any, hint: str) -> Verdict:
    """Compare the answer to an exercise, numbers to three digits. None: not answered yet.

    answer, expected: a number, text, or several of them.
    """
    if answer is None:
        return Verdict(None, "No answer yet: replace None above and run both cells again.")
    return Verdict(True, "✓ Right.") if _same(answer, expected) else Verdict(False, f"✗ Not yet: {hint}")


def _same(answer: Any, expected: Any) -> bool:
    if isinstance(expected, str):
        return str(answer).strip().lower() == expected.strip().lower()
    try:
        given, right = np.asarray(answer, np.float64), np.asarray(expected, np.float64)
    except (TypeError, ValueError):
        return False
    return given.shape == right.shape and bool(np.allclose(given, right, rtol=5e-3, atol=1e-6))


def write_animation(images: Sequence[Any], path: Path, milliseconds: Sequence[int]) -> Drawing:
    """Write PIL images as an animated GIF, each shown for its time, and show it in the notebook."""
    with replacing(path) as beside:
        images[0].save(
            beside, "GIF", save_all=True, append_images=list(images[1:]), duration=list(milliseconds), loop=0
        )
    content = base64.b64encode(path.read_bytes()).decode()
    return Drawing(f'<img src="data:image/gif;base64,{content}" alt="{path.name}" style="max-width:100%">')
