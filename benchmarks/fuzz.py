"""Damage the input of every reader: each input must give a result or one UserError, in bounded time and memory.

    python benchmarks/fuzz.py [READER ...] [--inputs 1000] [--seed 0] [--minutes 0] [--processes 1] [--keep fuzz-found]

An input is fixed by seed, reader and number. Each reader runs in worker processes with a limit of memory; an input that
takes too long or kills its worker costs that worker only. What offends is saved, once a kind, with what was raised.
Ends with 1 where anything offended. tests/test_readers_fuzz.py runs a few inputs of each reader.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import logging
import multiprocessing
import os
import random
import re
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from lookonce.errors import MAX_LENGTH, UserError, printable

SLOW = 5.0
"""Seconds from which an input is too slow."""
HANG = 30.0
"""Seconds after which its worker is killed."""
MEMORY = 2 << 30
"""Bytes of address space that a worker may take beyond what its reader needs for a good input."""
GROWTH = 500 << 20
"""Bytes of resident memory that one input may add."""

SHARED_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where inputs are written: a disk would take most of the time."""

Mutate = Callable[[bytes, random.Random], bytes]

# Mutations -----------------------------------------------------------------------------------------------------------

NUMBERS = b"""-1 0 1 -0.0 0.5 7 255 256 65535 65536 2147483647 2147483648 -2147483648 9223372036854775808 100000000000
1e18 1e308 1e400 -1e308 nan inf -inf NaN Infinity 1_000 0x10 --1""".split()
NUMBERS += [b"", "²".encode(), b"9" * 5000]
TOKENS = b"""= , : [ ] { } < > & " ' \\ / ../ # - ? &a *a !!python/none true null [net] <a> </a> &#x41; %00""".split()
TOKENS += [
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x1b[31m",
    b"\xed\xa0\x80",
    b"\n",
    b"\r",
    b"\t",
    b"\x85",
    b"\x0b",
    b" ",
]
TOKENS += ["\u202e".encode(), "\u2028".encode(), "é".encode(), "é".encode("latin-1"), "細胞".encode("utf-16")]
INTEGERS = [0, 1, 2, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63]
VALUES = [None, True, 0, -1, 1.5, 2**70, float("nan"), float("inf"), -1e308, 96, "96", "", "a\nb", "\x1b[31m", "\u202e"]
VALUES += ["9" * 50, "\ud83d", [], {}, [[]], ["a", 1], [0, 0], [0] * 4, {"a": 1}, [[0] * 4]]
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def span(content: bytes, draw: random.Random, most: int = 64) -> tuple[int, int]:
    """Two ends of a random part."""
    start = draw.randrange(len(content) + 1)
    return start, min(len(content), start + draw.randint(1, most))


def any_bytes(content: bytes, draw: random.Random) -> bytes:
    """One mutation that knows nothing of the format."""
    start, stop = span(content, draw)
    part = content[start:stop]
    match draw.randrange(9):
        case 0 if part:  # one bit
            made = bytearray(content)
            made[start] ^= 1 << draw.randrange(8)
            return bytes(made)
        case 1 if part:  # one byte
            return content[:start] + bytes([draw.randrange(256)]) + content[start + 1 :]
        case 2:  # cut off
            return content[:start]
        case 3:  # dropped
            return content[:start] + content[stop:]
        case 4:  # doubled
            return content[:stop] + part * draw.choice([1, 1, 2, 50]) + content[stop:]
        case 5:  # noise
            return content[:start] + draw.randbytes(draw.randint(1, 16)) + content[start:]
        case 6:  # moved
            at = draw.randrange(len(content) + 1)
            rest = content[:start] + content[stop:]
            return rest[:at] + part + rest[at:]
        case _:  # a binary number
            kind, size = draw.choice([("<I", 4), (">I", 4), ("<Q", 8), (">Q", 8), ("<H", 2), (">H", 2)])
            value = draw.choice(INTEGERS) % (1 << (8 * size))
            return content[:start] + struct.pack(kind, value) + content[start + size :]


def any_text(content: bytes, draw: random.Random) -> bytes:
    """One mutation of lines, words and numbers."""
    lines = content.split(b"\n")
    at, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    match draw.randrange(9):
        case 0 | 1 | 2 if found := [m.span() for m in NUMBER.finditer(content)]:
            start, stop = draw.choice(found)
            return content[:start] + draw.choice(NUMBERS) + content[stop:]
        case 3:
            start, _ = span(content, draw)
            return content[:start] + draw.choice(TOKENS) + content[start:]
        case 4:
            lines.insert(other, lines[at])
        case 5:
            del lines[at]
        case 6:
            lines[at], lines[other] = lines[other], lines[at]
        case 7:
            first, second = sorted((at, other))
            lines = [*lines[second:], *lines[first:second], *lines[:first]]
        case _:
            return any_bytes(content, draw)
    return b"\n".join(lines)


def any_value(draw: random.Random) -> Any:
    """A JSON value of any kind."""
    return deepcopy(draw.choice(VALUES))


def any_json(content: bytes, draw: random.Random) -> bytes:
    """A valid JSON text with another value, key or entry somewhere."""
    tree = json.loads(content)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    if isinstance(tree, dict | list):
        walk(tree)
    if not places:
        return json.dumps(any_value(draw)).encode()
    node, key = draw.choice(places)
    match draw.randrange(5):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[str(any_value(draw))] = node.pop(key)
        case 2 if isinstance(node, list):
            node.insert(key, draw.choice([node[key], any_value(draw)]))
        case 3 if isinstance(node[key], str):
            node[key] = any_text(node[key].encode(errors="replace"), draw).decode("utf-8", errors="replace")
        case _:
            node[key] = any_value(draw)
    return json.dumps(tree).encode()


def some(*ways: Mutate) -> Mutate:
    """One to four mutations, each of one of these ways; what a way cannot read goes to any_bytes."""

    def mutate(content: bytes, draw: random.Random) -> bytes:
        for _ in range(draw.choice([1, 1, 1, 2, 4])):
            try:
                content = draw.choice(ways)(content, draw)
            except Exception:  # an earlier mutation broke the format
                content = any_bytes(content, draw)
        return content

    return mutate


def png_chunk(content: bytes, draw: random.Random) -> bytes:
    """A chunk of a PNG with other bytes and the right sum."""
    at, chunks = 8, []
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((at, length))
        at += 12 + length
    at, length = draw.choice(chunks)
    body = content[at + 4 : at + 8] + any_bytes(content[at + 8 : at + 8 + length], draw)
    made = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return content[:at] + made + content[at + 12 + length :]


def tar_header(content: bytes, draw: random.Random) -> bytes:
    """A tar (perhaps compressed) whose member has another header, with the right sum."""
    packed = content[:2] == b"\x1f\x8b"
    plain = bytearray(gzip.decompress(content) if packed else content)
    blocks = [at for at in range(0, len(plain), 512) if plain[at + 257 : at + 262] == b"ustar"]
    at = draw.choice(blocks)
    start, size = draw.choice(
        [(0, 100), (100, 8), (108, 8), (124, 12), (124, 12), (136, 12), (156, 1), (157, 100), (345, 155)]
    )
    value = draw.choice([*b"77777777777 -1 x L K g 2 5 ../up /etc/x".split(), b"", b"\x80" + b"\xff" * 11, b"\xff" * 12,
                         b"a" * 100, draw.randbytes(size)])[:size]  # fmt: skip
    plain[at + start : at + start + size] = value.ljust(size, b"\0")
    plain[at + 148 : at + 156] = b" " * 8
    plain[at + 148 : at + 156] = b"%06o\0 " % sum(plain[at : at + 512])
    return gzip.compress(bytes(plain), 1, mtime=0) if packed else bytes(plain)


def gzipped(way: Mutate) -> Mutate:
    """A mutation of what is compressed."""
    return lambda content, draw: gzip.compress(way(gzip.decompress(content), draw), 1, mtime=0)


def safetensors_header(content: bytes, draw: random.Random) -> bytes:
    """A model file with another description or other tensors, and the right length of its header."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if draw.random() < 0.8:
        about = header["__metadata__"]
        about["lookonce"] = described(about["lookonce"], draw)
        text = json.dumps(header).encode()
    else:
        text = any_json(json.dumps(header).encode(), draw)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def described(text: str, draw: random.Random) -> str:
    """Another description of a model: another value, or another network."""
    if draw.random() < 0.5:
        return any_json(text.encode(), draw).decode()
    about = json.loads(text)
    about["cfg"] = any_text(about["cfg"].encode(), draw).decode("utf-8", errors="replace")
    return json.dumps(about)


def onnx_part(content: bytes, draw: random.Random) -> bytes:
    """An ONNX file with another node, tensor, opset or description."""
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    node, tensor = draw.choice(graph.node), draw.choice(graph.initializer)
    match draw.randrange(10):
        case 0:
            entry = draw.choice(model.metadata_props)
            entry.value = described(entry.value, draw)
        case 1:
            tensor.dims[:] = [draw.choice([0, 1, 3, 8, -1, 2**31, 2**40]) for _ in tensor.dims]
        case 2:
            tensor.raw_data = any_bytes(tensor.raw_data, draw)
        case 3:
            tensor.data_type = draw.randrange(24)
        case 4:
            node.op_type = draw.choice(["Conv", "Relu", "MaxPool", "Reshape", "Loop", "Nonsense", ""])
        case 5 if node.attribute:
            attribute = draw.choice(node.attribute)
            attribute.ints[:] = [draw.choice([0, -1, 1, 7, 2**31, 2**62]) for _ in attribute.ints]
            attribute.i = draw.choice([0, -1, 2**62])
        case 6 if node.input:
            node.input[draw.randrange(len(node.input))] = draw.choice(["", "raw", "nowhere", "\x1b[31m\n"])
        case 7:
            graph.node.remove(node)
        case 8:
            model.opset_import[0].version = draw.choice([0, 1, 9, 18, 99, -1])
        case _:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=draw.choice(["../../x", "/etc/passwd", "x\n"]))
    return model.SerializeToString()


# Readers -------------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """A reader made ready in a folder: good inputs, the file that damage goes into, and what reads it."""

    seeds: list[bytes]
    file: Path
    read: Callable[[], object]
    mutate: Mutate = field(default_factory=lambda: some(any_text, any_bytes))

    def input(self, seed: int, reader: str, number: int) -> bytes:
        """The damaged input of a number; the first ones are the good ones themselves."""
        draw = random.Random(f"{seed} {reader} {number}")
        if number < len(self.seeds):
            return self.seeds[number]
        return self.mutate(draw.choice(self.seeds), draw)


XML = b"""<?xml version="1.0"?>
<annotation><filename>p.png</filename><size><width>64</width><height>48</height><depth>3</depth></size>
<object><name>cat</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>5.5</xmin><ymin>6</ymin><xmax>20</xmax><ymax>44</ymax></bndbox></object></annotation>
"""
COCO = {
    "images": [{"id": 1, "file_name": "p.png", "width": 64, "height": 48}],
    "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 7, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 30], "area": 900, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [5, 6, 20.5, 30], "iscrowd": 1,
         "segmentation": [[5, 6, 25, 6, 25, 36, 5, 36]]},
    ],
}  # fmt: skip
YAML = b"path: .\ntrain: images\nval: val.txt\nnc: 2\nnames: {0: cat, 1: dog}\n"
LABELS = b"0 .5 .5 .5 .5\n1 .1 .1 .1 .1\r\n"
SETS: dict[str, dict[str, bytes]] = {
    "voc": {"Annotations/p.xml": XML, "ImageSets/Main/train.txt": b"p\n"},
    "coco": {"annotations/instances_train.json": json.dumps(COCO, indent=1).encode()},
    "yolo": {"data.yaml": YAML, "labels/p.txt": LABELS, "val.txt": b"./images/p.png\n"},
    "darknet": {"obj.data": b"classes = 2\nnames = obj.names\ntrain = train.txt\nvalid = train.txt\n",
                "obj.names": b"cat\ndog\n", "train.txt": b"images/p.png\n", "labels/p.txt": LABELS},
}  # fmt: skip

ODD: dict[tuple[str, str], bytes] = {
    ("voc", "Annotations/p.xml"): b"""<?xml version="1.0" encoding="iso-8859-1"?><annotation xmlns="u:x"><object>
<name>cat</name><polygon><x1>1</x1><y1>2</y1><x2>30</x2><y2>2</y2><x3>9</x3><y3>40</y3></polygon></object></annotation>
""",
    ("coco", "annotations/instances_train.json"): json.dumps({
        "images": [{"id": "1", "coco_url": "http://h/p.png?x=1", "width": 64}, {"id": 1.0, "file_name": "images/p.png"},
                   {"id": "q", "file_name": "p.png"}],
        "categories": [{"id": 0, "name": "r", "supercategory": "none"}, {"id": 1, "name": 3, "supercategory": "r"}],
        "annotations": [{"id": "a", "image_id": "1", "category_id": "1.0", "segmentation": [[1, 2, 30, 4, 5, 40]]},
                        {"image_id": "q", "category_id": 1, "bbox": ["1", "2", "3", 4]}],
    }).encode(),
    ("yolo", "data.yaml"): b"names:\n  0: no\n  1: 007\nnc: 3\ntrain: images\nkpt_shape: [2, 2]\ntest: null\n",
    ("yolo", "labels/p.txt"): b"0.0 .5 .5 .5 .5 .1 .1 .2 .2\n1 .1 .1 .9 .1 .9 .9\n",
}  # fmt: skip
"""Valid files as other tools write them: second seeds."""


def write_set(kind: str, folder: Path) -> None:
    """A valid data set of one image."""
    from PIL import Image

    for name, content in {**SETS[kind], "images/p.png": b""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    Image.new("RGB", (64, 48)).save(folder / "images" / "p.png")


def data_set(kind: str, name: str, folder: Path, mutate: Mutate | None = None) -> Bench:
    """A file of a data set, read with all that belongs to it, its format found by looking."""
    import numpy as np

    from lookonce.data.read import read_dataset

    write_set(kind, folder)

    def read() -> None:
        found = read_dataset(folder)
        assert np.isfinite(found.boxes).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        assert len(found.boxes) == len(found.classes) == found.first[-1]

    seeds = [SETS[kind][name], *(content for key, content in ODD.items() if key == (kind, name))]
    return Bench(seeds, folder / name, read, mutate or some(any_text, any_bytes))


def tiny(channels: int = 3) -> Any:
    """A detector of a few hundred numbers, stride 8."""
    import torch

    from lookonce.model.layers import Conv, MaxPool
    from lookonce.model.network import Network
    from lookonce.model.zoo import head

    torch.manual_seed(0)
    layers = (*(layer for _ in range(3) for layer in (Conv(4), MaxPool())), *head(2, ((1.0, 1.5), (2.0, 1.0))))
    return Network(layers, channels).eval()


def write_pair(folder: Path) -> tuple[Path, Path]:
    """The detector as Darknet's files, the cfg with keys of training and a route and reorg."""
    from lookonce.model.darknet.files import save_darknet

    cfg, weights = folder / "n.cfg", folder / "n.weights"
    save_darknet(tiny(), cfg, weights, input_size=(32, 24))
    (folder / "n.names").write_text("cat\ndog\n")
    return cfg, weights


PASSED = b"""[net]
batch=64
width=32
height=32
channels=3
steps=400,600
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[route]
layers=-2
[reorg]
stride=2
[route]
layers=-1,-3
[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear
[region]
anchors = 1,1, 2,2.5
classes=2
coords=4
num=2
softmax=1
tree=n.tree
thresh=.6
"""


def cfg(folder: Path) -> Bench:
    """The text of a cfg alone."""
    from lookonce.model.darknet.cfg import read_cfg, write_cfg
    from lookonce.model.darknet.files import read_text

    good, _ = write_pair(folder)

    def read() -> None:
        found = read_cfg(read_text(good), "n.cfg")
        assert read_cfg(write_cfg(found)) == found

    return Bench([good.read_bytes(), PASSED], good, read)


def model_read(path: Path) -> Callable[[], None]:
    """Load a model and run it on one image, where it is small."""
    import torch

    from lookonce.model.model_file import load_model

    def read() -> None:
        model = load_model(path)
        width, height = model.input_size
        if width * height <= 256 * 256:
            with torch.inference_mode():
                model.network(torch.zeros(1, 3, height, width))

    return read


def pair(folder: Path) -> Bench:
    """A cfg beside its weights, as a model."""
    good, _ = write_pair(folder)
    return Bench([good.read_bytes()], good, model_read(good))


def weights(folder: Path) -> Bench:
    """Weights beside their cfg."""
    good, numbers = write_pair(folder)
    return Bench([numbers.read_bytes()], numbers, model_read(good), some(any_bytes))


def names(folder: Path) -> Bench:
    """Class names beside a cfg and weights."""
    good, _ = write_pair(folder)
    return Bench(
        [b"cat\r\ndog\n", "кошка\n犬\n".encode(), "é\nü\n".encode("latin-1")], folder / "n.names", model_read(good)
    )


def tree(folder: Path) -> Bench:
    """A class tree."""
    import torch

    from lookonce.model.darknet.files import find_tree

    def read() -> None:
        found = find_tree("n.tree", folder / "n.cfg")
        if len(found.parents) < 100:
            assert found.top_only(found.absolute(torch.zeros(1, len(found.parents)))).sum() == 1

    return Bench([b"animal -1\nthing -1\ncat 0\ndog 0\nterrier 3\n"], folder / "n.tree", read)


def model(folder: Path) -> Bench:
    """A model file."""
    from lookonce.model.model_file import Model, save_model

    file = folder / "m.safetensors"
    save_model(
        Model(tiny(), ("cat", "dog"), (32, 24), "letterbox", (0.2, 0.3), 5, {"recipe": {"loss": "region"}}), file
    )
    return Bench([file.read_bytes()], file, model_read(file), some(safetensors_header, safetensors_header, any_bytes))


def exported(ending: str, folder: Path) -> Bench:
    """A file of an export, opened and run by its backend."""
    import numpy as np
    import onnx

    from lookonce.inference.backends.open import open_backend
    from lookonce.inference.backends.settings import Settings
    from lookonce.model.model_file import Model
    from lookonce.model.onnx_graph import network_model

    made = network_model(Model(tiny(), ("cat", "dog"), (32, 24)))
    backend, file = "onnxruntime" if ending == ".onnx" else "openvino", folder / f"m{ending}"
    if ending == ".onnx":
        onnx.save_model(made, file)
    else:
        from lookonce.inference.backends.openvino import openvino_model, saved

        with saved(openvino_model(made), folder / "m.xml"):
            pass
    entry = folder / "m.xml" if ending == ".bin" else file

    def read() -> None:
        opened = open_backend(entry, Settings(backend, None, "fp32"))  # type: ignore[arg-type]
        width, height = opened.about.input_size
        if width * height <= 256 * 256:
            opened(np.zeros((1, 3, height, width), np.float32))

    ways = {".onnx": some(onnx_part, onnx_part, any_bytes), ".xml": some(any_text), ".bin": some(any_bytes)}
    return Bench([file.read_bytes()], file, read, ways[ending])


def detections(kind: str, folder: Path) -> Bench:
    """Detections of a program, scored against a data set."""
    from lookonce.commands.evaluate import evaluate

    if kind == "json":
        write_set("coco", folder / "set")
        entries = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 30], "score": 0.9},
                   {"image_id": 1, "category_id": 7, "bbox": [5, 6, 20.5, 30], "score": 0.3}]  # fmt: skip
        file, good = folder / "found.json", json.dumps(entries, indent=1).encode()
        entry, mutate = file, some(any_json, any_text, any_bytes)
    else:
        write_set("voc", folder / "set")
        (folder / "found").mkdir()
        file, good = folder / "found" / "p.txt", b"cat 0.9 1 2 30 40\ndog 0.30 5.5 6 20 44\n"
        entry, mutate = folder / "found", some(any_text, any_bytes)
    return Bench([good], file, lambda: evaluate(entry, folder / "set", split="train", bootstrap=0), mutate)


