"""Tests of lookonce.model.darknet.cfg."""

import time

import pytest

from conftest import CASES, GOLDEN
from lookonce.errors import ConfigError
from lookonce.model import zoo
from lookonce.model.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.model.darknet.sections import SHORT_NAMES, CfgError
from lookonce.model.layers import (
    AvgPool,
    Batchnorm,
    Connected,
    Contrastive,
    Conv,
    Cost,
    Crop,
    Detection,
    Dropout,
    Local,
    LocalAvgPool,
    MaxPool,
    Region,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    Softmax,
    SpaceToDepth,
    Upsample,
    Yolo,
)
from lookonce.model.sizes import Shape, fitted, num_floats

NINE_THOUSAND = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))
"""Anchors of YOLO9000. Source: darknet/cfg/yolo9000.cfg."""

TRAINING = """
# Testing
 batch=1
subdivisions = 1
# Training
# batch=64
batch=1
momentum=0.9
decay=0.0005
saturation = 1.5
hue=.1
learning_rate=0.001
burn_in=1000
max_batches = 500200
policy=steps
steps=-1,100,80000
scales=.1,10,.1
"""
"""What [net] of a Darknet cfg holds for its training; batch stands twice, as in yolo9000.cfg."""


@pytest.mark.parametrize("name", list(zoo.DETECTORS))
def test_every_detector_survives_the_way_to_text_and_back(name):
    size = (448, 448) if name.startswith("yolov1") else (320, 608)
    cfg = Cfg(zoo.detector(name, 7, zoo.VOC_ANCHORS), *size)
    assert read_cfg(write_cfg(cfg)) == cfg


def test_the_classifier_survives_too():
    cfg = Cfg(zoo.darknet19(10), 224, 224)
    assert read_cfg(write_cfg(cfg)) == cfg


def test_darknets_spelling_is_read():
    text = (
        "\ufeff[network]\r\nwidth = 64\r\nheight=32 # low\r\n\r\n"
        "[conv]\r\nfilters=8\r\nsize=3\r\nstride=1\r\npad=1\r\nactivation=leaky\r\n"
        "; a pool\n[max]\nsize=2\nstride=2\n"
    )
    cfg = read_cfg(text)
    assert cfg == Cfg((Conv(8, batch_normalize=False), MaxPool()), 64, 32)
    assert num_floats(cfg.layers) == 8 + 8 * 27


def test_a_regions_defaults_are_darknets():
    text = "[net]\n[convolutional]\nfilters=6\nactivation=linear\n[region]\nanchors=1,2\nclasses=1\n"
    assert read_cfg(text).layers[-1] == Region(((1, 2),), 1, False, False, False, 0.5, 1, 1, 1, 1)


@pytest.mark.parametrize("layers, floats", [
    (zoo.yolov2(80, zoo.COCO_ANCHORS), 50_983_561),
    (zoo.yolov2(20, zoo.VOC_ANCHORS), 50_676_061),
    (zoo.yolov2_2016(20, zoo.VOC_ANCHORS), 67_158_109),
    (zoo.yolov2_tiny_voc(20, zoo.VOC_ANCHORS), 15_867_885),
    (zoo.yolov2_tiny(80, zoo.COCO_ANCHORS), 11_237_145),
    ((*zoo.backbone(), *zoo.head(9418, NINE_THOUSAND)), 48_807_501),
    (zoo.darknet19(), 20_856_776),
], ids=["yolov2", "yolov2-voc", "yolo-voc.2.0", "yolov2-tiny-voc", "yolov2-tiny", "yolo9000", "darknet19"])  # fmt: skip
def test_a_cfg_asks_for_as_many_numbers_as_its_published_weights_hold(layers, floats):
    assert num_floats(read_cfg(write_cfg(Cfg(layers, 416, 416))).layers) == floats


