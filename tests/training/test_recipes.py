"""Tests of lookonce.training.recipes."""

from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
from docstring_parser import parse_from_object

from lookonce.data.augmentation import Augmentation
from lookonce.errors import ConfigError
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.model.layers import Yolo
from lookonce.model.zoo import detector, own_anchors
from lookonce.training.recipes import (
    RECIPES,
    AugmentOptions,
    Settings,
    TrainOptions,
    for_gpu,
    for_minutes,
    learning_rate_factor,
    settings,
)


def test_the_paper_recipe_holds_the_numbers_of_the_paper():
    paper = RECIPES["paper"]
    assert (paper.learning_rate, paper.momentum, paper.weight_decay, paper.epochs) == (1e-3, 0.9, 5e-4, 160)
    assert paper.multi_scale == (320, 352, 384, 416, 448, 480, 512, 544, 576, 608)
    assert [m * paper.epochs for m in paper.milestones] == [60, 90]
    assert (paper.prior_loss_images, paper.burn_in, paper.loss) == (12_800, 1000, "region")


def test_options_replace_values_of_the_recipe():
    found = settings("paper", epochs=3, size=None)
    assert (found.epochs, found.size, found.network) == (3, 416, "yolov2")


def test_networks_with_yolo_layers_match_more_anchors(tmp_path):
    """Oracle: iou_thresh of yolov4.cfg, as the zoo has it."""
    [own] = {layer.iou_thresh for layer in detector("yolov4", 1, own_anchors("yolov4")) if isinstance(layer, Yolo)}
    (tmp_path / "own.cfg").write_text(write_cfg(Cfg(detector("yolov3_tiny", 2, own_anchors("yolov3_tiny")))))
    for network in ("YOLOv4-tiny", "yolov3_tiny", str(tmp_path / "own.cfg")):
        assert settings("quick", network=network).match_iou == own
        assert settings("quick", network=network, match_iou=0.5).match_iou == 0.5
        assert settings("paper", network=network).match_iou == 1
    for network in ("yolov2", "yolov1_tiny"):
        assert settings("quick", network=network).match_iou == 0.5


