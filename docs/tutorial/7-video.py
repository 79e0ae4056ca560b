# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 7. Video: detect frame by frame
#
# A video is a list of images with times. This part makes one from your images, reads it back frame by frame, detects on
# each, and writes an animation with the boxes. It needs no video library: the film is a GIF.

# %% tags=["parameters"]
DATA = ""  # your data set; empty: pages of handwritten digits
RUN = ""  # a run of yours; empty: train a small network here, which takes half a minute
SIZE = 128  # for the small network: side of its input, px
EPOCHS = 8  # for the small network
FRAMES = 16

# %%
from pathlib import Path

from PIL import Image, ImageSequence

from lookonce import Detector, draw, read_dataset
from lookonce.tutorial import check, own_or_digits, small_run, write_animation

data = own_or_digits(DATA)
run = RUN or small_run(data, SIZE, EPOCHS, len(read_dataset(data).labels))
dataset = read_dataset(data, "test")
detector = Detector(run, threshold=0.3)

# %% [markdown]
# ## A film
#
# The camera moves over one of your images. Frames come at uneven times, as those of a phone do.

# %%
photo = Image.open(dataset.records[0].path).convert("RGB")
photo = photo.resize((2 * SIZE, 2 * SIZE))
frames, times = [], []
for k in range(FRAMES):
    shift = round(0.5 * SIZE * k / FRAMES)
    frames.append(photo.crop((shift, shift, shift + round(1.5 * SIZE), shift + round(1.5 * SIZE))))
    times.append((100, 100, 60, 140)[k % 4])  # milliseconds that the frame is shown
write_animation(frames, Path("film.gif"), times)

# %% [markdown]
# ## Read, detect, draw
#
# Each frame is an image like any other. Two things go wrong in many programs:
#
# * **Lost frames.** As many frames must come out as went in.
# * **Time.** The time of a frame is the sum of the durations before it, not its number divided by a frame rate:
#
# $$time_n = \sum_{k < n} duration_k$$

# %%
drawn, seconds, durations, counts, milliseconds = [], [], [], [], 0
with Image.open("film.gif") as film:
    for frame in ImageSequence.Iterator(film):
        found = detector(frame.convert("RGB"))
        drawn.append(draw(frame.convert("RGB"), found))
        seconds.append(milliseconds / 1000)
        durations.append(frame.info["duration"])
        milliseconds += durations[-1]
        counts.append(len(found))
print(f"{FRAMES} frames in, {len(drawn)} frames out, {milliseconds / 1000:.2f} s")
for time, count in zip(seconds[:6], counts[:6]):
    print(f"{time:5.2f} s  {count} objects  {'#' * count}")

# %%
write_animation(drawn, Path("detections.gif"), durations)

# %% [markdown]
# **What you should see:** the film with boxes that move along with the objects. Near the edge boxes come and go: the
# detector sees each frame for the first time, it remembers nothing. A tracker joins boxes over time.
#
# ## Exercise 1
#
# At what time, in seconds, does frame 10 begin? (The first frame is frame 0.)

# %% tags=["exercise"]
answer_1 = None

# %% tags=["check"]
check(answer_1, sum(times[:10]) / 1000, "add the durations of the frames before it: times[:10], in milliseconds")

# %% [markdown]
# ## Exercise 2
#
# What would a program say that divides the frame's number by the mean frame rate, for frame 3? Give its error in seconds
# (its time minus the true time).

# %% tags=["exercise"]
answer_2 = None

# %% tags=["check"]
rate = len(times) / (sum(times) / 1000)
check(answer_2, 3 / rate - sum(times[:3]) / 1000, "the mean rate is the number of frames over the whole time")

# %% [markdown]
# You have seen all parts. Back to [the documentation](../index.md).
