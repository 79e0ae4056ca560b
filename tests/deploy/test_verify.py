"""Tests of lookonce.deploy.verify: a file that gives other numbers must not pass."""

import numpy as np
import pytest

from lookonce.deploy.verify import HALF, VerificationError, openvino_runner, verify
from lookonce.errors import UserError
from lookonce.model.model_file import load_model
from lookonce.model.onnx_graph import detector_model


@pytest.fixture(scope="module")
def model(run):
    return load_model(run)


@pytest.fixture(scope="module")
def honest(model, tmp_path_factory):
    import onnx

    path = tmp_path_factory.mktemp("verified") / "m.onnx"
    onnx.save_model(detector_model(model), path)
    return openvino_runner(path)[0]


def test_the_file_itself_passes_on_images_and_on_drawn_ones(model, honest, squares):
    found = verify(model, honest, "OpenVINO", squares / "JPEGImages")
    assert found.holds
    assert 0 < found.rows == found.same_rows
    assert "squares" in str(found)
    assert "8 synthetic images" in str(verify(model, honest, "OpenVINO", None))


def shifted(name, by):
    return lambda found: {**found, name: found[name] + np.float32(by)}


@pytest.mark.parametrize("change", [
    shifted("boxes", 0.06), shifted("scores", 2e-4), shifted("scores", np.nan), shifted("boxes", np.nan),
    shifted("detections", 0.01), lambda found: {**found, "detections": found["detections"][:-1]},
], ids=["boxes", "scores", "nan scores", "nan boxes", "rows", "a row less"])  # fmt: skip
def test_a_file_with_other_numbers_fails(model, honest, squares, change):
    with pytest.raises(VerificationError, match="was not kept"):
        verify(model, lambda images: change(honest(images)), "OpenVINO", squares)


def test_half_precision_is_allowed_more(model, honest, squares):
    def moved(images):
        found = honest(images)
        return {"boxes": found["boxes"] + 0.3, "scores": found["scores"] + np.float32(0.002)}

    with pytest.raises(VerificationError):
        verify(model, moved, "OpenVINO", squares)
    assert verify(model, moved, "OpenVINO", squares, HALF).holds


def test_a_folder_without_images_is_told(model, honest, tmp_path):
    with pytest.raises(UserError, match="no images there"):
        verify(model, honest, "OpenVINO", tmp_path)
