"""Anchors as text: width,height pairs with a unit, or a file that holds them. No torch here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

from lookonce.errors import ConfigError
from lookonce.model.zoo import STRIDE

Sizes = tuple[tuple[float, float], ...]
UNITS = ("cells", "px", "fraction")
NUMBERS = re.compile(r"[-+0-9.,;\seE]++(cells?|px|pixels?|fractions?)?\s*", re.IGNORECASE)
LINE = re.compile(r"anchors\s*=\s*([0-9][0-9.,; \t]*)")
MAX_BYTES = 1_000_000
"""Largest file of anchors that is read."""


def pairs_of(text: str) -> Sizes:
    """Return the pairs (w, h) of a text that settle() wrote."""
    return tuple((float(w), float(h)) for w, h in (pair.split(",") for pair in text.split()[:-1]))


def settle(anchors: str | Path | Iterable[Iterable[float]], size: int) -> str:
    """Return anchors as "w,h w,h ... cells".

    Args:
        anchors: pairs (w, h) in cells; their text, which may end with a unit (UNITS); or a file with a line
            "anchors = ...", as `lookonce anchors` prints it and as a .cfg has it.
        size: side of the network's input, px.
    Raises:
        ConfigError: not pairs of numbers above 0; or, without a unit, numbers that are unlikely to be cells.
    """
    if isinstance(anchors, str | Path):
        place, text = "anchors", str(anchors)
        if not NUMBERS.fullmatch(text):
            place, text = f"anchors: {text}", _of_file(Path(text).expanduser())
        words = [word for word in re.split(r"[,;\s]+", text.strip()) if word]
        unit = next((unit for unit in UNITS if words and words[-1].lower().rstrip("s")[:2] == unit[:2]), "")
        words = words[:-1] if unit else words
    else:
        place, unit = "anchors", ""
        words = [str(number) for pair in anchors for number in pair]
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise ConfigError(f"{place}: {error}; expected width,height pairs, such as 1.08,1.78 2.71,5.12") from None
    if not numbers or len(numbers) % 2:
        raise ConfigError(f"{place}: {len(numbers)} numbers; expected pairs: a width and a height for each anchor")
    if not all(0 < number < math.inf for number in numbers):
        raise ConfigError(f"{place}: {_pairs(numbers)}; expected numbers above 0")
    if unit:
        return f"{_pairs([number * _cells(unit, size) for number in numbers])} cells"
    if max(numbers) <= 1 or max(numbers) > 1.5 * size / STRIDE:
        raise ConfigError(f"{place}: {_pairs(numbers)}; {_readings(numbers, size)}")
    return f"{_pairs(numbers)} cells"


def _cells(unit: str, size: int) -> float:
    """Return cells of STRIDE pixels per unit."""
    return {"cells": 1.0, "px": 1 / STRIDE, "fraction": size / STRIDE}[unit]


def _pairs(numbers: list[float]) -> str:
    return " ".join(f"{w:.10g},{h:.10g}" for w, h in zip(numbers[::2], numbers[1::2], strict=True))


def _readings(numbers: list[float], size: int) -> str:
    """Return what the first anchor would be in each unit, and how to choose."""
    w, h = numbers[:2]
    scales = {unit: _cells(unit, size) * STRIDE for unit in UNITS}
    w_px, h_px = ({unit: f"{side * scale:.4g}" if side * scale < 1000 else f"{side * scale:,.0f}"
                   for unit, scale in scales.items()} for side in (w, h))  # fmt: skip
    first = ", ".join(f"{w_px[unit]} x {h_px[unit]} px if {unit}" for unit in UNITS)
    return (f"expected cells of {STRIDE} px, but of a {size} px input the first would be {first}; write the unit after "
            f'the numbers, such as "{w:g},{h:g} ... px"')  # fmt: skip


def _of_file(file: Path) -> str:
    """Return the numbers of the last line "anchors = ..." of a file, or of its first line."""
    expected = 'expected a number of anchors, width,height pairs, or a file with a line "anchors = ..."'
    try:
        with file.open("rb") as content:
            text = content.read(MAX_BYTES + 1).decode("utf-8")
    except (OSError, ValueError):
        raise ConfigError(f"anchors: {str(file)!r:.100} is no file that can be read; {expected}") from None
    if len(text) > MAX_BYTES:
        raise ConfigError(f"anchors: {file} has more than {MAX_BYTES:,} bytes; {expected}")
    found = LINE.findall(text)
    first = next(iter(text.strip().splitlines()), "")
    if not found and not NUMBERS.fullmatch(first):
        raise ConfigError(f"anchors: {file} holds no anchors; {expected}")
    return str(found[-1] if found else first)
