"""The model file: one .safetensors with everything that detection needs.

Its tensors are the weights. Its metadata holds the description of the model as JSON under KEY, as do exported ONNX and
OpenVINO files. Nothing is unpickled or run. A Darknet .cfg with its .weights in the same folder is also a model file.
torch is imported where weights are read or written: reading a description does not need it.
"""

from __future__ import annotations

import json
import logging
import math
import mimetypes
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lookonce import __version__
from lookonce.errors import UserError
from lookonce.files import replacing
from lookonce.model.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.model.darknet.files import Pair, find_pair, load_darknet, read_names, tree_of
from lookonce.model.layers import Detection, Layer, PlacedHead
from lookonce.model.resize import ResizeMode
from lookonce.model.sizes import check_input_size, heads_of, num_classes, tree_files
from lookonce.model.tree import Tree
from lookonce.text import clean_name

if TYPE_CHECKING:
    from lookonce.model.darknet.weights import Origin
    from lookonce.model.network import Network

KEY = "lookonce"
FOREIGN = {
    ".pt": "PyTorch",
    ".pth": "PyTorch",
    ".h5": "Keras",
    ".keras": "Keras",
    ".tflite": "TensorFlow Lite",
    ".pb": "TensorFlow",
}
"""Key of the JSON: in the metadata of a model file and of ONNX, and in OpenVINO's rt_info."""
FORMAT = 1
"""Increased when older versions cannot read the file."""
MAX_SEEN = 2**63 - 1
MAX_DEPTH = 20
"""Most objects and lists in each other in the settings of a training."""
log = logging.getLogger("lookonce")


class ModelFileError(UserError):
    """A model file that cannot be read or is inconsistent."""


def not_ours(path: str, kind: str) -> ModelFileError:
    """Return the error for an exported file without a description."""
    return ModelFileError(
        f"{path}: {kind} without lookonce's description (labels, anchors); write it with lookonce export"
    )


