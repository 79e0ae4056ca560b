"""Tests of lookonce.training.options."""

from typing import get_args, get_type_hints

import pytest
from docstring_parser import parse_from_object

from lookonce.data.augment import Augmentation
from lookonce.training.options import AugmentOptions, TrainOptions
from lookonce.training.recipes import RECIPES, Settings


@pytest.mark.parametrize("options, settings", [(TrainOptions, Settings), (AugmentOptions, Augmentation)])
def test_options_are_the_settings_and_of_their_types(options, settings):
    given, kept = get_type_hints(options), get_type_hints(settings)
    kept |= {"augment": AugmentOptions} if "augment" in kept else {}
    assert list(given) == list(kept)
    for name in given:
        optional = set(get_args(given[name])) - {type(None)} if type(None) in get_args(kept[name]) else set()
        assert given[name] == kept[name] or optional or name == "freeze", name


def brackets(name):
    """What the help says of each recipe's value."""
    values = [getattr(recipe, name) for recipe in RECIPES.values()]
    words = [f"{v[0]}..{v[-1]}" if isinstance(v, tuple) and v else "none" if v in ((), None) else f"{v}"
             for v in values]  # fmt: skip
    return words[0] if len(set(words)) == 1 else ", ".join(f"{r}: {w}" for r, w in zip(RECIPES, words, strict=True))


def test_the_help_of_each_option_ends_with_its_value_in_each_recipe():
    for field in parse_from_object(TrainOptions).params:
        said = " ".join(field.description.split())
        assert said.endswith(f"[{'by recipe' if field.arg_name == 'augment' else brackets(field.arg_name)}]"), said