def features(part: str, folder: Path) -> Bench:
    """The cache of features, its index or its numbers."""
    import torch

    from lookonce.training.feature_cache import DIGEST, FeatureCache

    shapes, digests = [(2, 3, 3), (4, 1, 1)], [bytes([n]) * DIGEST for n in range(3)]
    cache = FeatureCache(folder, shapes, "fp32")
    for digest in digests:
        cache.add(digest, [torch.rand(shape) for shape in shapes])
    file = folder / part
    other = folder / ("features.bin" if part == "index.bin" else "index.bin")
    whole = other.read_bytes()

    def read() -> None:
        other.write_bytes(whole)
        found = FeatureCache(folder, shapes, "fp32")
        gone = {digests[place] for place in found.missing(digests)}
        for digest in digests:
            if digest not in gone:
                assert [tuple(part.shape) for part in found.read(digest)] == shapes

    return Bench([file.read_bytes()], file, read, some(any_bytes))


def archive(kind: str, folder: Path) -> Bench:
    """An archive that is unpacked."""
    import shutil

    from lookonce.data.archives import unpack

    made = io.BytesIO()
    members = {"set/a.txt": b"hello\n" * 20, "set/" + "long" * 40 + "/b.txt": b"x", "set/c.bin": bytes(300)}
    if kind == "zip":
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in members.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as packed:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
    good, file, out = made.getvalue(), folder / f"a.{kind}", folder / "out"
    mutate = some(any_bytes)
    if kind != "zip":
        good = gzip.compress(good, 1, mtime=0)
        mutate = some(tar_header, tar_header, gzipped(any_bytes), any_bytes)

    def read() -> None:
        try:
            unpack(file, out)
        finally:
            shutil.rmtree(out, ignore_errors=True)
        assert not any(path.name not in (file.name, "out") for path in folder.iterdir())

    return Bench([good], file, read, mutate)


