"""Damaged copies of exported files, drawn from a seed: bytes, and values that stay consistent protobuf or XML."""

import json
import re

import onnx

ODD = (None, -1, 0, 1, 2**31, 2**63, 1e308, float("inf"), float("nan"), "", "\x1b[31m\nx", [], {}, [[]], True, "1")


def bytes_of(content, draw):
    """Some bytes exchanged, a part removed or doubled, or an end cut off."""
    content = bytearray(content)
    kind = draw.integers(4)
    at = int(draw.integers(len(content)))
    if kind == 0:
        for place in draw.integers(len(content), size=int(draw.integers(1, 9))):
            content[place] = draw.integers(256)
    elif kind == 1:
        del content[at : at + int(draw.integers(1, 200))]
    elif kind == 2:
        content[at:at] = content[at : at + int(draw.integers(1, 200))]
    else:
        del content[at:]
    return bytes(content)


def description_of(text, draw):
    """A description with one value replaced, removed, or a word of its cfg exchanged."""
    about = json.loads(text)
    key = str(draw.choice(sorted(about)))
    kind = draw.integers(4)
    if kind == 0:
        del about[key]
    elif kind == 1:
        about[key] = ODD[draw.integers(len(ODD))]
    elif kind == 2 and isinstance(about[key], list) and about[key]:
        about[key][draw.integers(len(about[key]))] = ODD[draw.integers(len(ODD))]
    else:
        number = str(ODD[draw.integers(len(ODD))])
        places = [m.span() for m in re.finditer(r"(?<==)[-\d.]+", about["cfg"])]
        start, end = places[draw.integers(len(places))]
        about["cfg"] = about["cfg"][:start] + number + about["cfg"][end:]
    return json.dumps(about)


def onnx_of(content, draw):
    """An ONNX file of which one thing is other than it was."""
    made = onnx.ModelProto.FromString(content)
    graph = made.graph
    node = graph.node[draw.integers(len(graph.node))]
    tensor = graph.initializer[draw.integers(len(graph.initializer))]
    names = [n for each in graph.node for n in (*each.input, *each.output)]
    match draw.integers(11):
        case 0:
            made.metadata_props[0].value = description_of(made.metadata_props[0].value, draw)
        case 1:
            tensor.dims[:] = [int(draw.choice([-1, 0, 1, 3, 2**40, 2**62]))] * int(draw.integers(0, 5))
        case 2:
            tensor.data_type = int(draw.integers(-2, 30))
        case 3:
            tensor.raw_data = tensor.raw_data[: int(draw.integers(len(tensor.raw_data) + 1))]
        case 4:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="../../../etc/passwd")
        case 5:
            tensor.name = str(draw.choice(names))
        case 6 if node.input:
            node.input[draw.integers(len(node.input))] = str(draw.choice(names))
        case 7 if node.output:
            node.output[0] = str(draw.choice(names))
        case 8:
            node.op_type = str(draw.choice(["Loop", "If", "Conv", "Expand", "", "Tile", "\x1b"]))
        case 9:
            node.attribute.add(name="x", i=2**62)
        case _:
            made.opset_import[0].version = int(draw.choice([-1, 0, 1, 7, 17, 99, 2**62]))
    return made.SerializeToString()
