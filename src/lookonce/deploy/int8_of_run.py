"""The end of a training: the int8 form of its model, where this machine gains from it.

openvino and nncf are imported only then: a training must not need them.
"""

from __future__ import annotations

import logging
import math
import time

from lookonce.deploy.export import with_network
from lookonce.errors import UserError
from lookonce.files import file_digest
from lookonce.inference.backends.int8_form import KEY, form_path, judgement
from lookonce.model.model_file import load_model
from lookonce.training.config import MODEL
from lookonce.training.duration import int8_obstacle
from lookonce.training.progress import duration
from lookonce.training.run import Run
from lookonce.training.signals import Stopped

log = logging.getLogger("lookonce")


def add_int8(run: Run) -> None:
    """End a training with the int8 form of its model, where this machine gains from it.

    One line says that it begins, another what became of it. The run is complete, and stays so whatever happens here.
    """
    form = form_path(run.folder / MODEL)
    for file in (form, form.with_suffix(".bin")):
        file.unlink(missing_ok=True)  # of an earlier model
    val, began = run.val_set, time.monotonic()
    obstacle = int8_obstacle(run.config, 0 if val is None else len(val))
    if obstacle is not None or val is None:
        if obstacle:
            log.info("int8: %s", obstacle)
        return
    log.info("int8: the run is complete; making an int8 form of its model, which this processor runs faster")
    until = run.began + 60 * run.settings.minutes if run.settings.minutes else math.inf
    try:
        from lookonce.deploy.int8 import quantise_quickly
        from lookonce.inference.backends.openvino import openvino_model, saved
        from lookonce.model.onnx_graph import detector_model

        model = load_model(run.folder / MODEL)
        made = quantise_quickly(model, run.train_set, val, until)
        judged = made.judgement(file_digest([run.folder / MODEL]))
        whole = with_network(openvino_model(detector_model(model)), made.network)
        whole.set_rt_info(judged, KEY)
        with saved(whole, form):
            pass
    except Stopped:
        log.info("int8: stopped; the run is complete without it")
    except UserError as error:
        log.info("%s; the model stays as it is", error)
    except Exception as error:  # of another package, after a training that is complete
        log.warning("int8: not made: %s: %s", type(error).__name__, " ".join(str(error).split())[:200])
    else:
        log.info("int8: %s, for detect and serve on this processor (--precision bf16 or fp32: without it); %s; %s",
                 judgement(form), form, duration(time.monotonic() - began))  # fmt: skip