def image(folder: Path) -> Bench:
    """Image files of several formats, without their ending saying which."""
    import numpy as np
    from PIL import Image

    from lookonce.data.images import image_size, load_for

    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    seeds = []
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, mode in (("PNG", "RGB"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "RGB"), ("BMP", "RGB"), ("GIF", "P"),
                       ("TIFF", "RGB"), ("WEBP", "RGB"), ("PPM", "RGB"), ("TGA", "RGB"),
                       ("JPEG2000", "RGB")):  # fmt: skip
        made = io.BytesIO()
        try:
            Image.fromarray(pixels).convert("L" if mode == "I;16" else mode).convert(mode).save(
                made, kind, **({"exif": exif} if kind in ("JPEG", "WEBP", "PNG") else {})
            )
        except (OSError, KeyError, ValueError):
            continue  # a Pillow without this format
        seeds.append(made.getvalue())
    file = folder / "p.png"

    def read() -> None:
        size = image_size(file)
        if size[0] * size[1] <= 4_000_000:
            assert load_for(file, (32, 32)).pixels.shape[2] == 3

    return Bench(seeds, file, read, some(any_bytes, any_bytes, png_chunk))


def config(folder: Path) -> Bench:
    """The config.yaml of a run."""
    from lookonce.training.config import RunConfig
    from lookonce.training.recipes import settings

    good = RunConfig("data", ("cat", "007"), "train", "val", "drop", False, 0, 0, "auto", "auto", False, 5.0, None,
                settings("quick"))  # fmt: skip
    file = folder / "config.yaml"
    return Bench([good.to_yaml().encode()], file, lambda: RunConfig.from_yaml(file.read_bytes(), file))  # type: ignore[arg-type]


