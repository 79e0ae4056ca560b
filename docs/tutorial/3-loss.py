# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 3. The network and its loss
#
# A network is a list of layers. Its loss compares its raw map with the targets of [part 2](2-encoding.py), term by term.
# This part shows each term on one of your images, and which cells it comes from.

# %% tags=["parameters"]
DATA = ""  # your data set; empty: pages of handwritten digits
SIZE = 128  # side of the network's square input, px; 416 is usual for photos

# %%
import torch

from lookonce import Network, read_dataset
from lookonce.data.anchors import cluster_anchors
from lookonce.model.heads import loss
from lookonce.model.heads.region import region_loss, split
from lookonce.model.losses import LossOptions
from lookonce.report.explain_drawings import Subject, layers_drawing, loss_drawing, mask_drawing, terms_drawing
from lookonce.report.explain_encoding import first_example
from lookonce.report.explain_loss import BACKGROUND, background, loss_maps
from lookonce.report.explain_network import layer_table
from lookonce.tutorial import check, lines_of, own_or_digits, small_network

dataset = read_dataset(own_or_digits(DATA), "train")
anchors = cluster_anchors(dataset, 3, size=SIZE, stride=16).wh

# %% [markdown]
# ## The network as a table
#
# A convolution keeps the size of its map, a max pool halves both sides. After four pools one cell is 16 px wide. The last
# convolution has one filter for each number that a cell predicts:
#
# $$filters = A \cdot (5 + C)$$
#
# for $A$ anchors and $C$ classes: $t_x, t_y, t_w, t_h, t_o$ and the classes.

# %%
layers = small_network(len(dataset.labels), anchors)
layers_drawing(layer_table(layers, (SIZE, SIZE)))

# %% [markdown]
# `yolov2` has the same form with 23 convolutions, and a route that brings finer cells to the head. `lookonce explain
# DATA` shows its table.
#
# ## One forward pass, untrained

# %%
torch.manual_seed(0)
network = Network(layers).eval()
(head,) = network.heads
example = first_example(dataset, (SIZE, SIZE), "letterbox_antialias")
subject = Subject(example, head)
with torch.no_grad():
    (raw,) = network(example.batch)
print("raw map:", tuple(raw.shape), "= [images, A * (5 + C), rows, columns]")

# %% [markdown]
# ## Which predictor counts as what
#
# One predictor is one anchor at one cell. It has one of three roles:
#
# * **object**: it must find an object (part 2).
# * **background**: its box overlaps no object by more than an IoU of 0.6. Its objectness should be 0.
# * **not trained**: its box overlaps an object well, but another predictor is responsible. Its objectness is left alone.
#
# $$background = [\max_{truth} IoU(b, truth) \le 0.6] \wedge \neg object$$

# %%
print(lines_of(background, "overlap =", "apart", "return"))
maps = loss_maps(raw, head, example.objects, LossOptions("region"))
mask_drawing(subject, maps.roles)

# %% [markdown]
# **What you should see:** one tile for each anchor, mostly blue. A ● in each cell that must find an object.
#
# ## The terms
#
# Position and size, for objects only. Small objects count up to twice as much ($s = 2 - w h$, as parts of the image):
#
# $$L_{xy} = \tfrac{1}{2} \sum_{objects} s \left\| \sigma(t_{xy}) - \hat t_{xy} \right\|^2, \qquad
# L_{wh} = \tfrac{1}{2} \sum_{objects} s \left\| t_{wh} - \hat t_{wh} \right\|^2$$

# %%
print(lines_of(region_loss, "scale =", '"xy":', '"wh":'))

# %% [markdown]
# Objectness: where there is an object it should be the IoU of the predicted box with the label, elsewhere 0:
#
# $$L_{objectness} = \tfrac{5}{2} \sum_{objects} (\sigma(t_o) - IoU)^2, \qquad
# L_{background} = \tfrac{1}{2} \sum_{background} \sigma(t_o)^2$$

# %%
print(lines_of(region_loss, "truth =", '"objectness":', '"background":'))

# %% [markdown]
# Classes: cross-entropy of the softmax, for objects only: $L_{class} = -\sum_{objects} \ln p_{class}$

# %%
print(lines_of(region_loss, '"class":'))
terms_drawing(maps.terms)

# %% [markdown]
# ## Where the loss comes from

# %%
loss_drawing(subject, maps)

# %% [markdown]
# **What you should see:** `background` is spread over the whole image: an untrained network believes a little in each
# cell, and there are many cells. All other maps are dark but for the cells with objects.
#
# The maps are not a second loss: each sums to the term that the loss itself returns.

# %%
terms = loss((raw,), network.heads, example.objects, LossOptions("region"))
for name, values in maps.maps.items():
    print(f"{name:<12} loss {float(terms[name]):10.4f}   sum of the map {float(values.sum()):10.4f}")

# %% [markdown]
# ## Exercise 1
#
# How many filters must the last convolution have for your classes and **five** anchors?

# %% tags=["exercise"]
answer_1 = None

# %% tags=["check"]
check(answer_1, 5 * (5 + len(dataset.labels)), "four numbers for the box, one for objectness, one for each class")

# %% [markdown]
# ## Exercise 2
#
# Compute the background term yourself. `objectness` holds $t_o$ of each predictor, `is_background` says where it counts.

# %%
_, objectness, _ = split(raw, len(anchors))
objectness, is_background = objectness[0], maps.roles == BACKGROUND

# %% tags=["exercise"]
answer_2 = None

# %% tags=["check"]
given = None if answer_2 is None else float(answer_2)
check(given, maps.terms["background"], "half the sum of sigmoid(t_o) squared over the background: objectness.sigmoid()")

# %% [markdown]
# The other losses, v1's and keras-yolo2's, beside this one: [Which YOLO loss?](../which-yolo-loss.md). Next:
# [weights and training](4-training.py).