@pytest.mark.parametrize("wrong, message", [
    ({"epochs": 0}, "epochs: 0; expected at least 1"),
    ({"size": 400}, "multiples of 32"),
    ({"size": 32_000}, "multiples of 32, at most 8192"),
    ({"epochs": "5"}, "epochs: '5'; expected a whole number or nothing"),
    ({"steps": 0}, "steps: 0; expected at least 1"),
    ({"multi_scale": (320, 100)}, "multiples of 32"),
    ({"batch_size": 0}, "batch-size: 0"),
    ({"learning_rate": 0.0}, "learning-rate: 0.0; expected above 0"),
    ({"learning_rate": float("nan")}, "learning-rate"),
    ({"ema": 1.0}, "ema: 1.0"),
    ({"patience": -1}, "patience: -1"),
    ({"milestones": (2.0,)}, "milestones"),
    ({"freeze": "half"}, "freeze: 'half'; expected one of none, features"),
    ({"optimizer": "lion"}, "optimizer: 'lion'; expected one of"),
    ({"network": "yolov9"}, "network: 'yolov9'"),
    ({"epoch": 3}, "setting 'epoch'; did you mean epochs"),
    ({"flavour": 3}, "setting 'flavour'"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        settings("quick", **wrong)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_mapping_changes_those_augmentations_that_it_names(recipe):
    own = RECIPES[recipe].augment
    assert settings(recipe, augment={"flip": 0.25}).augment == replace(own, flip=0.25)
    assert settings(recipe, augment=Augmentation(flip=0.25)).augment == Augmentation(flip=0.25)
    with pytest.raises(ConfigError, match=r"augment\.flip: 2"):
        settings(recipe, augment={"flip": 2})
    with pytest.raises(ConfigError, match=r"setting 'augment\.flop'; did you mean augment\.flip\?"):
        settings(recipe, augment={"flop": 0})


def test_lists_from_python_are_taken_as_tuples():
    found = settings("quick", multi_scale=[64, 96], augment={"zoom": [0.5, 2.0]})
    assert (found.multi_scale, found.augment.zoom) == ((64, 96), (0.5, 2.0))


def test_an_unknown_recipe_names_the_known():
    with pytest.raises(ConfigError, match="recipe: 'slow'; expected one of quick, finetune, paper, blog"):
        settings("slow")


@pytest.mark.parametrize(
    "images, batch, epochs",
    [(205, 4, 115), (60, 4, 300), (2050, 4, 20), (3, 1, 300), (20, 2, 300), (100_000, 4, 20), (400, 4, 60)],
)
def test_a_run_fits_its_set(images, batch, epochs):
    found = Settings().fitted(images, 0.5)
    assert (found.batch_size, found.epochs) == (batch, epochs)


@pytest.mark.parametrize("recipe, side, mosaic", [("quick", 0.2, 1.0), ("quick", 0.3, 0.0), ("paper", 0.2, 0.0)])
def test_mosaics_are_shown_where_objects_are_small(recipe, side, mosaic):
    assert settings(recipe).fitted(100, side).augment.mosaic == mosaic
    assert settings(recipe, augment={"mosaic": 0.5}).fitted(100, side).augment.mosaic == 0.5


@pytest.mark.parametrize("given, epochs, steps", [
    ({"steps": 30}, 2, 30),  # 26 steps an epoch
    ({"steps": 26}, 1, 26),
    ({"steps": 1}, 1, 1),
    ({"steps": 30_000}, 1154, 30_000),
    ({"steps": 30, "epochs": 1}, 1, 30),
    ({"steps": 30, "epochs": 9}, 2, 30),
    ({"epochs": 9}, 9, None),
])  # fmt: skip
def test_steps_and_epochs_that_are_given_are_obeyed(given, epochs, steps):
    found = settings("quick", **given).fitted(104, 0.5)
    assert (found.epochs, found.steps) == (epochs, steps)
    assert found.fitted(104, 0.5, exact_batch=True) == found  # as a resumed run reads it


def test_steps_of_the_user_replace_the_epochs_of_the_recipe():
    assert settings("paper", steps=1_000_000).fitted(6400, 0.5, exact_batch=True).epochs == 10_000


@pytest.mark.parametrize(
    "minutes, images, variants",
    [(1, 60, 3), (1, 205, 3), (1, 300, 2), (2, 700, 2), (1, 701, 0), (2.5, 60, 0), (None, 60, 0)],
)
def test_a_fine_tuning_for_a_minute_computes_early_layers_once_for_as_many_variants_as_fit(minutes, images, variants):
    found = for_minutes(settings("finetune", minutes=minutes), images)
    assert found.variants == variants
    assert (found.freeze, found.features) == (("all_but_last_stage", "bf16") if variants else ("none", "none"))
    assert found.augment == RECIPES["finetune"].augment


@pytest.mark.parametrize("images, batch, rate", [(2000, 16, 8e-3), (64, 8, 4e-3 * 2**0.5), (20, 4, 4e-3)])
def test_a_gpu_gets_larger_batches_and_a_higher_learning_rate(images, batch, rate):
    found = for_gpu(Settings(), images)
    assert (found.batch_size, found.learning_rate) == (batch, pytest.approx(rate))


def test_an_exact_batch_size_and_given_epochs_stay():
    found = Settings(epochs=7, batch_size=16).fitted(20, 0.5, exact_batch=True)
    assert (found.batch_size, found.epochs) == (16, 7)


def curve(steps, **given):
    how = Settings(**given)
    return [learning_rate_factor(step, steps, how) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["constant", "steps", "cosine", "one_cycle"])
def test_every_schedule_climbs_to_one_and_stays_above_nothing(schedule):
    for steps in (1, 7, 1000):
        found = curve(steps, schedule=schedule, burn_in=100)
        assert 0 < min(found) <= max(found) <= 1 + 1e-9
    assert max(found) == pytest.approx(1)
    assert found[0] < 0.02


def test_burn_in_is_darknets_fourth_power():
    found = curve(2000, schedule="constant", burn_in=100)
    assert found[49] == pytest.approx(0.5**4)
    assert found[100:] == [1.0] * 1900


def test_steps_fall_tenfold_at_their_milestones():
    found = curve(160, schedule="steps", burn_in=0, milestones=(0.375, 0.5625))
    assert [found[59], found[60], found[89], found[90]] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_one_cycle_ends_near_nothing():
    found = curve(500, schedule="one_cycle")
    assert found.index(max(found)) == 49
    assert found[-1] == pytest.approx(0.01)


def test_a_burn_in_longer_than_the_run_takes_a_tenth_of_it():
    assert curve(100, schedule="constant", burn_in=1000)[10] == 1.0


@pytest.mark.parametrize("options, record", [(TrainOptions, Settings), (AugmentOptions, Augmentation)])
def test_options_are_the_settings_and_of_their_types(options, record):
    given, kept = get_type_hints(options), get_type_hints(record)
    kept |= {"augment": AugmentOptions} if "augment" in kept else {}
    assert list(given) == list(kept)
    for name in given:
        optional = set(get_args(given[name])) - {type(None)} if type(None) in get_args(kept[name]) else set()
        assert given[name] == kept[name] or optional or name in ("freeze", "network"), name


def brackets(name):
    """What the help says of each recipe's value."""
    values = [getattr(recipe, name) for recipe in RECIPES.values()]
    words = [f"{v[0]}..{v[-1]}" if isinstance(v, tuple) and v else "none" if v in ((), None)
             else f"{v.count(',')} pairs" if f"{v}".endswith("cells") else f"{v}" for v in values]  # fmt: skip
    return words[0] if len(set(words)) == 1 else ", ".join(f"{r}: {w}" for r, w in zip(RECIPES, words, strict=True))


def test_the_help_of_each_option_ends_with_its_value_in_each_recipe():
    for field in parse_from_object(TrainOptions).params:
        said = " ".join(field.description.split())
        assert said.endswith(f"[{'by recipe' if field.arg_name == 'augment' else brackets(field.arg_name)}]"), said
