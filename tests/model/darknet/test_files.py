"""Tests of lookonce.model.darknet.files. Oracle: what Darknet itself computed with these cfgs and weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import GOLDEN, SHARED, needs_shared
from lookonce import Detector, load_darknet, save_darknet
from lookonce.data.images import load_rgb
from lookonce.errors import UserError
from lookonce.model.boxes import cxcywh_to_xyxy
from lookonce.model.darknet.cfg import read_cfg
from lookonce.model.darknet.files import PairError, find_pair, find_tree, read_names, read_text
from lookonce.model.heads import decode
from lookonce.model.layers import Conv, Region, Softmax, Yolo
from lookonce.model.model_file import load_model
from lookonce.model.network import DARKNET, TRAINED_HERE, Network, Sigma, folded
from lookonce.model.postprocess import Selection, nms_per_class, postprocess
from lookonce.model.resize import boxes_to_image, to_input
from sets import nano

DETECTORS = ["dk_yolov2s_160", "dk_tinys_160", "dk_logistic_96", "dk_tree_96x64"]
CLASSIFIERS = ["dk_classifier_100x84", "dk_classifier_tree_64"]
FAMILY = ["dk_v1_64x48", "dk_yolo3_96x64", "dk_yolo4_tiny_96x64", "dk_yolo4_new_96x64",
          "dk_yolo4_extras_48x32"]  # fmt: skip
ALONE = "dk_batchnorm_alone"
PHOTOGRAPH = "dk_yolov2s_160_bccd"
NETWORKS = [*DETECTORS, *CLASSIFIERS, *FAMILY, pytest.param(PHOTOGRAPH, marks=needs_shared)]


def golden(name):
    """Darknet's numbers, the .cfg and the .weights. The photograph's input stays where the images are."""
    folder = SHARED / "golden" if name == PHOTOGRAPH else GOLDEN
    stem = GOLDEN / name.removesuffix("_bccd")
    return np.load(folder / f"{name}.npz"), stem.with_suffix(".cfg"), stem.with_suffix(".weights")


def activated(raw, region, tree):
    """What Darknet's region layer makes of the map before it: x, y, objectness and classes; w, h stay."""
    cells = raw.reshape(len(region.anchors), 5 + region.classes, *raw.shape[-2:]).clone()
    cells[:, [0, 1, 4]] = cells[:, [0, 1, 4]].sigmoid()
    classes = cells[:, 5:].movedim(1, -1)  # [A, H, W, C]
    kind = tree.softmax if tree else (lambda x: x.softmax(-1)) if region.softmax else torch.sigmoid
    cells[:, 5:] = kind(classes).movedim(-1, 1)
    return cells.reshape(raw.shape)


def yolo_activated(raw, yolo):
    """What Darknet's yolo layer makes of the map before it: all but w and h, unless new_coords."""
    cells = raw.reshape(len(yolo.mask), -1, *raw.shape[-2:]).clone()
    sizes = [4, 6] if yolo.gaussian else [2, 3]
    if not yolo.new_coords:
        others = [entry for entry in range(cells.shape[1]) if entry not in sizes]
        cells[:, others] = cells[:, others].sigmoid()
    offsets = [0, 2] if yolo.gaussian else [0, 1]
    cells[:, offsets] = yolo.scale_x_y * cells[:, offsets] - (yolo.scale_x_y - 1) / 2
    return cells.reshape(raw.shape)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_every_layer_gives_darknets_numbers(name):
    numbers, cfg, weights = golden(name)
    network = load_darknet(cfg, weights)
    end = network.layers[-1]
    tree = find_tree(end.tree, cfg) if getattr(end, "tree", "") else None
    given, kept = torch.from_numpy(numbers["input"])[None], {}
    for index in range(len(network.layers)):
        given = output = network._run_layers(given, kept, index, index + 1)
        match network.layers[index]:
            case Region():
                output = activated(output, end, tree)
            case Yolo():
                output = yolo_activated(output, network.layers[index])
            case Softmax():
                output = (tree.softmax(output.flatten(1)) if tree else output.flatten(1).softmax(-1))[..., None, None]
        if not isinstance(network.layers[index], Softmax):  # Darknet gives its softmax layer no shape
            assert output.shape[1:] == tuple(numbers["layer_out_chw"][index])
        found, most = output.flatten()[numbers["layer_sample_index"][index].astype(int)], output.abs().max()
        wrong = np.abs(found.numpy() - numbers["layer_sample_value"][index]).max()
        assert wrong <= 1e-5 * most, f"layer {index}: {wrong / most:.1e} of its maximum"
        if f"layer{index}_output" in numbers:
            assert np.abs(output[0].numpy() - numbers[f"layer{index}_output"]).max() <= 1e-5 * most