def spelled(text):
    """A cfg as people leave it: CRLF, a byte order mark, comments, odd spacing, short section names."""
    for long, short in (("[net]", "[network] "), ("[convolutional]", " [conv]"), ("[maxpool]", "[max]\t")):
        text = text.replace(long, short)
    lines = text.replace("=", "\t= ").replace("stride", "  stride").splitlines()
    return "\ufeff# made by hand\r\n" + "\r\n".join(f"{line}  \r\n; and so on" for line in lines)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.cfg")), ids=lambda file: file.stem)
def test_spelling_does_not_count(file):
    assert read_cfg(spelled(file.read_text())) == read_cfg(file.read_text())


def numbers(value):
    """The numbers of a value, or its text."""
    try:
        return tuple(map(float, value.split(",")))
    except ValueError:
        return value


def keys(text):
    """Every (key, value) of a cfg, section by section, without those that are Darknet's default."""
    lines = [line for line in text.replace(" ", "").splitlines() if line and line[0] != "#"]
    sections = ("\n".join(lines)).split("\n[")
    found = [[line.split("=") for line in section.splitlines() if "=" in line] for section in sections]
    return [sorted(((key, numbers(value)) for key, value in each if (key, numbers(value)) not in DEFAULTS), key=str)
            for each in found]  # fmt: skip


DEFAULTS = {("cls_normalizer", (1.0,)), ("beta_nms", (0.6,)), ("uc_normalizer", (1.0,)), ("softmax", (0.0,)),
            ("batch_normalize", (0.0,)), ("scale_x_y", (1.0,)), ("obj_normalizer", (1.0,)), ("forced", (0.0,)),
            ("objectness_smooth", (0.0,)), ("num", (1.0,)), ("iou_loss", "mse"), ("focal_loss", (0.0,))}  # fmt: skip


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.cfg")), ids=lambda file: file.stem)
def test_no_key_is_lost_on_the_way_to_layers_and_back(file):
    text = file.read_text()
    again = write_cfg(read_cfg(text))
    assert keys(again) == keys(text)
    assert read_cfg(again) == read_cfg(text)
    assert write_cfg(read_cfg(again)) == again


def test_training_keys_are_kept_and_written_back():
    region = "[region]\nanchors=1,1\nclasses=1\njitter=.3\nmax=30"
    cfg = read_cfg("[net]" + TRAINING + "[conv]\nfilters=6\nactivation=linear\n" + region)
    assert cfg.kept[0].count(("batch", "1")) == 2
    assert dict(cfg.kept[0])["steps"] == "-1,100,80000"
    assert cfg.kept[1:] == ((), (("jitter", ".3"), ("max", "30")))
    again = write_cfg(cfg)
    assert all(
        line.replace(" ", "") in again.splitlines() for line in TRAINING.splitlines() if line[:1] not in ("", "#")
    )
    assert read_cfg(again) == cfg


def test_of_a_key_that_stands_twice_the_first_counts_as_in_darknet():
    assert read_cfg("[net]\nwidth=64\nwidth=96\nheight=32\n[max]\n").width == 64


def test_all_kinds_of_layers_survive():
    layers = (Conv(4), Dropout(0.25), Route((0, -1)), Softmax(2.5, "data/9k.tree"), Cost("masked"), Contrastive())
    assert read_cfg(write_cfg(Cfg(layers))).layers == layers
    region = Region(NINE_THOUSAND, 2, thresh=0.123456789, object_scale=1e-7, tree="data/9k.tree", map="data/coco9k.map")
    layers = (Conv(21, activation="linear"), region)
    assert read_cfg(write_cfg(Cfg(layers))).layers == layers


