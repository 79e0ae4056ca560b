# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 4. Weights and training
#
# Where the weights come from, what one step does, and what to look at while a run goes on.

# %% tags=["parameters"]
DATA = ""  # your data set; empty: pages of handwritten digits
SIZE = 128  # side of the network's square input, px; 416 is usual for photos
EPOCHS = 8  # passes over the training images
STEPS = 60  # of the training by hand below

# %%
from pathlib import Path

import torch

from lookonce import Network, load_darknet, read_dataset, save_darknet
from lookonce.data.anchors import cluster_anchors
from lookonce.model.heads import loss
from lookonce.model.losses import LossOptions
from lookonce.model.sizes import floats_by_layer, num_weights
from lookonce.report.explain_drawings import Drawing, Subject, loss_drawing
from lookonce.report.explain_encoding import first_example
from lookonce.report.explain_loss import loss_maps
from lookonce.report.figures import results_figure
from lookonce.report.page import to_svg
from lookonce.training.history import read_curves
from lookonce.training.recipes import learning_rate_factor, settings
from lookonce.tutorial import check, lines_of, own_or_digits, small_network, small_run

data = own_or_digits(DATA)
dataset = read_dataset(data, "train")
anchors = cluster_anchors(dataset, 3, size=SIZE, stride=16).wh
torch.manual_seed(0)
network = Network(small_network(len(dataset.labels), anchors))

# %% [markdown]
# ## What is in a .weights file
#
# A header of 20 bytes, then the numbers of each convolution in layer order as float32: bias, then with batch norm its
# scales, means and variances, then the kernel. For $F$ filters of size $k$ on $c$ channels:
#
# $$n = \begin{cases} F (c k^2 + 4) & \text{with batch norm} \\ F (c k^2 + 1) & \text{without} \end{cases}$$

# %%
print(lines_of(num_weights, "layer.filters *"))
save_darknet(network, "small.cfg", "small.weights", input_size=(SIZE, SIZE))
numbers = sum(floats_by_layer(network.layers))
print(f"{Path('small.weights').stat().st_size:,} bytes = 20 + 4 x {numbers:,}")
again = load_darknet("small.cfg", "small.weights")
print("read back:", all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters())))

# %% [markdown]
# `lookonce train DATA --weights FILE` starts from such a file. Each layer that fits is loaded, the last one starts from
# scratch, since its filters depend on your classes. `--freeze all_but_last` trains only that one. The recipe of the blog,
# `--recipe blog`, does both.
#
# ## Training by hand
#
# One step: compute the loss of a batch, its gradients, and move each weight a little against its gradient. We repeat it
# on a single image. A network that cannot learn one image by heart has a fault, so this is a good first test.

# %%
example = first_example(dataset, (SIZE, SIZE), "letterbox_antialias")
subject = Subject(example, network.heads[0])
optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
network.train()
history = []
for _ in range(STEPS):
    raws = network(example.batch)
    terms = loss(raws, network.heads, example.objects, LossOptions("region"))
    optimizer.zero_grad()
    terms["total"].backward()
    optimizer.step()
    history.append(terms["total"].item())
for step in range(0, STEPS, max(1, STEPS // 10)):
    print(f"step {step:3}  loss {history[step]:8.3f}  {'#' * round(40 * history[step] / max(history))}")
loss_drawing(subject, loss_maps(raws[0].detach(), network.heads[0], example.objects, LossOptions("region")))

# %% [markdown]
# **What you should see:** the bars shrink to almost nothing, and so do the sums below the maps. (Each map is bright at
# its own largest value, however small.)
#
# If the loss falls here but a whole run finds nothing, the cause is elsewhere: see
# [the loss falls but nothing is detected](../questions.md#1-the-loss-falls-but-nothing-is-detected).
#
# ## The learning rate
#
# A run does not use one rate. It rises at the start, so that the first steps do not throw the weights about, and falls
# at the end, so that they settle.

# %%
how = settings("quick")
for step in range(0, 1000, 100):
    factor = learning_rate_factor(step, 1000, how)
    print(f"step {step:4}  {factor * how.learning_rate:.5f}  {'#' * round(40 * factor)}")

# %% [markdown]
# ## A whole run
#
# `train` does the same with batches, augmentation, averaged weights, validation and checkpoints. The digits take about
# 20 s on two cores.

# %%
run = small_run(data, SIZE, EPOCHS, len(dataset.labels))
sorted(file.name for file in run.iterdir())

# %%
curves = read_curves(run / "metrics.csv")
Drawing(to_svg(results_figure(curves, "the run of this tutorial")))

# %% [markdown]
# **What you should see:** both losses fall and mAP rises towards 1. If validation loss rises again while training loss
# falls, the network learns your training images by heart: use more images or fewer epochs. `report.html` in the run
# folder shows the same with images and advice.
#
# ## Exercise 1
#
# How many numbers does the first convolution have in the .weights file? (16 filters of 3 x 3 on 3 channels, with batch
# norm.)

# %% tags=["exercise"]
answer_1 = None

# %% tags=["check"]
check(answer_1, floats_by_layer(network.layers)[0], "F (c k² + 4) with F = 16, c = 3, k = 3")

# %% [markdown]
# ## Exercise 2
#
# With your training images and a batch size of 8, how many optimizer steps are `EPOCHS` epochs? (The last, smaller batch
# of an epoch is a step, too.)

# %%
print(f"{len(dataset)} training images, {EPOCHS} epochs")

# %% tags=["exercise"]
answer_2 = None

# %% tags=["check"]
check(answer_2, -(-len(dataset) // 8) * EPOCHS, "divide the images by 8, round up, and multiply by the epochs")

# %% [markdown]
# On the command line: `lookonce train DATA`. Next: [find objects in images](5-inference.py).
