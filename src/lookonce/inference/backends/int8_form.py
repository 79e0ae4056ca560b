"""The int8 form of a model: NAME-int8.xml and .bin beside NAME.safetensors, judged on validation images.

It holds the digest of the model file that it was made from, so that it is not taken for another model, and what int8
costs in mAP. deploy/int8.py makes it; OpenVINO runs it. No openvino here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError

import msgspec
from defusedxml import DefusedXmlException, ElementTree

from lookonce.errors import ConfigError
from lookonce.files import file_digest
from lookonce.inference.backends.processor import has_int8
from lookonce.inference.backends.settings import Settings
from lookonce.model.darknet.files import source_files

KEY = "lookonce_int8"
"""Of the judgement, in OpenVINO's rt_info."""


@dataclass(frozen=True)
class Judgement:
    """What int8 costs, and the model that it was made from."""

    digest: str | None
    """Of the model's files; None: it was made from a model in memory."""
    before: float
    """mAP in fp32 on the validation images, 0..1."""
    after: float
    images: int

    def __str__(self) -> str:
        change = self.after - self.before
        return f"mAP {abs(change):.4f} {'higher' if change > 0 else 'lower'} on {self.images} validation images"


def form_path(model: Path) -> Path:
    """Return where the int8 form of a model file is."""
    return model.with_name(f"{model.stem}-int8.xml")


def judgement(form: Path) -> Judgement | None:
    """Return what an OpenVINO file says of its int8; None: nothing that can be read."""
    try:
        root = ElementTree.parse(form).getroot()
        node = None if root is None else root.find(f"rt_info/{KEY}")
        return None if node is None else msgspec.json.decode(node.get("value", ""), type=Judgement)
    except (OSError, ParseError, DefusedXmlException, msgspec.MsgspecError):
        return None


def int8_form(model: Path, settings: Settings) -> Path | None:
    """Return the int8 form that settings ask for: of themselves on a CPU with VNNI or AMX, else by precision int8.

    It is taken of itself for model files of lookonce only: Darknet's weights run as they were trained.
    Raises ConfigError if it is asked for and there is none of this model.
    """
    if settings.precision != "int8":
        wanted = settings.precision == "auto" and settings.device in (None, "cpu")
        if not (wanted and model.suffix == ".safetensors" and has_int8()):
            return None
    form = form_path(model)
    judged = judgement(form) if form.is_file() else None
    if judged is not None and judged.digest == file_digest(source_files(model)):
        return form
    if settings.precision == "int8":
        found = f"{form.name} is of another model" if form.is_file() else f"no {form.name} beside it"
        raise ConfigError(f"precision: int8: {model}: {found}; make it with lookonce export {model} --format openvino "
                          f"--int8 --data DATA --out {form.with_suffix('')}")  # fmt: skip
    return None