@torch.no_grad()
def test_a_batch_norm_of_its_own_gives_darknets_numbers():
    numbers, cfg, weights = golden(ALONE)
    network = load_darknet(cfg, weights)
    x = torch.from_numpy(numbers["input"])[None]
    for index, name in enumerate(("conv", "batchnorm", "last")):
        x = network._run_layers(x, {}, index, index + 1)
        assert np.abs(x[0].numpy() - numbers[name]).max() <= 1e-6 * np.abs(numbers[name]).max(), name


@pytest.mark.parametrize("name", CLASSIFIERS)
@torch.no_grad()
def test_a_classifier_gives_darknets_probabilities(name):
    numbers, cfg, weights = golden(name)
    network = load_darknet(cfg, weights)
    scores = network(torch.from_numpy(numbers["input"])[None])[0].flatten()
    np.testing.assert_allclose(scores, numbers["pre_softmax"], atol=1e-5 * np.abs(numbers["pre_softmax"]).max())
    named = network.layers[-1].tree
    found = find_tree(named, cfg).softmax(scores) if named else scores.softmax(-1)
    np.testing.assert_allclose(found, numbers["probabilities"], atol=1e-5)


@pytest.mark.parametrize("name", [*DETECTORS, pytest.param(PHOTOGRAPH, marks=needs_shared)])
@torch.no_grad()
def test_after_suppression_darknets_detections_stand(name):
    numbers, cfg, _ = golden(name)
    model = load_model(cfg)
    tree = model.tree and replace(model.tree, threshold=float(numbers["hier_thresh"]))
    raw = model.network(torch.from_numpy(numbers["input"])[None])
    predictions = decode(raw, model.network.heads, tree)
    size = tuple(numbers["image_wh"].tolist())
    corners = boxes_to_image(predictions.boxes[0], size, model.input_size, "letterbox")
    share = tree.top_only(predictions.class_prob[0]) if tree else predictions.class_prob[0]
    scores = predictions.objectness[0, :, None] * share  # [N, C]
    selection = Selection(float(numbers["thresh"]), float(numbers["nms"]), clip=False, tree=tree)
    box, label = nms_per_class(corners, scores, selection)
    kept = numbers["final_box_index"].astype(int), numbers["final_class"].astype(int)
    assert set(zip(box.tolist(), label.tolist(), strict=True)) == set(zip(*(k.tolist() for k in kept), strict=True))
    assert len(postprocess(predictions, [size], model.input_size, "letterbox", model.labels, selection)[0]) == len(
        kept[0]
    )
    np.testing.assert_allclose(scores[kept], numbers["final_prob"], atol=1e-5)
    theirs = cxcywh_to_xyxy(torch.from_numpy(numbers["final_bbox"]))
    side = torch.from_numpy(numbers["final_bbox"][:, 2:]).amax(1, keepdim=True)
    # Boxes reach 10^7 times the image here: exp turns 1e-6 of a logit's maximum into so much of a side.
    wrong = (corners[kept[0]] / torch.tensor(size).repeat(2) - theirs).abs() / (4 * side).clamp(min=1)
    assert wrong.max() <= 1e-5


def test_a_detector_reads_darknets_files(caplog):
    found = Detector(GOLDEN / "dk_yolov2s_160.weights", "torch", threshold=0.0)(np.zeros((60, 80, 3), np.uint8))
    assert found.class_names[3] == "class 3"
    assert "no " + str(GOLDEN / "dk_yolov2s_160.names") in caplog.text


def random_network(layers, seed=0):
    """A network whose batch norms have small variances, so that every epsilon shows."""
    network = Network(layers).eval()
    generator = torch.Generator().manual_seed(seed)
    for convolution in network.convolution_list():
        if convolution.norm is not None:
            convolution.norm.running_var.copy_(
                10 ** torch.empty(len(convolution.norm.weight)).uniform_(-7, 0, generator=generator)
            )
            convolution.norm.running_mean.normal_(0, 0.1, generator=generator)
            convolution.norm.weight.data.uniform_(0.001, 0.02, generator=generator)
    return network


ANCHORS = ((1.0, 2.0), (3.5, 0.5))


