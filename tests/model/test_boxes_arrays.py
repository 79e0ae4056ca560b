"""Mirrors src/lookonce/arrays.py: numpy gives what torch gives."""

import numpy as np
import torch

from lookonce.model import boxes as arrays

VALUES = np.array([[-1e4, -90, -20, -1.5], [0, 3, 60, 1e4]], np.float32)


def test_the_library_is_that_of_the_values():
    assert arrays.library(VALUES) is np
    assert arrays.library(torch.from_numpy(VALUES)) is torch


def test_like_keeps_kind_and_dtype():
    assert arrays.like((1, 2), VALUES.astype(np.float64)).dtype == np.float64
    assert torch.equal(arrays.like((1, 2), torch.zeros(1)), torch.tensor([1.0, 2.0]))


def test_sigmoid_and_softmax_are_torchs_even_far_out():
    tensor = torch.from_numpy(VALUES)
    for name in ("sigmoid", "softmax"):
        found = getattr(arrays, name)(VALUES)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, getattr(arrays, name)(tensor), rtol=1e-6, atol=1e-30)
    assert torch.equal(arrays.softmax(tensor), torch.softmax(tensor, -1))
