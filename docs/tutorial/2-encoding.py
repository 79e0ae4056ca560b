# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 2. Encoding: from boxes to targets, and from the raw map to boxes
#
# The network returns numbers on a grid. This part shows which cell and which anchor must find each of your objects, and
# which numbers it must predict. Then it goes the way back.

# %% tags=["parameters"]
DATA = ""  # your data set; empty: pages of handwritten digits
SIZE = 128  # side of the network's square input, px; 416 is usual for photos

# %%
import torch

from lookonce import read_dataset
from lookonce.data.anchors import cluster_anchors
from lookonce.model.heads import encode
from lookonce.model.heads.region import assign, cell_boxes, decode
from lookonce.model.heads.region import encode as encode_boxes
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.losses import Objects
from lookonce.report.explain_boxes import LOWEST, candidates
from lookonce.report.explain_drawings import Subject, boxes_drawing, grid_drawing, targets_table
from lookonce.report.explain_encoding import Example, first_example
from lookonce.tutorial import check, lines_of, own_or_digits

STRIDE, MODE = 16, "letterbox_antialias"
dataset = read_dataset(own_or_digits(DATA), "train")
anchors = cluster_anchors(dataset, 3, size=SIZE, stride=STRIDE).wh
head = PlacedHead(Region(anchors, len(dataset.labels)), STRIDE)

# %% [markdown]
# ## The input
#
# The image is scaled into the square input. A letterbox keeps its aspect ratio and fills the rest with grey; a stretch
# does not. Boxes move along. Detection must do the same as training, or every box is shifted.

# %%
example = first_example(dataset, (SIZE, SIZE), MODE)
print(f"{example.name}: {example.size[0]} x {example.size[1]} px become {SIZE} x {SIZE}, values 0 to 1")
example.batch.shape

# %% [markdown]
# ## The grid and the responsible cells
#
# The cell that contains an object's centre must find the object, with the anchor of highest shape IoU:
#
# $$col = \lfloor c_x / stride \rfloor, \qquad row = \lfloor c_y / stride \rfloor$$
#
# $$anchor = \mathrm{argmax}_a \; IoU((w, h), (p_w^a, p_h^a))$$

# %%
print(lines_of(encode_boxes, "col =", "row =", "argmax"))
subject = Subject(example, head)
grid_drawing(subject)

# %% [markdown]
# **What you should see:** your image under its grid. Each object has a filled cell under its centre, a solid frame (the
# label) and a dashed frame (its anchor). Where both frames are almost equal, the network has little to learn.
#
# ## The targets
#
# Four numbers describe the box relative to its cell and its anchor:
#
# $$t_{xy} = c_{xy} - (col, row) \in [0, 1), \qquad t_{wh} = \ln \frac{(w, h)}{(p_w, p_h)}$$

# %%
print(lines_of(encode_boxes, "txy, wh ="))
print(lines_of(assign, "twh ="))
targets_table(subject)

# %% [markdown]
# ## The way back
#
# The network's raw numbers become a box by
#
# $$b_x = \sigma(t_x) + col, \quad b_y = \sigma(t_y) + row, \quad b_w = p_w e^{t_w}, \quad b_h = p_h e^{t_h}$$
#
# and the score is $\sigma(t_o)$ times the class's softmax. We write the targets into an empty map, as a perfect network
# would, and decode it.

# %%
print(lines_of(cell_boxes, "xy =", "wh ="))
(targets,) = encode(example.objects, [head], example.input_size)
rows = cols = SIZE // STRIDE
raw = torch.zeros(1, head.layer.channels, rows, cols)
predictors = raw.view(1, len(anchors), -1, rows, cols)  # [1, A, 5 + C, H, W]
predictors[:, :, 4] = -10  # objectness: nothing anywhere ...
at = targets.image, targets.anchor, slice(None), targets.row, targets.col
perfect = torch.zeros(len(targets.label), head.layer.classes + 5)
perfect[:, :2] = torch.logit(targets.txy.clamp(1e-4, 1 - 1e-4))  # sigmoid undone
perfect[:, 2:4] = targets.twh
perfect[:, 4] = 10  # ... but here
perfect[torch.arange(len(perfect)), 5 + targets.label] = 20
predictors[at] = perfect

found = candidates(decode(raw, head).numpy())
boxes_drawing(subject, found, caption=f"{len(found.scores)} boxes above a score of {LOWEST}", tags=True)

# %% [markdown]
# **What you should see:** your labels again. Only objects that lost their cell and anchor to another one are missing.
#
# ## Exercise 1: which object is lost?
#
# Below, object 1 gets a twin on the same centre, twice as wide and half as high. The twin is object 2. With these
# anchors both choose the same predictor, and a predictor can learn one object only. Which one is lost, 1 or 2?

# %%
x1, y1, x2, y2 = example.objects.boxes[0].tolist()
cx, cy, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
twins = torch.tensor([[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], [cx - w, cy - h / 4, cx + w, cy + h / 4]])
label = example.objects.labels[:1].repeat(2)
objects = Objects(twins, label, torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.bool))
pair = Example(example.name, example.labels, example.size, example.pixels, objects)
two_anchors = ((w / STRIDE, h / STRIDE), (4 * w / STRIDE, 4 * h / STRIDE))
before = Subject(pair, PlacedHead(Region(two_anchors, len(dataset.labels)), STRIDE))
grid_drawing(before)

# %% tags=["exercise"]
answer_1 = None

# %% tags=["check"]
lost = [target.number for target in before.targets if target.note]
check(answer_1, lost[0], "of several objects on one anchor and cell, Darknet keeps the last")

# %% [markdown]
# ## Exercise 2: change one anchor
#
# Replace one of `two_anchors` so that none of the twins is lost. Give both anchors, (width, height) in cells.

# %% tags=["exercise"]
answer_2 = None

# %% tags=["check"]
after = Subject(pair, PlacedHead(Region(answer_2 or two_anchors, len(dataset.labels)), STRIDE))
still_lost = [target.number for target in after.targets if target.note]
check(answer_2 and len(still_lost), 0, f"object {still_lost} is lost; an anchor as wide and low as the twin takes it")

# %% [markdown]
# On the command line: `lookonce check DATA --report page.html` counts the anchor collisions of the whole data set, and
# `lookonce explain DATA` draws this page. Next: [the network and its loss](3-loss.py).