def test_the_rarer_layers_survive_with_every_setting():
    layers = (
        Crop(200, 300, adjust=False), Conv(8, 3, 2, False, "swish", groups=1, dilation=2), Conv(8, 7, padding=0),
        Conv(8, 3, groups=8), Conv(8, 3, dilation=3, groups=8, share=3), Shortcut(-1, "leaky"), Route((-1, -2), 2, 1),
        Batchnorm(), Conv(8, xnor=True),
        MaxPool(5, 1), MaxPool(3, 2, padding=0), Upsample(4, 0.5), SpaceToDepth(2), LocalAvgPool(3, 1), AvgPool(),
    )  # fmt: skip
    cfg = Cfg(fitted(layers, Shape(3, 416, 416)))
    assert read_cfg(write_cfg(cfg)) == cfg
    layers = (Conv(4), AvgPool(), ScaleChannels(-2), Sam(-1, "logistic"), Local(4), Connected(3, "relu6", True))
    small = Cfg(fitted(layers, Shape(3, 9, 7)), 7, 9)
    assert read_cfg(write_cfg(small)) == small
    yolo = Yolo(((10.5, 14.0), (23.0, 27.0)), (1,), 2, True, 1.05, True, 0.7, 0.9, 0.213, "ciou", 0.07, 0.4, 0.5, 5.0,
                True, 0.1, True, (3.0, 7.0), "diounms", 0.8)  # fmt: skip
    head = Detection(3, 2, 2, (64, 64), True, True, True, True, 1.5, 0.5, 2.0, 5.0)
    for layers in ((Conv(11, activation="linear"), yolo), (Conv(8), Connected(52, "linear"), head)):
        cfg = Cfg(fitted(layers, Shape(3, 64, 64)), 64, 64)
        assert read_cfg(write_cfg(cfg)) == cfg


def test_another_number_of_channels_is_kept():
    cfg = read_cfg("[net]\nchannels=1\n[conv]\nfilters=3\nactivation=relu\n")
    assert cfg.channels == 1
    assert read_cfg(write_cfg(cfg)) == cfg


def test_keys_belong_to_as_many_sections_as_there_are():
    with pytest.raises(ConfigError, match="training keys of 1 sections"):
        Cfg((MaxPool(),), kept=((),))


