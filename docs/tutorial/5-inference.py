# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 5. Inference: from an image to boxes
#
# The raw map of a trained network holds hundreds of boxes. This part follows one of your images until a few are left.

# %% tags=["parameters"]
DATA = ""  # your data set; empty: pages of handwritten digits
RUN = ""  # a run of yours; empty: train a small network here, which takes half a minute
SIZE = 128  # for the small network: side of its input, px
EPOCHS = 8  # for the small network

# %%
import numpy as np

from lookonce import Detector, draw, read_dataset
from lookonce.model.boxes import iou
from lookonce.model.heads.region import cell_boxes, decode
from lookonce.model.postprocess import nms_per_class, postprocess
from lookonce.model.resize import boxes_to_image
from lookonce.report.explain_boxes import candidates, objectness_map, predictions_of
from lookonce.report.explain_drawings import Subject, boxes_drawing, heat_maps
from lookonce.report.explain_encoding import example, most_instructive
from lookonce.tutorial import check, lines_of, own_or_digits, small_run

data = own_or_digits(DATA)
run = RUN or small_run(data, SIZE, EPOCHS, len(read_dataset(data).labels))
dataset = read_dataset(data, "val")  # images that training did not use
detector = Detector(run, "torch", precision="fp32")
detector

# %% [markdown]
# ## Resize
#
# The image is resized exactly as in training: the model file says how. A letterbox at one end and a stretch at the other
# shifts every box.

# %%
n = most_instructive(dataset)[0]
shown = example(dataset, n, detector.about.input_size, detector.about.resize)
subject = Subject(shown, detector.about.heads[0])
print(
    f"{shown.name}: {shown.size[0]} x {shown.size[1]} px -> {shown.input_size[0]} x {shown.input_size[1]} px, "
    f"{detector.about.resize}"
)

# %% [markdown]
# ## The raw map
#
# $\sigma(t_o)$ is the objectness: how much each predictor believes that it has found something.

# %%
raws, predictions = predictions_of(detector, shown)
objectness = objectness_map(raws[0], detector.about.heads[0])
heat_maps(subject, {f"anchor {a}": values for a, values in enumerate(objectness, 1)})

# %% [markdown]
# **What you should see:** bright cells at the centres of objects, each mostly in the tile of the anchor whose shape fits.
#
# ## Decode
#
# $$b_x = \sigma(t_x) + col, \quad b_w = p_w e^{t_w}, \quad score_{class} = \sigma(t_o) \cdot softmax(t)_{class}$$

# %%
print(lines_of(cell_boxes, "xy =", "wh ="))
print(lines_of(decode, "class_prob = formulas"))
found = candidates(predictions)
print(f"{found.predictors} boxes, of which {len(found.scores)} have a score above 0.01")

# %% [markdown]
# ## Threshold
#
# Boxes with a score at or below the threshold are dropped. What is left still shows most objects several times.

# %%
THRESHOLD, IOU_LIMIT = 0.3, 0.45
above = [k for k, score in enumerate(found.scores) if score > THRESHOLD]
boxes_drawing(subject, found, above, f"before suppression: {len(above)} boxes")

# %% [markdown]
# ## Non-maximum suppression
#
# Take the box of highest score. Drop all others of its class whose IoU with it is above the limit. Repeat with the next.

# %%
print(lines_of(nms_per_class, "order =", "clash ="))
kept = found.kept(THRESHOLD, IOU_LIMIT)
boxes_drawing(subject, found, kept, f"after suppression: {len(kept)} boxes", tags=True)

# %% [markdown]
# **What you should see:** one box for each object.
#
# ## Back to the image
#
# Boxes are still in pixels of the input. The resize is undone, and they are clipped to the image.

# %%
print(lines_of(postprocess, "corners =", "_in_image(found"))
print(boxes_to_image(found.boxes[kept], shown.size, shown.input_size, detector.about.resize).round(1)[:3])
record = dataset.records[n]
draw(record.path, detector(record.path, threshold=THRESHOLD))

# %% [markdown]
# ## Exercise 1
#
# Write the IoU of two boxes `(x1, y1, x2, y2)`.


# %% tags=["exercise"]
def my_iou(a, b):
    return None


# %% tags=["check"]
pairs = [((0, 0, 10, 10), (0, 0, 10, 10)), ((0, 0, 10, 10), (5, 5, 15, 15)), ((0, 0, 4, 4), (5, 5, 9, 9))]
mine = [my_iou(a, b) for a, b in pairs]
check(
    None if None in mine else mine,
    [float(iou(np.array(a, float), np.array(b, float))) for a, b in pairs],
    "the overlap is never negative: two boxes that do not touch have an IoU of 0",
)

# %% [markdown]
# ## Exercise 2
#
# How many boxes are left at a threshold of 0.1 and an IoU limit of 0.3? (`found.kept` tells; `lookonce explain DATA RUN`
# has sliders for both.)

# %% tags=["exercise"]
answer_2 = None

# %% tags=["check"]
check(answer_2, len(found.kept(0.1, 0.3)), "len(found.kept(threshold, limit))")

# %% [markdown]
# On the command line: `lookonce detect RUN photos/ --threshold .3`. Next: [how good is it?](6-evaluation.py)