@dataclass(frozen=True)
class Model:
    """A detector: its network, and how to use it. Without weights it is the description in a file.

    Raises ModelFileError or ConfigError for values that do not fit together.
    """

    loaded: Network | None
    """The network with its weights; None: only its layers are known."""
    labels: tuple[str, ...]
    """[C] class names."""
    input_size: tuple[int, int] = (416, 416)
    """(width, height) of the input, pixels."""
    resize: ResizeMode = "letterbox"
    thresholds: tuple[float, ...] = ()
    """[C] recommended score thresholds from validation; empty: unknown."""
    seen: int = 0
    """Images that training has seen."""
    training: dict[str, Any] = field(default_factory=dict)
    """Settings and data of its training, for people to read."""
    tree: Tree | None = None
    """Tree of classes; None: there is none."""
    pixel_range: tuple[float, float] | None = None
    """Values that become black and white in images of more than 8 bits; None: see data.images.load_rgb."""
    layers: tuple[Layer, ...] = ()
    """Layers of the network."""
    channels: int = 3
    """Channels of the network's input: 3 (RGB), or 1 (grey)."""

    def __post_init__(self) -> None:
        if self.loaded is not None:
            object.__setattr__(self, "layers", self.loaded.layers)
            object.__setattr__(self, "channels", self.loaded.channels)
        object.__setattr__(self, "labels", tuple(map(clean_name, self.labels)))
        classes = num_classes(self.layers)
        check_input_size(self.layers, self.input_size, self.channels)
        if len(self.labels) != classes:
            raise ModelFileError(f"{len(self.labels)} labels for a network of {classes} classes")
        if len(self.thresholds) not in (0, classes):
            raise ModelFileError(f"{len(self.thresholds)} thresholds for {classes} classes")
        if not all(0 <= value <= 1 for value in self.thresholds):
            raise ModelFileError(f"thresholds {self.thresholds[:9]}; expected 0 to 1")
        if not 0 <= self.seen <= MAX_SEEN:
            raise ModelFileError(f"{self.seen} images seen; expected 0 to {MAX_SEEN}")
        named = tree_files(self.layers).get("tree", "")
        if (self.tree is None) != (not named):
            raise ModelFileError(
                f"the cfg has tree={named!r}, but a class tree is {'present' if self.tree else 'missing'}"
            )
        if self.tree is not None and len(self.tree.parents) != classes:
            raise ModelFileError(f"a tree of {len(self.tree.parents)} classes for {classes} labels")
        if not isinstance(self.training.get("recipe", {}), dict):
            raise ModelFileError("training.recipe; expected an object")
        if self.pixel_range is not None:
            low, high = self.pixel_range
            if not -math.inf < low < high < math.inf:
                raise ModelFileError(f"pixel_range {[low, high]}; expected two increasing numbers, or null")

    @property
    def network(self) -> Network:
        """The network with its weights. Only for models that have them."""
        assert self.loaded is not None, "a description has no weights"
        return self.loaded

    @property
    def description(self) -> Model:
        """The model without weights."""
        return replace(self, loaded=None)

    @property
    def heads(self) -> tuple[PlacedHead, ...]:
        """The network's heads in layer order."""
        return heads_of(self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return the description as plain values; from_text reads them back."""
        cfg = write_cfg(Cfg(self.layers, *self.input_size, self.channels))
        rest = {name: value for name, value in vars(self).items() if name not in ("loaded", "layers", "channels")}
        return {"format": FORMAT, "version": __version__, "cfg": cfg, **rest, "tree": self.tree and asdict(self.tree)}

    @classmethod
    def from_text(cls, text: str, place: str) -> Model:
        """Read the description in a file, JSON as to_json gives it. place: the file, for messages.

        Raises:
            ModelFileError: another format, or values that are missing, of another type, or inconsistent.
            CfgError: a network that cannot be read.
        """
        return _read(text, place)[0]


class _Stored(msgspec.Struct):
    """The JSON in a file. New versions may add keys with defaults."""

    cfg: str
    labels: tuple[str, ...]
    input_size: tuple[int, int]
    resize: ResizeMode
    thresholds: tuple[float, ...]
    seen: int
    training: dict[str, Any]
    tree: Tree | None = None
    pixel_range: tuple[float, float] | None = None
    sigma: tuple[tuple[float, float], ...] = ()
    """Convention for variances of each batch norm; in the model file only."""


def _read(text: str, place: str) -> tuple[Model, tuple[tuple[float, float], ...]]:
    """Return the model of a description, without weights, and the sigmas of its batch norms."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{place}: its description cannot be read ({str(error)[:200]!r})") from None
    if not isinstance(found, dict) or not found:
        raise ModelFileError(f"{place}: its description cannot be read; expected a JSON object")
    if found.get("format") != FORMAT:
        raise ModelFileError(
            f"{place}: format {str(found.get('format'))[:60]}; this version of lookonce reads format {FORMAT}; use the "
            "version that wrote the file"
        )
    try:
        stored = msgspec.convert({"input_size": found.get("frame"), **found}, _Stored)  # frame: its name in version 0.1
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise ModelFileError(
            f"{place}: its description cannot be read ({str(error)[:200]}); was it written by lookonce?"
        ) from None

    if not _is_shallow(stored.training, MAX_DEPTH):
        raise ModelFileError(f"{place}: training in its description is nested deeper than {MAX_DEPTH}; was it written "
                             "by lookonce?")  # fmt: skip
    cfg = read_cfg(stored.cfg, place)
    values = {name: getattr(stored, name) for name in stored.__struct_fields__ if name not in ("cfg", "sigma")}
    try:
        return Model(None, **values, layers=cfg.layers, channels=cfg.channels), stored.sigma
    except UserError as error:
        raise ModelFileError(f"{place}: {error}") from None


def _is_shallow(value: object, depth: int) -> bool:
    """Return whether plain values are nested at most so deep: deeper ones can be read, but not written again."""
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return depth > 0 and all(_is_shallow(each, depth - 1) for each in inside)