@pytest.mark.parametrize("text, message", [
    ("", "x.cfg:1: no .net. section"),
    ("[net]\n", "x.cfg:1: a network without layers"),
    ("[net]\n\n[warp]\n", "x.cfg:3: section .warp.; expected one of net, convolutional"),
    ("[net]\n[maxpool]\nsice=2\n", "x.cfg:3: key 'sice' in .maxpool.; expected antialiasing, .*padding, size, "),
    ("[net]\n[maxpool]\nsize=two\n", "x.cfg:3: size='two'; expected numbers"),
    ("[net]\n[maxpool]\nsize=-2\n", "x.cfg:3: size=-2; expected a whole number, at least 1"),
    ("[net]\nhello\n", "x.cfg:2: 'hello'; expected .section."),
    ("[net]\n[route]\n", "x.cfg:2: .route. without layers"),
    ("[net]\n[convolutional]\nactivation=relie\n", "x.cfg:3: activation=relie; expected one of leaky, linear, "),
    ("[net]\n[conv]\ngroups=2\nactivation=leaky\n", "x.cfg:2: layer 0 .conv.: groups=2; expected a divisor of its 3 c"),
    ("[net]\n[conv]\nfilters=4\ngroups=3\n", "x.cfg:2: layer 0 .conv.: groups=3; .* of its 4 filters"),
    ("[net]\nwidth=4\n[conv]\nsize=7\n", "x.cfg:3: layer 0 .conv.: size=7 on a map of 4 x 416 cells"),
    ("[net]\n[conv]\nshare_index=-1\n", "x.cfg:2: layer 0 .conv.: share_index=-1; expected a convolution before it"),
    ("[net]\n[conv]\nfilters=6\n[conv]\nfilters=6\nshare_index=-1\n", "x.cfg:4: layer 1 .* with the same weights"),
    ("[net]\n[conv]\nflipped=yes\n", "x.cfg:3: flipped=yes; expected flipped=0"),
    ("[net]\n[max]\nsize=2\npadding=999\n", "x.cfg:4: padding=999; expected a whole number, .* at most 256"),
    ("[net]\n[conv]\nfilters=6\n[route]\nlayers=-1\ngroups=4\n", "x.cfg:4: .* groups=4; .* divisor of the 6 channels"),
    ("[net]\n[conv]\nfilters=6\n[route]\nlayers=-1\ngroups=2\ngroup_id=2\n", "x.cfg:4: .* group_id=2; expected 0 to 1"),
    ("[net]\n[conv]\n[max]\nstride=2\n[shortcut]\nfrom=-2\n",
     r"x.cfg:5: layer 2 .shortcut.: maps of different sizes \[\(1, 208, 208\), \(1, 416, 416\)\]"),
    ("[net]\n[conv]\n[shortcut]\nfrom=-1,-2\n", "x.cfg:4: from=-1,-2; expected one layer"),
    ("[net]\n[conv]\n[shortcut]\nfrom=-2\n", r"x.cfg:3: layer 1 \(shortcut\): from=-2; each must name a layer before"),
    ("[net]\n[conv]\nfilters=6\n[scale_channels]\nfrom=-1\n", "x.cfg:4: .* expected one number a channel"),
    ("[net]\n[upsample]\nstride=2\n[yolo]\nanchors=1,2\nclasses=1\n", "x.cfg:4: .*has 3 channels; 1 anchors and 1"),
    ("[net]\n[yolo]\nanchors=1,2,3,4\nnum=2\nmask=1,2\n",
     "x.cfg:5: mask=1,2 names no anchor 2; expected indices of the 2 anchors, 0 to 1"),
    ("[net]\n[yolo]\nanchors=1,2\niou_loss=best\n", "x.cfg:4: iou_loss=best; expected one of mse, iou, giou"),
    ("[net]\n[yolo]\nanchors=1,2\nnms_kind=cornersnms\n", "x.cfg:4: nms_kind=cornersnms; expected one of default"),
    ("[net]\n[yolo]\nanchors=1,2\ncounters_per_class=1,2\n", "x.cfg:4: counters_per_class=1,2; expected 20 numbers"),
    ("[net]\n[detection]\nclasses=1\n", "x.cfg:2: .detection. without coords; expected coords=4"),
    ("[net]\n[connected]\noutput=9\nactivation=linear\n[detection]\nclasses=1\ncoords=4\nside=1\nnum=2\n",
     "x.cfg:5: .* 9 numbers before it; side=1, num=2 and 1 classes need output=11"),
    ("[net]\n[local]\nsize=5\npad=1\nactivation=leaky\n", "x.cfg:3: size=5; expected size=3 with pad=1"),
    ("[net]\n[crop]\ncrop_height=999\n", "x.cfg:2: layer 0 .crop.: 1 x 999 of an image of 416 x 416"),
    ("[net]\n[max]\nsize=\n", "x.cfg:3: size=''; expected numbers"),
    ("[net]\n[max]\nsize=2,2\n", "x.cfg:3: size=2,2; expected one number"),
    ("[net]\n[max]\nsize=nan\n", "x.cfg:3: size='nan'; expected numbers"),
    ("[net]\n[max]\n[route]\nlayers=-1.5\n", "x.cfg:4: layers=-1.5; expected whole numbers"),
    ("[net]\n[max]\n\n[route]\nlayers=-2\n", "x.cfg:4: layer 1 .route.: layers=.-2,.; each must name a layer before"),
    ("[net]\n[dropout]\nprobability=2\n", "x.cfg:3: probability=2; expected one number, 0 to 1"),
    ("[net]\n[dropout]\nprobability=-1\n", "x.cfg:3: probability=-1; expected one number, 0 to 1"),
    ("[net]\n[region]\nanchors=1,-2\n", "x.cfg:3: anchors=1,-2; expected numbers above 0 and at most 1e.06"),
    ("[net]\n[region]\nanchors=1,1e300\n", "x.cfg:3: anchors=1,1e300; expected numbers above 0"),
    ("[net]\n[region]\ncoords=5\n", "x.cfg:3: coords=5; expected coords=4"),
    ("[net]\n[conv]\nfilters=7\nactivation=linear\n[region]\nanchors=1,2\nclasses=1\n", "x.cfg:5: .* has 7 channels"),
    ("[net]\n[region]\nanchors=1,2,3\n", "x.cfg:3: 3 numbers in anchors; expected 2 above 0 for num=1"),
])  # fmt: skip
def test_errors_name_the_line(text, message):
    with pytest.raises(CfgError, match=message):
        read_cfg(text, "x.cfg")


