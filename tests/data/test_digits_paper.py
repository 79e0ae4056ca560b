"""Mirrors src/lookonce/data/paper.py."""

from __future__ import annotations

import numpy as np

from lookonce.data import digits as paper


def test_pages_are_colours_of_the_size_asked_whatever_the_pattern():
    for seed in range(40):
        page = paper.draw_paper(96, np.random.default_rng(seed))
        assert page.shape == (96, 96, 3)
        assert page.dtype == np.float32
        assert 0 <= page.min() <= page.max() <= 1


def test_papers_are_light_and_never_two_alike():
    pages = [paper.draw_paper(64, np.random.default_rng(seed)) for seed in range(60)]
    bright = np.array([page.mean() for page in pages])
    assert (bright > 0.6).all()
    assert bright.std() > 0.03
    assert len({page.tobytes() for page in pages}) == 60


def test_ink_differs_in_brightness_and_leaves_bare_paper_as_it_was():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        page = paper.draw_paper(64, rng)
        ink = np.zeros((64, 64), np.float32)
        ink[20:40, 20:40] = 1
        before = page.copy()
        done = paper.draw_ink(page, ink, rng)
        assert np.array_equal(page, before), "the page that was given is not written to"
        assert np.array_equal(done[ink == 0], page[ink == 0])
        difference = (done[ink == 1].mean(0) - page.mean((0, 1))) @ paper.BRIGHTNESS
        assert abs(difference) > 0.85 * paper.CONTRAST