def metrics(folder: Path) -> Bench:
    """The metrics.csv of a run that is resumed."""
    from lookonce.training.history import COLUMNS, History, read_curves

    file = folder / "metrics.csv"
    rows = [",".join(COLUMNS)]
    for step in range(6):
        cells = {"epoch": step // 3, "step": step, "loss_step": 2.5 / (step + 1), "rate": 1e-3}
        cells |= {"loss_epoch": 2.0, "val/mAP": 0.5} if step % 3 == 2 else {}
        rows.append(",".join(str(cells.get(name, "")) for name in COLUMNS))

    def read() -> None:
        read_curves(file)
        History(file).truncate(4)

    return Bench(["\n".join([*rows, ""]).encode()], file, read)


READERS: dict[str, Callable[[Path], Bench]] = {
    "cfg": cfg, "pair": pair, "names": names, "weights": weights, "tree": tree, "model": model,
    "voc": partial(data_set, "voc", "Annotations/p.xml"),
    "voc_list": partial(data_set, "voc", "ImageSets/Main/train.txt"),
    "coco": partial(data_set, "coco", "annotations/instances_train.json", mutate=some(any_json, any_text, any_bytes)),
    "yaml": partial(data_set, "yolo", "data.yaml"),
    "labels": partial(data_set, "yolo", "labels/p.txt"),
    "list": partial(data_set, "yolo", "val.txt"),
    "data": partial(data_set, "darknet", "obj.data"),
    "data_names": partial(data_set, "darknet", "obj.names"),
    "data_list": partial(data_set, "darknet", "train.txt"),
    "detections_json": partial(detections, "json"),
    "detections_text": partial(detections, "text"),
    "features": partial(features, "features.bin"),
    "features_index": partial(features, "index.bin"),
    "onnx": partial(exported, ".onnx"), "xml": partial(exported, ".xml"), "bin": partial(exported, ".bin"),
    "zip": partial(archive, "zip"), "tar": partial(archive, "tar.gz"),
    "image": image, "config": config, "metrics": metrics,
}  # fmt: skip
"""Makes a reader ready in an empty folder."""


# Running -------------------------------------------------------------------------------------------------------------

KINDS = ("accepted", "UserError", "traceback", "message", "slow", "memory", "crash")
"""What an input may come to: the first two are right."""


@dataclass
class Outcome:
    """What became of one input."""

    kind: str
    what: str
    """For offences: what was raised, and where."""
    seconds: float


def judge(bench: Bench, content: bytes) -> Outcome:
    """Read one input."""
    bench.file.write_bytes(content)
    before, began, kind, what = _resident(), time.perf_counter(), "accepted", ""
    try:
        bench.read()
    except UserError as error:
        said = str(error)
        kind, what = "UserError", said
        if printable(said) != said or len(said.splitlines()) != 1 or len(said) > MAX_LENGTH:
            kind, what = "message", f"{type(error).__name__}: {said!r:.300}"
    except MemoryError:
        kind, what = "memory", _where()
    except Exception:
        kind, what = "traceback", _where()
    seconds = time.perf_counter() - began
    if kind in ("accepted", "UserError"):
        if seconds > SLOW:
            kind, what = "slow", f"{seconds:.1f} s"
        elif (grown := _resident() - before) > GROWTH:
            kind, what = "memory", f"{grown / 1e6:.0f} MB more"
    return Outcome(kind, what, seconds)


def _where() -> str:
    """The error at hand and the innermost line of lookonce that it passed."""
    error = sys.exception()
    frames = traceback.extract_tb(error.__traceback__) if error else []
    own = [input_size for input_size in frames if f"{os.sep}lookonce{os.sep}" in input_size.filename] or frames
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
    return f"{type(error).__name__} at {place}: {str(error)[:200]!r}"


def _resident() -> int:
    """Most bytes that this process has had in memory; 0 where that is not known."""
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def prepare(reader: str, folder: Path) -> Bench:
    """A reader made ready, in a folder of its own; its good inputs have been read."""
    folder.mkdir(parents=True, exist_ok=True)
    bench = READERS[reader](folder)
    for content in bench.seeds:
        outcome = judge(bench, content)
        if outcome.kind not in ("accepted", "slow"):
            raise AssertionError(f"{reader}: a good input is not read: {outcome.what}")
    return bench


def _work(reader: str, seed: int, numbers: range, folder: Path, pipe: Any, state: Any) -> None:
    """A worker: reads inputs, counts outcomes in the shared state, and sends those that offend."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    bench = prepare(reader, folder)
    if resource is not None and Path("/proc/self/statm").is_file():
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    for number in numbers:
        state[NUMBER_AT], state[BEGAN_AT] = number, time.monotonic()
        content = bench.input(seed, reader, number)
        outcome = judge(bench, content)
        state[COUNTS_AT + KINDS.index(outcome.kind)] += 1
        state[SLOWEST_AT] = max(state[SLOWEST_AT], outcome.seconds)
        if outcome.kind not in KINDS[:2]:
            pipe.send((outcome, content))
    state[NUMBER_AT] = numbers.stop


NUMBER_AT, BEGAN_AT, SLOWEST_AT, COUNTS_AT = range(4)
"""Places in what a worker shares: the input under way, when it began, the slowest so far, the count of each kind."""


@dataclass
class Tally:
    """The outcomes of one reader's inputs."""

    reader: str
    keep: Path
    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    seconds: float = 0.0
    found: Counter[str] = field(default_factory=Counter)
    """Offences by what was raised where."""

    def row(self) -> str:
        """A line of the table."""
        total = sum(self.counts.values())
        cells = "".join(f"{self.counts[kind]:>11,}" for kind in KINDS)
        return f"{self.reader:<16}{total:>9,}{cells}{1000 * self.slowest:>9.0f}{total / max(self.seconds, 1e-9):>9.0f}"

    def save(self, outcome: Outcome, content: bytes) -> None:
        """Keep an offending input, the first three of a kind, beside what was raised."""
        key = f"{outcome.kind}: {re.sub('[0-9]+', 'N', outcome.what)[:120]}"
        self.found[key] += 1
        if self.found[key] <= 3:
            folder = self.keep / self.reader
            folder.mkdir(parents=True, exist_ok=True)
            stem = f"{outcome.kind}-{zlib.crc32(content):08x}"
            (folder / f"{stem}.bin").write_bytes(content)
            (folder / f"{stem}.txt").write_text(outcome.what + "\n", encoding="utf-8", errors="replace")


def fuzz(reader: str, inputs: int, seed: int, keep: Path, minutes: float = 0) -> Tally:
    """Run a reader on damaged inputs, in a worker process that is started again where it dies or hangs.

    minutes: end earlier, after so long; 0: never.
    """
    context = multiprocessing.get_context("spawn")
    tally, first, began = Tally(reader, keep), 0, time.monotonic()
    deadline = began + 60 * minutes if minutes else float("inf")
    while first < inputs and time.monotonic() < deadline:
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=SHARED_MEMORY, ignore_cleanup_errors=True) as home:
            receiver, sender = context.Pipe(duplex=False)
            state = context.RawArray("d", [-1.0, time.monotonic(), 0.0] + [0.0] * len(KINDS))
            process = context.Process(
                target=_work,
                args=(reader, seed, range(first, inputs), Path(home) / "reader", sender, state),
                daemon=True,
            )
            process.start()
            sender.close()
            hangs = _follow(process, receiver, state, tally, deadline)
            tally.counts.update({kind: int(state[COUNTS_AT + place]) for place, kind in enumerate(KINDS)})
            tally.slowest = max(tally.slowest, state[SLOWEST_AT])
            number = int(state[NUMBER_AT])
            if number < 0:
                raise SystemExit(f"{reader}: its worker cannot start; try tests/test_readers_fuzz.py")
            if number < inputs and time.monotonic() < deadline:
                kind, what = ("slow", f"no end after {HANG:.0f} s") if hangs else ("crash", f"exit {process.exitcode}")
                tally.counts[kind] += 1
                tally.save(Outcome(kind, what, HANG), READERS[reader](Path(home) / "again").input(seed, reader, number))
            first = number + 1
    tally.seconds = time.monotonic() - began
    return tally


