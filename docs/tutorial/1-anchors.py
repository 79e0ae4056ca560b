# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 1. Anchors: cluster the shapes of your boxes
#
# A YOLOv2 predictor does not invent a box from nothing. It starts from an **anchor**, a box shape, and learns how much
# wider, narrower, higher or lower the object is. This part finds anchors for your boxes.
#
# The notebooks run on your own data: set `DATA` to a folder of labelled images (Pascal VOC, COCO or YOLO text). Without
# one they make pages of handwritten digits, offline.

# %% tags=["parameters"]
DATA = ""  # your data set; empty: pages of handwritten digits
SIZE = 128  # side of the network's square input, px; 416 is usual for photos

# %%
import numpy as np

from lookonce import read_dataset
from lookonce.data.anchors import shapes_in_cells
from lookonce.model.anchors import cluster, measure
from lookonce.model.boxes import shape_iou
from lookonce.report.explain_drawings import Drawing
from lookonce.report.figures import cluster_cloud, fit_curve
from lookonce.tutorial import check, lines_of, own_or_digits

data = own_or_digits(DATA)
dataset = read_dataset(data, "train")
dataset

# %% [markdown]
# ## Shapes in cells
#
# The network divides its input into cells of `STRIDE` pixels. A box of the image is scaled to the input, and its width
# and height are measured in cells:
#
# $$w = \frac{w_{image} \cdot scale}{stride}, \qquad h = \frac{h_{image} \cdot scale}{stride}$$

# %%
STRIDE = 16
print(lines_of(shapes_in_cells, "scale =", "return"))
wh = shapes_in_cells(dataset, SIZE, stride=STRIDE)
wh[:3].round(2)

# %% [markdown]
# ## How far are two shapes apart?
#
# Put both boxes on one centre. Their distance is $d = 1 - IoU$ with
#
# $$IoU(a, b) = \frac{\min(w_a, w_b) \min(h_a, h_b)}{w_a h_a + w_b h_b - \min(w_a, w_b) \min(h_a, h_b)}$$
#
# Why not the difference of widths and heights? It would make large boxes count more than small ones. IoU asks which
# *part* of the box is right.

# %%
print(lines_of(shape_iou, "inter", "return"))
shape_iou(wh[:3, None], wh[:3]).round(2)  # each of three boxes with each

# %% [markdown]
# ## k-means with this distance
#
# Assign each box to the anchor of highest IoU, move each anchor to the mean shape of its boxes, and repeat
# (YOLO9000, section 2, "Dimension Clusters").

# %%
found = cluster(wh, k=3)
print(found)
Drawing(cluster_cloud(wh, found))

# %% [markdown]
# **What you should see:** clouds of points, one colour for each anchor, with the anchor's number in the middle of its
# cloud. Anchors are ordered by area. If a cloud has two dense spots, one more anchor would help.
#
# ## How many anchors?
#
# More anchors fit better, but the network then predicts more boxes. Choose the number where the curve becomes flat.

# %%
curve = [cluster(wh, k) for k in range(1, 8)]
Drawing(fit_curve(curve, 3))

# %% [markdown]
# **What you should see:** the mean best IoU rises steeply up to a few anchors and slowly after that.
#
# ## One anchor, three units
#
# Cells are what `cfg` files of YOLOv2 hold. Pixels are those of the input. Fractions are of the input's side. A tool
# that reads one unit as another finds nothing.

# %%
for number, (w, h) in enumerate(found.wh, 1):
    px, part = (w * STRIDE, h * STRIDE), (w * STRIDE / SIZE, h * STRIDE / SIZE)
    print(f"anchor {number}: {w:.2f} x {h:.2f} cells = {px[0]:.0f} x {px[1]:.0f} px = {part[0]:.2f} x {part[1]:.2f}")

# %% [markdown]
# ## Exercise 1
#
# Compute the IoU of the first box, `wh[0]`, with the first anchor, `found.wh[0]`, by the formula above.

# %% tags=["exercise"]
answer_1 = None

# %% tags=["check"]
check(answer_1, shape_iou(wh[:1], np.array(found.wh[:1]))[0], "take the smaller width and the smaller height first")

# %% [markdown]
# ## Exercise 2
#
# Make anchor 1 twice as wide and twice as high, and keep the others. What is the mean best IoU now? (`measure` tells
# how well any anchors fit.) Is it better or worse than before?

# %% tags=["exercise"]
answer_2 = None

# %% tags=["check"]
changed = np.array(found.wh) * np.array([[2, 2], *[[1, 1]] * (len(found.wh) - 1)])
check(answer_2, measure(wh, changed).mean_iou, "measure(wh, np.array([...])).mean_iou with the changed anchors")

# %% [markdown]
# On the command line: `lookonce anchors DATA --k 3`. Next: [what the network is trained to predict](2-encoding.py).
