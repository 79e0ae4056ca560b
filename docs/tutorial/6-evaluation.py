# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 6. Evaluation: how good is it?
#
# mAP is one number. This part takes it apart: which detections are right, how precision and recall follow, and what the
# area under their curve is.

# %% tags=["parameters"]
DATA = ""  # your data set; empty: pages of handwritten digits
RUN = ""  # a run of yours; empty: train a small network here, which takes half a minute
SIZE = 128  # for the small network: side of its input, px
EPOCHS = 8  # for the small network

# %%
import numpy as np

from lookonce import Detector, draw, evaluate, read_dataset
from lookonce.evaluation.average_precision import average_precision, pr_points
from lookonce.evaluation.evaluate import SCORE_THRESHOLD
from lookonce.evaluation.matching import match
from lookonce.report.explain_drawings import Drawing
from lookonce.report.explain_encoding import most_instructive
from lookonce.report.figures import precision_recall
from lookonce.tutorial import check, lines_of, own_or_digits, small_run

data = own_or_digits(DATA)
run = RUN or small_run(data, SIZE, EPOCHS, len(read_dataset(data).labels))
dataset = read_dataset(data, "test")  # images that neither training nor the choice of the model used
detector = Detector(run, "torch", precision="fp32")
detections = [detector(record.path, threshold=SCORE_THRESHOLD) for record in dataset.records]
print(f"{sum(map(len, detections))} detections on {len(dataset)} images with {len(dataset.boxes)} objects")

# %% [markdown]
# ## True and false positives
#
# Go through the detections of one class from the highest score down. A detection is a **true positive** if it has an IoU
# of at least 0.5 with an object of its class that no better detection has taken. All others are **false positives**.

# %%
print(lines_of(match, "order =", "overlap <"))
found = match(dataset, detections, dataset.difficult, 0.5)
for k in range(min(8, len(found.score))):
    name = dataset.labels[found.label[k]]
    print(f"{found.score[k]:.3f}  {name:<12}  {'true' if found.true_positive[k] else 'FALSE'} positive")

# %% [markdown]
# One image with its detections (solid) and its labels (dashed):

# %%
n = most_instructive(dataset)[0]
record = dataset.records[n]
names = [dataset.labels[k] for k in record.labels]
draw(record.path, detections[n].above(0.3), (record.boxes, names))

# %% [markdown]
# ## Precision and recall
#
# After each detection:
#
# $$precision = \frac{TP}{TP + FP}, \qquad recall = \frac{TP}{objects}$$

# %%
print(lines_of(pr_points, "tp =", "return"))
label = int(np.bincount(dataset.classes).argmax())  # the class with most objects
own = found.label == label
objects = int((dataset.classes == label).sum())
points = pr_points(found.score[own], found.true_positive[own], objects)  # score, recall, precision
for score, recall, precision in points[: objects + 3 : max(1, objects // 8)]:
    print(f"score {score:.3f}  recall {recall:.3f}  precision {precision:.3f}  {'#' * round(40 * precision)}")

# %%
Drawing(precision_recall(points[:, 1], points[:, 2]))

# %% [markdown]
# **What you should see:** recall rises from row to row and never falls. Precision starts high; each false positive is a
# step down. Behind the last object the curve falls steeply: what is left is all wrong.
#
# ## Average precision
#
# The area under the curve, after precision has been made to never rise again (VOC 2010 and later). VOC 2007 takes the
# mean of the best precision at recall 0, 0.1, ..., 1 instead. The two differ by a few hundredths, so every mAP must say
# which one it is.

# %%
print(lines_of(average_precision, "envelope =", "np.diff"))
for protocol in ("voc2007", "voc2010"):
    print(
        f"{dataset.labels[label]}: AP {float(average_precision(points[:, 1], points[:, 2], protocol)):.4f} ({protocol})"
    )

# %% [markdown]
# ## The whole report
#
# `evaluate` does this for all classes, with an interval over random resamples of the images, and names the kinds of
# errors and what each costs.

# %%
report = evaluate(run, data, split="test")
print(report)

# %% [markdown]
# **What you should see:** the AP of your class from above, in the table. An interval wider than 0.1 means that the test
# set is too small to compare models.
#
# ## Exercise 1
#
# Ten objects. A detector makes eight detections; six are true positives. Give (precision, recall).

# %% tags=["exercise"]
answer_1 = None

# %% tags=["check"]
check(answer_1, (6 / 8, 6 / 10), "divide by the detections for one, by the objects for the other")

# %% [markdown]
# ## Exercise 2
#
# Two objects; three detections by falling score: right, wrong, right. What is the AP by VOC 2010? Draw the curve first:
# precision after each detection is 1, 1/2, 2/3.

# %% tags=["exercise"]
answer_2 = None

# %% tags=["check"]
three = pr_points(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 2)
check(
    answer_2,
    float(average_precision(three[:, 1], three[:, 2], "voc2010")),
    "recall 0 to 1/2 has precision 1, recall 1/2 to 1 has the best precision from there on, 2/3",
)

# %% [markdown]
# On the command line: `lookonce evaluate RUN DATA --split test --report page.html`. Next: [video](7-video.py).
