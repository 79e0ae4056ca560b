"""Darknet's .weights: a header, then the float32 numbers of each layer that has any, in layer order.

A convolution: bias [F]; with batch norm its scales, means and variances, each [F]; then the weights [F, C, k, k].
A connected layer: bias [F], weights [F, inputs], then scales, means and variances.
A local layer: bias [F, H, W], then the weights of each cell [H*W, F, C*k*k].
A batch norm of its own: bias, scales, means and variances, each [C], as Darknet's popular fork writes them.
Numbers are read directly into the network's memory; torch is imported where they are.
Source: darknet/src/parser.c, load_weights_upto, load_convolutional_weights and the functions that save.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from io import BufferedReader
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from lookonce.errors import UserError
from lookonce.files import replacing
from lookonce.model.darknet.cfg import Cfg
from lookonce.model.layers import Batchnorm, Connected, Conv, Layer, Local
from lookonce.model.sizes import floats_by_layer, heads_of, last_convolutions

if TYPE_CHECKING:
    from torch import Tensor

    from lookonce.model.network import BatchNorm, Convolution, LocalConvolution, Network, Sigma

    Weighted = Convolution | LocalConvolution | BatchNorm


class Header(NamedTuple):
    """The start of a .weights file: a version, and the number of images that training has seen.

    seen has 64 bits from version 0.2 on and 32 before. Versions from 1000 on also have 32 bits.
    """

    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0

    @property
    def length(self) -> int:
        """Number of bytes: 20 with a 64-bit seen, 16 with a 32-bit one."""
        wide = self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000
        return 20 if wide else 16

    @property
    def transposed(self) -> bool:
        """Whether connected layers store their weights as [inputs, F]."""
        return self.major > 1000 or self.minor > 1000

    @property
    def is_fork(self) -> bool:
        """Whether Darknet's popular fork wrote the file: its versions are above 0.2.0."""
        return self.length == 20 and self[:3] > (0, 2, 0)

    @property
    def sigma(self) -> Sigma:
        """The convention for variances of the program that wrote the file."""
        from lookonce.model.network import DARKNET, DARKNET_FORK

        return DARKNET_FORK if self.is_fork else DARKNET

    def pack(self) -> bytes:
        """Return its bytes. A count of more than 32 bits is written with version 0.2."""
        if self.length == 16 and self.seen >= 2**32:
            return Header(seen=self.seen).pack()
        return struct.pack("<3iQ" if self.length == 20 else "<3iI", *self)


def read_header(data: bytes) -> Header:
    """Read the header from the first 20 bytes of a file, or from 16. Raises struct.error for fewer."""
    version = Header(*struct.unpack_from("<3i", data))
    (seen,) = struct.unpack_from("<Q" if version.length == 20 else "<I", data, 12)
    return version._replace(seen=seen)


class Origin(NamedTuple):
    """The files that a network was read from: its cfg, and the header of its weights."""

    cfg: Cfg
    header: Header


class WeightsError(UserError):
    """A .weights file that does not fit the cfg."""


def read_weights(path: Path, network: Network, layers: int | None = None) -> Header:
    """Fill a network from a file; its batch norms then use the file's convention for variances.

    Args:
        path: a .weights file, or a prefix of one such as darknet19_448.conv.23.
        network: on the CPU, float32. It is unchanged if the file's length is wrong.
        layers: fill only this many layers (Darknet's count, pools and routes too) from a prefix file; None: all.
    Raises:
        WeightsError: too short, too long, truncated, a number that is not finite, a negative variance.
    """
    header = check_weights(path, network.layers, network.channels, layers)
    try:
        with path.open("rb") as file:
            file.seek(header.length)
            for index, module in _modules(network, layers or len(network.layers)):
                place = f"{path}: layer {index} ({_kind(network.layers[index])})"
                for tensor in _parts(module, network.layers[index], header):
                    _fill(tensor, file, place)
                if (norm := _norm(module, network.layers[index])) is None:
                    continue
                if bool((norm.running_var < 0).any()):
                    raise WeightsError(f"{place}: a negative variance; these weights belong to another cfg")
                norm.sigma = header.sigma
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    return header


def check_weights(path: Path, layers: tuple[Layer, ...], channels: int = 3, count: int | None = None) -> Header:
    """Read a file's header. Raise WeightsError unless the rest is as long as the first `count` layers need."""
    if count is not None and not 0 < count <= len(layers):
        raise WeightsError(f"layers={count}; expected 1 to {len(layers)}, the layers of this network")
    header, size = _read_start(path)
    _check_length(path, size, layers, floats_by_layer(layers, channels), count)
    return header