def _follow(process: Any, receiver: Any, state: Any, tally: Tally, deadline: float) -> bool:
    """Take the offences that a worker sends until it ends, or has to be ended: whether it hung."""
    while True:
        try:
            if receiver.poll(0.2):
                tally.save(*receiver.recv())
                continue
        except EOFError:
            process.join()
            return False
        hangs = state[NUMBER_AT] >= 0 and time.monotonic() - state[BEGAN_AT] > HANG
        if hangs or time.monotonic() > deadline:
            process.kill()
            process.join()
            return hangs


def main() -> int:
    """Fuzz the readers that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)}; none: all")
    parser.add_argument("--inputs", type=int, default=1000, help="inputs for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0, help="most minutes for each reader; 0: no limit")
    parser.add_argument("--processes", type=int, default=1, help="readers at a time")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="folder for inputs that offend")
    given = parser.parse_args()
    if unknown := sorted({*given.readers} - READERS.keys()):
        parser.error(f"no reader {unknown[0]!r}; there are {', '.join(READERS)}")
    print(f"{'reader':<16}{'inputs':>9}" + "".join(f"{kind:>11}" for kind in KINDS) + f"{'max ms':>9}{'a second':>9}")
    offended = False
    one = partial(fuzz, inputs=given.inputs, seed=given.seed, keep=given.keep, minutes=given.minutes)
    with ThreadPoolExecutor(given.processes) as pool:  # a thread only waits for its worker process
        for tally in pool.map(one, given.readers or READERS):
            print(tally.row(), flush=True)
            for what, count in tally.found.most_common():
                print(f"    {count:>7,}  {printable(what)}", flush=True)
            offended = offended or bool(tally.found)
    if offended:
        print(f"inputs that offended are in {given.keep}")
    return int(offended)


if __name__ == "__main__":
    sys.exit(main())