def case(name):
    file = next((CASES / name).glob("*.cfg"))
    return file.read_text(), file.name


def test_a_key_that_nothing_reads_is_kept_with_a_warning(caplog):
    cfg = read_cfg(*case("24-cfg-training-keys"))
    assert "calibrated.cfg: keys of [net] that nothing reads are kept: input_calibration (line 5)" in caplog.text
    assert "input_calibration=15.0,16.0,9.5" in write_cfg(cfg).splitlines()
    assert read_cfg(write_cfg(cfg)) == cfg
    caplog.clear()
    given = "[net]\nshow_\x1b[31m=1\nwidth=64\nema_alpha=.9\n[conv]\nfilters=6\nactivation=linear\nstopbackward=1\n"
    cfg = read_cfg(given + "[region]\nanchors=1,1\nclasses=1\nfocal_loss=1\n", "x.cfg")
    kept = r"show_\x1b[31m (line 2), ema_alpha (line 4)"
    assert [r.getMessage() for r in caplog.records] == [f"x.cfg: keys of [net] that nothing reads are kept: {kept}"]
    assert cfg.kept[1:] == ((("stopbackward", "1"),), (("focal_loss", "1"),))


def test_a_layers_key_that_nobody_knows_is_refused():
    with pytest.raises(CfgError, match=r"x\.cfg:4: key 'ternary' in \[convolutional\]; expected activation, "):
        read_cfg("[net]\n[conv]\nfilters=6\nternary=1\n", "x.cfg")


@pytest.mark.parametrize("section, key", [
    ("conv", "binary=1"), ("conv", "stride_x=2"), ("conv", "antialiasing=1"),
    ("max", "maxpool_depth=1"), ("max", "stride_y=2"), ("shortcut", "weights_type=per_channel"),
    ("reorg", "extra=1"), ("softmax", "groups=2"), ("region", "background=1"),
])  # fmt: skip
def test_a_key_that_changes_what_is_computed_is_refused(section, key):
    name = SHORT_NAMES.get(section, section)
    with pytest.raises(CfgError, match=rf"x.cfg:3: {key}; expected .* \(section \[{name}\]\)"):
        read_cfg(f"[net]\n[{section}]\n{key}\n", "x.cfg")


def test_bits_are_kept_where_a_convolution_reads_signs_alone():
    bits = "[conv]\nxnor=1\nbin_output=1\nfilters=4\nactivation=leaky\n[max]\nsize=2\nstride=2\n"
    cfg = read_cfg(f"[net]\n{bits}[conv]\nxnor=1\nactivation=linear\n")
    assert cfg.kept[1] == (("bin_output", "1"),)
    assert cfg.layers[0] == Conv(4, 1, batch_normalize=False, xnor=True)
    assert read_cfg(write_cfg(cfg)) == cfg
    with pytest.raises(CfgError, match=r"x\.cfg:2: bin_output=1 before a convolution without xnor=1; expected"):
        read_cfg(f"[net]\n{bits}[conv]\nactivation=linear\n", "x.cfg")