def numbers_in(path: Path) -> int:
    """Return how many numbers follow a file's header. Raises WeightsError for a file without a header."""
    return _read_start(path)[1] // 4


def layers_of(numbers: int, layers: tuple[Layer, ...], channels: int = 3) -> tuple[Layer, ...] | None:
    """Return the network that starts as `layers` do and has exactly this many numbers; None: there is none.

    It is `layers` itself, its start alone (a prefix file), or all of it with other classes (or, of one head, other
    anchors): then the result ends with the last convolution.
    """
    counts = floats_by_layer(layers, channels)
    ends = list(accumulate(counts))
    if numbers == ends[-1]:
        return layers
    if numbers > 0 and numbers in ends:
        return layers[: ends.index(numbers) + 1]
    if not (found := _other_filters(numbers, layers, counts)):
        return None
    result = list(layers)
    for index, filters in found.items():
        result[index] = replace(layers[index], filters=filters)  # type: ignore[arg-type]
    for head, filters in list(zip(heads_of(layers), found.values(), strict=False))[:-1]:
        result[head.index] = replace(head.layer, classes=filters // len(head.layer.anchors) - 5)
    return tuple(result[: max(found) + 1])


def write_weights(path: Path, network: Network, header: Header) -> None:
    """Write a network's numbers atomically; those read from a file are written byte by byte as they were.

    Variances in another convention than the header's are converted, so that Darknet divides by the same number.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(header.pack())
        for index, module in _modules(network, len(network.layers)):
            for tensor in _parts(module, network.layers[index], header):
                norm = _norm(module, network.layers[index])
                if norm is not None and tensor is norm.running_var:
                    tensor = converted_variance(norm, header.sigma)
                array = tensor.detach().cpu().float().contiguous().numpy()
                file.write(array.astype("<f4", copy=False).data)


def converted_variance(norm: BatchNorm, sigma: Sigma) -> Tensor:
    """Return the variance v [C] whose divisor in the convention sigma equals this batch norm's."""
    if norm.sigma == sigma:
        return norm.running_var
    divisor = (norm.running_var.double() + norm.sigma.inside).sqrt() + norm.sigma.outside
    return ((divisor - sigma.outside).clamp(min=0).square() - sigma.inside).clamp(min=0).float()


def _modules(network: Network, count: int) -> Iterator[tuple[int, Weighted]]:
    """Yield (layer index, module) of the first `count` layers that have weights, in layer order."""
    found = {int(index): module for index, module in network.convolutions.items()}
    found |= {int(index): module for index, module in network.local_convolutions.items()}
    found |= {int(index): module for index, module in network.batch_norms.items()}
    for index in sorted(found):
        if index < count:
            yield index, cast("Weighted", found[index])


def _norm(module: Weighted, layer: Layer) -> BatchNorm | None:
    """Return the batch norm of a layer; None: it has none."""
    return cast("BatchNorm | None", module if isinstance(layer, Batchnorm) else getattr(module, "norm", None))


def _parts(module: Weighted, layer: Layer, header: Header) -> Iterator[Tensor]:
    """Yield the tensors of a layer in the file's order, each a view of the layer's own."""
    if isinstance(layer, Local):
        yield from (cast("Tensor", module.bias), cast("Tensor", module.weight))
        return
    if isinstance(layer, Batchnorm):
        alone = cast("BatchNorm", module)
        yield from (alone.bias, alone.weight, alone.running_mean, alone.running_var)
        return
    convolution = cast("Convolution", module)
    norm, weight = convolution.norm, convolution.conv.weight
    statistics = () if norm is None else (norm.weight, norm.running_mean, norm.running_var)
    bias = convolution.conv.bias if norm is None else norm.bias
    assert bias is not None  # plain convolutions have one
    if isinstance(layer, Connected):
        yield from (bias, weight[:, :, 0, 0].t() if header.transposed else weight, *statistics)
    else:
        yield from (bias, *statistics, weight)


def _fill(tensor: Tensor, file: BufferedReader, place: str) -> None:
    """Read a tensor's numbers directly into its memory; those of a transposed view by way of a copy."""
    import torch

    target = tensor.detach()
    array = target.contiguous().numpy()
    if not array.flags.c_contiguous or array.dtype.str != "<f4":
        raise AssertionError("weights are read into contiguous little-endian float32 only")
    if file.readinto(array.data) != array.nbytes:
        raise WeightsError(f"{place}: the file became shorter while it was read")
    if not target.is_contiguous():
        target.copy_(torch.from_numpy(array))
    if not all(map(math.isfinite, target.aminmax())):  # no copy; nan propagates
        raise WeightsError(f"{place}: numbers that are not finite: training diverged, or the file is damaged")


def _kind(layer: Layer) -> str:
    """Return the name of a layer's section."""
    return "convolutional" if isinstance(layer, Conv) else type(layer).__name__.lower()


def _read_start(path: Path) -> tuple[Header, int]:
    """Return a file's header and the number of bytes after it."""
    try:
        with path.open("rb") as file:
            start = file.read(20)
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    if start.lstrip()[:1] == b"<" or start.startswith(b"version https"):
        raise WeightsError(f"{path}: is a web page or a pointer to a file, not weights; download the file itself")
    try:
        header = read_header(start)
    except struct.error:
        raise WeightsError(f"{path}: {len(start)} bytes; a .weights file starts with a header of 16 or 20") from None
    return header, size - header.length


def _check_length(path: Path, size: int, layers: tuple[Layer, ...], counts: list[int], count: int | None) -> None:
    """Raise WeightsError unless the `size` bytes after the header are the numbers of the first `count` layers.

    counts: the numbers of each layer.
    """
    ends = list(accumulate(counts))
    need = ends[-1 if count is None else count - 1]
    if size == 4 * need:
        return
    have, odd = divmod(size, 4)
    what = "the cfg" if count is None else f"layers={count}"
    found = f"{path}: {have:,} numbers{f' and {odd} of 4 bytes' if odd else ''}; {what} needs {need:,}"
    if have < need:
        index = next(i for i, end in enumerate(ends) if end > have)
        at = have - ends[index] + counts[index]
        rest = f"they end in layer {index} ({_kind(layers[index])}), at {at:,} of {counts[index]:,}"
    else:
        rest = f"{have - need:,} are left over"
    raise WeightsError(f"{found}; {rest}; {_cause(have, odd, layers, counts, count)}")


def _cause(have: int, odd: int, layers: tuple[Layer, ...], counts: list[int], count: int | None) -> str:
    """Return the likely reason for a wrong length, and the fix."""
    ends = list(accumulate(counts))
    if odd:
        return "not a whole number of float32: was the download cut off? Download it again"
    if have and have == ends[-1]:
        return "they are exactly those of the whole network: leave layers out"
    if have and have in ends:
        index = ends.index(have) + 1
        return f"they are exactly those of the first {index} layers: give layers={index}"
    found = _other_filters(have, layers, counts) if count is None else {}
    if found:
        places = ", ".join(f"filters={filters} in layer {index}" for index, filters in found.items())
        heads = heads_of(layers)
        if not heads:
            return f"they fit {places}, the last convolution: another number of classes?"
        classes, rest = divmod(found[max(found)], len(heads[-1].layer.anchors))
        if not rest and classes >= 6:
            return f"they fit classes={classes - 5} ({places}): use the cfg of their training"
    if abs(have - ends[-1 if count is None else count - 1]) == 1:
        return "off by one: does the version in its header match the program that wrote it (16 or 20 bytes)?"
    return "was it cut off, or is it for another network?"


def _other_filters(have: int, layers: tuple[Layer, ...], counts: list[int]) -> dict[int, int]:
    """Return {layer: filters} of the last convolutions with which the network has `have` numbers; empty: none has.

    One may have any number of filters. Those of several heads have the filters of one number of classes.
    """
    last, heads = last_convolutions(layers), heads_of(layers)
    if any(isinstance(layers[index], Connected) for index in last):
        return {}  # a detection layer's numbers depend on cells and boxes too
    each = [counts[index] // layers[index].filters for index in last]  # type: ignore[union-attr]  # numbers a filter
    rest = have - sum(counts) + sum(counts[index] for index in last)
    if len(last) == 1:
        filters, odd = divmod(rest, each[0])
        return {} if odd or filters < 1 else {last[0]: filters}
    anchors = [len(head.layer.anchors) for head in heads]
    outputs, odd = divmod(rest, sum(map(mul, each, anchors))) if last else (0, 0)  # of an anchor: 5 + classes
    return {} if odd or outputs < 6 else dict(zip(last, [outputs * a for a in anchors], strict=True))
