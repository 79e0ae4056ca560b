"""Which classes of two lists are the same: by name, whatever case, number (dog, dogs) or data set it comes from."""

from __future__ import annotations

from collections.abc import Sequence

SYNONYMS = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "tvmonitor": "tv",
    "sofa": "couch",
    "people": "person",
    "pedestrian": "person",
    "men": "man",
    "women": "woman",
    "children": "child",
    "mice": "mouse",
    "knives": "knife",
}
"""Names of one class in VOC and COCO, and plurals that are not regular. All are without spaces."""


def same_classes(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs (index in ours, index in theirs) of classes with the same meaning; one of theirs may repeat."""
    known = {form: index for index in reversed(range(len(theirs))) for form in forms(theirs[index])}
    found = [(index, next((known[form] for form in forms(name) if form in known), None))
             for index, name in enumerate(ours)]  # fmt: skip
    return [(index, other) for index, other in found if other is not None]


def forms(name: str) -> tuple[str, ...]:
    """Return a name without case, spaces and signs, with known synonyms replaced, then its plurals."""
    plain = "".join(letter for letter in name.casefold() if letter.isalnum())
    plain = SYNONYMS.get(plain, plain)
    return (plain, plain + "s", plain + "es", *([plain[:-1] + "ies"] if plain.endswith("y") else [])) if plain else ()