def test_of_more_anchors_than_num_the_first_are_taken(caplog):
    cfg = read_cfg(*case("55-cfg-more-anchors-than-num"))
    assert cfg.layers[-1].anchors == ((0.6, 0.6),)
    assert "a.cfg:69: 5 pairs of anchors, and num=1; as in Darknet the first 1 are used" in caplog.text
    with pytest.raises(CfgError, match=r"x\.cfg:3: 4 numbers in anchors; expected 6 above 0 for num=3"):
        read_cfg("[net]\n[region]\nanchors=1,2,3,4\nnum=3\n", "x.cfg")


@pytest.mark.parametrize("text, message", [
    ("[net]\n[crnn]\n[connected]\n[softmax]\n", r"x.cfg:2: a recurrent network \(section \[crnn\], line 2\); only"),
    ("[net]\n[lstm]\n[cost]\n", r"x.cfg:2: a recurrent network \(section \[lstm\]"),
    ("[net]\n[conv]\n[iseg]\n", r"x.cfg:3: an instance segmentation network \(section \[iseg\]"),
    ("[net]\n[max]\n[net]\n", r"x.cfg:3: section \[net\]; expected one of"),
])  # fmt: skip
def test_a_network_of_another_family_is_named(text, message):
    with pytest.raises(CfgError, match=message):
        read_cfg(text, "x.cfg")


@pytest.mark.parametrize("text, message", [
    ("[net]\n[conv]\nfilters=100000000000\n", "x.cfg:3: filters=100000000000; expected a whole number"),
    ("[net]\n[conv]\nfilters=2000000000\nactivation=linear\n", r"x.cfg:2: layer 0 \(conv\): the network is too large"),
    ("[net]\nwidth=99999999\n[max]\n", r"x.cfg:3: layer 0 \(maxpool\): the network is too large"),
    ("[net]\n[conv]\nsize=65537\npad=1\n", "x.cfg:3: size=65537; expected a whole number, at least 1 and at most 256"),
    ("[net]\n[max]\nstride=1e308\n", "x.cfg:3: stride=1e308; expected a whole number"),
    ("[net]\n[reorg]\nstride=1000\n", "x.cfg:3: stride=1000; expected a whole number"),
    ("[net]\n[region]\nanchors=1,2\nclasses=1e18\n", "x.cfg:4: classes=1e18; expected a whole number"),
    ("[net]\nchannels=4\n[max]\n", r"x.cfg:2: channels=4; expected 3 \(RGB\) or 1 \(grey\)"),
])  # fmt: skip
def test_sizes_are_bounded_with_their_line(text, message):
    with pytest.raises(CfgError, match=message):
        read_cfg(text, "x.cfg")


@pytest.mark.parametrize("folder", ["pair", "detector_cfg"])
def test_found_inputs_of_the_fuzz_test_are_told(folder):
    for file in (CASES / "fuzz" / folder).iterdir():
        with pytest.raises(CfgError, match=r"x.cfg:\d+: (filters|size)=.*; expected a whole number"):
            read_cfg(file.read_text(), "x.cfg")


@pytest.mark.parametrize(
    "name",
    [
        "../up.tree",
        "/etc/passwd",
        "data/../../up.tree",
        "..\\up.tree",
        "C:\\a.tree",
        "~/a",
        "\\\\server\\a",
        "//server/a",
    ],
)
@pytest.mark.parametrize("key", ["tree", "map"])
def test_a_file_outside_the_cfgs_folder_is_refused(key, name):
    with pytest.raises(CfgError, match=rf"x.cfg:5: {key}=.*; expected a file in the cfg's folder"):
        read_cfg(f"[net]\n[region]\nanchors=1,2\nclasses=1\n{key}={name}\n", "x.cfg")


def test_many_sections_are_read_in_a_moment():
    began = time.thread_time()
    with pytest.raises(CfgError, match="4096 layers"):
        read_cfg("[net]\n" + "[max]\n" * 20_000, "x.cfg")
    assert time.thread_time() - began < 2
