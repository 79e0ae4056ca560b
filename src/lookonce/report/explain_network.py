"""A network as a table of its layers: output shape, weights and operations of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lookonce.model.layers import Conv, Layer, Linked, MaxPool, Reorg
from lookonce.model.sizes import Shape, floats_by_layer, num_operations, shapes, sources


class Row(NamedTuple):
    """One layer."""

    number: int
    """Index of the layer."""
    kind: str
    """As in a cfg, with its size and stride."""
    reads: str
    """Layers that it reads, if that is not the one before it."""
    shape: Shape
    """Of its output."""
    weights: int
    """Numbers that it has in a .weights file; those of a batch norm are scale, shift, mean and variance."""
    learned: int
    """Weights that training changes by their gradient: all but means and variances."""


@dataclass(frozen=True)
class LayerTable:
    """All layers of a network at one input size."""

    rows: tuple[Row, ...]
    input_size: tuple[int, int]
    """(width, height), px."""
    operations: int
    """Multiplications and additions of all convolutions for one image."""

    @property
    def weights(self) -> int:
        """Numbers in the network's .weights file."""
        return sum(row.weights for row in self.rows)

    @property
    def learned(self) -> int:
        """Weights that training changes by their gradient."""
        return sum(row.learned for row in self.rows)

    def __str__(self) -> str:
        lines = [f"{'':>3}  {'layer':<24}{'output (C x H x W)':>20}{'weights':>14}"]
        for row in self.rows:
            name = f"{row.kind} {row.reads}".strip()
            lines.append(f"{row.number:>3}  {name:<24}{' x '.join(map(str, row.shape)):>20}{row.weights:>14,}")
        width, height = self.input_size
        lines.append(f"{self.weights:,} weights, {self.weights - self.learned:,} of them means and variances of batch "
                     f"norms; {self.operations / 1e9:.2f} billion operations at {width} x {height} px")  # fmt: skip
        return "\n".join(lines)


def layer_table(layers: tuple[Layer, ...], input_size: tuple[int, int], channels: int = 3) -> LayerTable:
    """Return the table of a network's layers. input_size: (W, H), px; channels: of the input, 3 or 1."""
    out = shapes(layers, Shape(channels, input_size[1], input_size[0]))
    weights = floats_by_layer(layers, channels)
    rows = [
        Row(i, _kind(layer), _reads(layer, i), out[i], weights[i], weights[i] - _statistics(layer))
        for i, layer in enumerate(layers)
    ]
    return LayerTable(tuple(rows), input_size, num_operations(layers, input_size, channels))


def _kind(layer: Layer) -> str:
    match layer:
        case Conv():
            norm = "" if layer.batch_normalize else ", bias"
            step = f"/{layer.stride}" if layer.stride > 1 else ""
            return f"conv {layer.size}x{layer.size}{step}{norm}"
        case MaxPool():
            return f"maxpool {layer.size}x{layer.size}/{layer.stride}"
        case Reorg():
            return f"reorg /{layer.stride}"
        case _:
            return type(layer).__name__.lower()


def _reads(layer: Layer, index: int) -> str:
    return ", ".join(map(str, sources(layer, index))) if isinstance(layer, Linked) else ""


def _statistics(layer: Layer) -> int:
    return 2 * layer.filters if isinstance(layer, Conv) and layer.batch_normalize else 0