@pytest.mark.parametrize("sigma", [TRAINED_HERE, DARKNET], ids=["trained here", "Darknet's"])
@torch.no_grad()
def test_both_conventions_survive_the_way_to_darknet_and_back(sigma, tmp_path):
    network = random_network(nano(3, ANCHORS))
    for convolution in network.convolution_list()[:-1]:
        convolution.norm.sigma = sigma
    save_darknet(network, tmp_path / "n.cfg", tmp_path / "n.weights")
    found = load_darknet(tmp_path / "n.cfg", tmp_path / "n.weights")
    assert {c.norm.sigma for c in found.convolution_list()[:-1]} == {DARKNET}
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found(x), network(x), rtol=1e-5, atol=1e-5 * float(network(x)[0].abs().max()))
    for convolution in network.convolution_list()[:-1]:
        convolution.norm.sigma = TRAINED_HERE if sigma == DARKNET else DARKNET
    assert (found(x)[0] - network(x)[0]).abs().max() > 0.1 * network(x)[0].abs().max()  # the convention shows


@torch.no_grad()
def test_a_grey_network_is_opencvs_and_survives_the_way_to_darknet_and_back(tmp_path):
    cv2 = pytest.importorskip("cv2")
    network = folded(Network(nano(3, ANCHORS), channels=1).eval())
    cfg, weights = tmp_path / "n.cfg", tmp_path / "n.weights"
    save_darknet(network, cfg, weights, input_size=(96, 64))
    assert read_cfg(cfg.read_text()).channels == 1
    found = load_darknet(cfg, weights)
    grey = torch.rand(1, 1, 64, 96, generator=torch.Generator().manual_seed(1))
    assert torch.equal(found(grey)[0], network(grey)[0])
    theirs = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    theirs.setInput(grey.numpy())
    last = [name for name in theirs.getLayerNames() if name.startswith("conv_")][-1]
    np.testing.assert_allclose(theirs.forward(last), found(grey)[0].numpy(), atol=1e-4)
    save_darknet(found, tmp_path / "again.cfg", tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == weights.read_bytes()


@pytest.mark.parametrize("name", [*DETECTORS, *CLASSIFIERS, *FAMILY, "dk_yolo4_gaussian_48x32", "dk_v1_step", ALONE])
def test_what_is_read_is_written_byte_by_byte(name, tmp_path):
    _, cfg, weights = golden(name)
    save_darknet(load_darknet(cfg, weights), tmp_path / "again.cfg", tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == weights.read_bytes()
    assert read_cfg((tmp_path / "again.cfg").read_text()) == read_cfg(cfg.read_text())


def test_a_new_frame_and_count_go_into_the_files(tmp_path):
    network = load_darknet(GOLDEN / "dk_tinys_160.cfg", GOLDEN / "dk_tinys_160.weights")
    save_darknet(network, tmp_path / "n.cfg", tmp_path / "n.weights", input_size=(96, 64), seen=2**33)
    found = load_darknet(tmp_path / "n.cfg", tmp_path / "n.weights").origin
    assert (found.cfg.width, found.cfg.height, found.header.seen) == (96, 64, 2**33)


@torch.no_grad()
def test_a_folded_network_is_the_same_to_every_reader(tmp_path):
    network = load_darknet(GOLDEN / "dk_yolov2s_160.cfg", GOLDEN / "dk_yolov2s_160.weights")
    save_darknet(folded(network), tmp_path / "n.cfg", tmp_path / "n.weights")
    found = load_darknet(tmp_path / "n.cfg", tmp_path / "n.weights")
    assert not any(layer.batch_normalize for layer in found.layers if isinstance(layer, Conv))
    assert found.origin.header == network.origin.header
    assert found.origin.cfg.kept == network.origin.cfg.kept
    x = torch.from_numpy(np.load(GOLDEN / "dk_yolov2s_160.npz")["input"])[None]
    assert (found(x)[0] - network(x)[0]).abs().max() < 1e-5 * network(x)[0].abs().max()


def test_a_prefix_fills_the_first_layers_only(tmp_path):
    whole = random_network(nano(3, ANCHORS))
    save_darknet(whole, tmp_path / "n.cfg", tmp_path / "n.weights")
    save_darknet(Network(whole.layers[:4]), tmp_path / "trunk.cfg", tmp_path / "n.conv.4")
    trunk = load_darknet(tmp_path / "trunk.cfg", tmp_path / "n.conv.4").convolution_list()
    found = load_darknet(tmp_path / "n.cfg", tmp_path / "n.conv.4", layers=4).convolution_list()
    assert torch.equal(found[1].conv.weight, trunk[1].conv.weight)
    assert [c.norm.sigma for c in found[:3]] == [DARKNET, DARKNET, TRAINED_HERE]
    assert all(p.isfinite().all() for c in found for p in c.state_dict().values())
    with pytest.raises(UserError, match="exactly those of the first 3 layers: give layers=3"):
        load_darknet(tmp_path / "n.cfg", tmp_path / "n.conv.4")


@pytest.fixture
def files(tmp_path):
    save_darknet(random_network(nano(2, ANCHORS)), tmp_path / "n.cfg", tmp_path / "n.weights", input_size=(64, 96))
    return tmp_path


def test_the_names_are_those_beside_it(files, caplog):
    (files / "n.names").write_bytes("\ufeffcat\r\nsmall dog \r\n\r\n".encode())
    assert find_pair(files / "n.weights") == find_pair(files / "n.cfg")
    model = load_model(files / "n.cfg")
    assert (model.labels, model.input_size, model.resize) == (("cat", "small dog"), (64, 96), "letterbox")
    (files / "n.names").rename(files / "coco.names")
    with caplog.at_level("INFO", "lookonce"):
        assert load_model(files / "n.cfg").labels == ("cat", "small dog")
        assert "n.cfg: class names from coco.names" in caplog.text
        (files / "coco.names").write_text("of another model\n")
        assert load_model(files / "n.cfg").labels == ("class 0", "class 1")
        assert "coco.names: not used: it has 1 names" in caplog.text
    (files / "other.names").write_text("a\nb\n")  # of two, neither is taken
    assert load_model(files / "n.cfg").labels == ("class 0", "class 1")


@pytest.mark.parametrize("change, message", [
    (lambda home: (home / "n.weights").unlink(), "no n.weights in its folder"),
    (lambda home: (home / "n.names").write_text("one\n"), "n.names: 1 names; .*n.cfg has classes=2"),
    (lambda home: (home / "n.names").write_text("one\n\ntwo\n"), "n.names:2: an empty line"),
    (lambda home: (home / "n.cfg").write_text("[net]\nchannels=4\n[maxpool]\n"), "n.cfg:2: channels=4; expected 3"),
    (lambda home: (home / "n.cfg").write_text("[net]\n[route]\nlayers=-1\n"), "n.cfg:2: layer 0 .route."),
    (lambda home: (home / "n.weights").write_bytes(b""), "n.weights: 0 bytes; a .weights file starts with a header"),
])  # fmt: skip
def test_files_that_do_not_go_together_are_told(files, change, message):
    change(files)
    with pytest.raises(UserError, match=message) as error:
        load_model(files / "n.cfg")
    assert "\n" not in str(error.value)


def test_a_classifier_is_no_detector():
    with pytest.raises(UserError, match="it classifies, it cannot detect"):
        load_model(GOLDEN / "dk_classifier_100x84.cfg")


def test_a_tree_is_found_where_darknet_users_keep_it(tmp_path):
    (tmp_path / "cfg").mkdir()
    (tmp_path / "data").mkdir()
    with pytest.raises(PairError, match=r"tree=data/small.tree: no such file; put small.tree into the folder of"):
        find_tree("data/small.tree", tmp_path / "cfg" / "n.cfg")
    (tmp_path / "data" / "small.tree").write_text("a -1\nb 0\n")
    assert find_tree("data/small.tree", tmp_path / "cfg" / "n.cfg").names == ("a", "b")


def test_a_tree_elsewhere_is_not_read(tmp_path, monkeypatch):
    for folder in ("models", "data", "work/data"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "small.tree").write_text("a -1\n")
    (tmp_path / "models" / "small.tree").unlink()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(PairError, match="no such file"):
        find_tree("data/small.tree", tmp_path / "models" / "n.cfg")


def test_a_large_file_is_no_text_and_no_memory(tmp_path):
    with (tmp_path / "n.cfg").open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(PairError, match="at most 16777216 bytes"):
        read_text(tmp_path / "n.cfg")


def test_weights_of_another_length_are_refused_before_the_network_takes_memory(tmp_path, monkeypatch):
    (tmp_path / "n.weights").write_bytes(bytes(100))
    (tmp_path / "n.cfg").write_text("[net]\nwidth=32\nheight=32\n" + "[conv]\nfilters=9000\nactivation=linear\n" * 2)
    monkeypatch.setattr("lookonce.model.network.empty", None)
    with pytest.raises(UserError, match=r"n\.weights: 21 numbers; the cfg needs 81,045,000"):
        load_darknet(tmp_path / "n.cfg", tmp_path / "n.weights")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_text_of_any_age_is_read(encoding, tmp_path):
    (tmp_path / "n.names").write_bytes("école\n".encode(encoding))
    assert read_names(tmp_path / "n.names") == ("école",)
    with pytest.raises(UserError, match="cannot be read"):
        read_text(tmp_path)


PUBLISHED = SHARED / "weights"
"""Networks that others trained; they are not part of the repository."""
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published networks are not at {PUBLISHED}")
RECORDED = json.loads((PUBLISHED / "opencv.json").read_text()) if PUBLISHED.is_dir() else {"": {}}


@needs_published
@pytest.mark.parametrize("name", RECORDED)
def test_a_published_network_goes_back_byte_by_byte_and_finds_what_opencv_found(name, tmp_path):
    about = RECORDED[name]
    model = load_model(PUBLISHED / about["cfg"])
    save_darknet(model.network, tmp_path / "n.cfg", tmp_path / "n.weights")
    assert (tmp_path / "n.weights").read_bytes() == (PUBLISHED / f"{name}.weights").read_bytes()
    assert read_cfg((tmp_path / "n.cfg").read_text()) == model.network.origin.cfg
    model.network.sigmas = [Sigma(1e-6, 0)] * len(model.network.sigmas)  # OpenCV's convention
    labels = read_names(PUBLISHED / about["names"])
    for image, recorded in about["images"].items():
        pixels = load_rgb(PUBLISHED / "images" / image)
        given = torch.from_numpy(to_input(pixels, model.input_size, "stretch"))[None]
        with torch.no_grad():
            found = decode(model.network(given), model.heads).numpy()
        size = pixels.shape[1::-1]
        boxes = boxes_to_image(found.boxes[0], size, model.input_size, "stretch")
        start = np.clip(boxes[:, :2], 0, None)  # OpenCV moves boxes into the image
        boxes = np.concatenate((start, np.minimum(start + boxes[:, 2:] - boxes[:, :2], size)), 1)
        scores = found.objectness[0, :, None] * found.class_prob[0]
        for each in recorded:  # of each predictor the best class, suppressed over all classes, in whole pixels
            x, y, w, h = each["box_xywh"]
            near = np.abs(boxes - [x, y, x + w, y + h]).max(1) < 2.5
            score = scores[near, labels.index(each["label"])]
            assert np.abs(score - each["score"]).min(initial=1) < 0.02, (
                image,
                each,
            )  # programs decode JPEG differently


@needs_published
@pytest.mark.parametrize("name", RECORDED)
@torch.no_grad()
def test_a_published_network_gives_opencvs_raw_detections(name):
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        pytest.skip(f"OpenCV {cv2.__version__} reads no Darknet files; version 4 does")
    network = load_darknet(PUBLISHED / f"{name}.cfg", PUBLISHED / f"{name}.weights")
    network.sigmas = [Sigma(1e-6, 0)] * len(network.sigmas)
    size = (network.origin.cfg.width, network.origin.cfg.height)
    given = cv2.dnn.blobFromImage(cv2.imread(str(PUBLISHED / "images" / "dog.jpg")), 1 / 255, size, swapRB=True)
    theirs = cv2.dnn.readNetFromDarknet(str(PUBLISHED / f"{name}.cfg"), str(PUBLISHED / f"{name}.weights"))
    theirs.setInput(given)
    rows = np.concatenate(
        [out.reshape(-1, out.shape[-1]) for out in theirs.forward(theirs.getUnconnectedOutLayersNames())]
    )
    expected = rows[(rows[:, 5:] > 0).any(1)]  # cx, cy, w, h in 0..1, objectness, scores above a threshold
    found = decode(network(torch.from_numpy(given)), network.heads)
    scores = (found.objectness[..., None] * found.class_prob)[0].numpy()
    cx, cy, w, h = expected[:, :4].T
    boxes = np.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), 1) * np.tile(size, 2)
    assert len(expected) > 2 or "body" in name  # nobody is on this image
    for box, row in zip(boxes, expected, strict=True):
        at = np.abs(found.boxes[0].numpy() - box).max(1).argmin()
        np.testing.assert_allclose(found.boxes[0, at], box, atol=0.002)
        shown = row[5:] > 0
        np.testing.assert_allclose(scores[at][shown], row[5:][shown], atol=1e-4)