def save_model(model: Model, path: Path) -> None:
    """Write a model file atomically. Raises UserError for a full disk."""
    import safetensors.torch

    tensors = {name: value.contiguous() for name, value in model.network.state_dict().items()}
    content = safetensors.torch.save(tensors, {KEY: json.dumps({**model.to_json(), "sigma": model.network.sigmas})})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load_model(path: Path | str) -> Model:
    """Read a model file, a run folder, or a Darknet .cfg or .weights; the network is in evaluation mode.

    Raises:
        UserError: Darknet files that do not belong together.
        ModelFileError: no such file, not a safetensors file of lookonce, or an inconsistent one.
    """
    import safetensors

    path = Path(path).expanduser()
    if path.is_dir() and (path / "model.safetensors").is_file():
        path = path / "model.safetensors"  # a run folder
    if path.suffix in (".cfg", ".weights"):
        return _from_darknet(path)
    if path.suffix in (".onnx", ".xml"):
        raise ModelFileError(f"{path}: is an exported file; give the model file that it was exported from")
    if (mimetypes.guess_type(path.name)[0] or "").startswith("image/"):
        raise ModelFileError(f"{path}: is an image; the model comes first, as in lookonce detect coco {path}")
    if path.suffix in FOREIGN:
        raise ModelFileError(f"{path}: is a file of {FOREIGN[path.suffix]}, which lookonce does not read; train a "
                             "model with lookonce train, or get Darknet's weights with lookonce download")  # fmt: skip
    if path.suffix == ".ckpt":
        raise ModelFileError(f"{path}: is a training checkpoint; {_model_of_run(path.absolute().parent.parent)}")
    if not path.is_file():
        run = path if path.is_dir() else path.parent
        if (run / "checkpoints").is_dir():
            raise ModelFileError(f"{path}: no such model file; {_model_of_run(run)}")
        raise ModelFileError(f"{path}: no such model file; lookonce train writes runs/NAME/model.safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if KEY not in metadata:
                raise ModelFileError(f"{path}: a safetensors file without lookonce's description; give a model file "
                                     "that lookonce train wrote")  # fmt: skip
            model, sigmas = _read(metadata[KEY], str(path))
            return replace(model, loaded=_filled(model, sigmas, file, path))
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: not a model file ({error}); expected .safetensors of lookonce") from None


def _model_of_run(run: Path) -> str:
    """Return the path of a run's model for a message, or how to get it."""
    if (run / "model.safetensors").is_file():
        return f"give the model of its run: {run / 'model.safetensors'}"
    return f"its run writes {run / 'model.safetensors'} at the first validation; wait for it, or continue with --resume"


def _filled(model: Model, sigmas: tuple[tuple[float, float], ...], file: Any, path: Path) -> Network:
    """Build the network with a file's weights. Shapes are checked before memory is taken."""
    import torch

    from lookonce.model.network import Network

    with torch.device("meta"):
        network = Network(model.layers, model.channels)
    expected = {name: (list(value.shape), "F32") for name, value in network.state_dict().items()}
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    found = {name: (each.get_shape(), each.get_dtype()) for name, each in slices.items()}
    if found != expected or len(sigmas) != len(network.sigmas):
        wrong = min((name for name in {*found, *expected} if found.get(name) != expected.get(name)), default="sigma")
        raise ModelFileError(f"{path}: its description does not fit its weights ({wrong[:60]}): the file is damaged; "
                             "copy it again")  # fmt: skip
    for sigma in sigmas:
        if not all(0 <= value < math.inf for value in sigma):
            raise ModelFileError(f"{path}: sigma {sigma} in its description; expected two numbers of at least 0")
    network = network.to_empty(device="cpu")
    network.sigmas = sigmas
    network.load_state_dict({name: file.get_tensor(name) for name in expected})
    return network.eval()


def _from_darknet(path: Path) -> Model:
    """Read the model in a .cfg, its .weights and its .names."""
    pair = find_pair(path)
    network = load_darknet(pair.cfg, pair.weights)
    origin, classes = network.origin, num_classes(network.layers)
    assert origin is not None  # load_darknet sets it
    tree = tree_of(network.layers, pair.cfg)
    labels = _darknet_labels(pair, classes) or (tree.names if tree else ())
    if not labels:
        labels = tuple(f"class {index}" for index in range(classes))
        log.warning("no %s: the classes are named 'class 0', 'class 1', ...", pair.cfg.with_suffix(".names"))
    input_size = (origin.cfg.width, origin.cfg.height)
    try:
        return Model(network, labels, input_size, _darknet_resize(origin), seen=min(origin.header.seen, MAX_SEEN),
                     tree=tree)  # fmt: skip
    except UserError as error:
        raise ModelFileError(f"{pair.cfg}: {error}") from None


def _darknet_resize(origin: Origin) -> ResizeMode:
    """Return how the program that wrote the files resizes images.

    Darknet letterboxes them, but stretches those of a detection layer (yolo.c). Its fork stretches all unless the cfg
    has letter_box=1; so does OpenCV, whose interpolation this is.
    """
    if any(isinstance(layer, Detection) for layer in origin.cfg.layers):
        return "stretch"
    wanted = bool(origin.cfg.kept) and dict(origin.cfg.kept[0]).get("letter_box", "0") not in ("0", "")
    return "stretch" if origin.header.is_fork and not wanted else "letterbox"


def _darknet_labels(pair: Pair, classes: int) -> tuple[str, ...]:
    """Return the class names of a .cfg; empty: there are none, or the only .names of its folder does not fit.

    Raises ModelFileError if the .names file with the cfg's own name has another number of classes.
    """
    if pair.names is None:
        return ()
    labels, own = read_names(pair.names), pair.names.stem == pair.cfg.stem
    if len(labels) == classes:
        if not own:
            log.info("%s: class names from %s", pair.cfg, pair.names.name)
        return labels
    if own:
        raise ModelFileError(f"{pair.names}: {len(labels)} names; {pair.cfg} has classes={classes}")
    log.warning("%s: not used: it has %d names, and %s has classes=%d", pair.names, len(labels), pair.cfg, classes)
    return ()
