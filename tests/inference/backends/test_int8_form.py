"""Tests of lookonce.inference.backends.int8_form; tests/deploy/test_int8.py runs a real one."""

from html import escape

import msgspec
import pytest

from lookonce.errors import ConfigError
from lookonce.files import file_digest
from lookonce.inference.backends.int8_form import Judgement, form_path, int8_form, judgement
from lookonce.inference.backends.settings import Settings


@pytest.fixture
def model(tmp_path):
    """A model file with an int8 form."""
    return with_form(tmp_path / "m.safetensors")


def with_form(file):
    file.write_bytes(b"weights")
    written(file, Judgement(file_digest([file]), 0.86, 0.8572, 87))
    return file


def written(file, judged):
    value = escape(msgspec.json.encode(judged).decode(), quote=True)
    form_path(file).write_text(f'<net><rt_info><lookonce_int8 value="{value}"/></rt_info></net>')


def test_it_is_taken_by_itself_where_the_processor_gains_from_it(model, processor_with_int8, tmp_path):
    assert int8_form(model, Settings()) == tmp_path / "m-int8.xml"
    for other in (Settings(precision="fp32"), Settings(precision="bf16"), Settings(device="gpu")):
        assert int8_form(model, other) is None


def test_elsewhere_it_is_taken_only_when_asked_for(model):
    assert int8_form(model, Settings()) is None
    assert int8_form(model, Settings(precision="int8")) == form_path(model)


def test_weights_of_darknet_run_as_they_were_trained_unless_asked_otherwise(tmp_path, processor_with_int8, monkeypatch):
    monkeypatch.setattr("lookonce.inference.backends.int8_form.source_files", lambda path: (path,))
    weights = with_form(tmp_path / "y.weights")
    assert int8_form(weights, Settings()) is None
    assert int8_form(weights, Settings(precision="int8")) == tmp_path / "y-int8.xml"


@pytest.mark.parametrize("change", ["another model", "no digest", "not there", "damaged", "hostile"])
def test_a_form_of_another_model_is_not_taken(change, model, processor_with_int8):
    match change:
        case "another model":
            model.write_bytes(b"trained on")
        case "no digest":
            written(model, Judgement(None, 0.5, 0.5, 87))
        case "not there":
            form_path(model).unlink()
        case "damaged":
            form_path(model).write_text("<net><rt_info><lookonce_int8 value='{'/></rt_info></net>")
        case "hostile":
            form_path(model).write_text("<!DOCTYPE n [<!ENTITY a 'b'>]><net>&a;</net>")
    assert int8_form(model, Settings()) is None
    found = "no m-int8.xml beside it" if change == "not there" else "m-int8.xml is of another model"
    with pytest.raises(ConfigError, match=rf"precision: int8: .*m.safetensors: {found}; make it with lookonce export"):
        int8_form(model, Settings(precision="int8"))


def test_the_cost_is_a_sentence(model):
    assert str(judgement(form_path(model))) == "mAP 0.0028 lower on 87 validation images"
    assert str(Judgement(None, 0.5, 0.501, 20)) == "mAP 0.0010 higher on 20 validation images"
