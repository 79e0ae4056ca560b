"""What users write, for type checkers: every line is right but those with `wrong:`, which say what is."""

from pathlib import Path

import numpy as np

import lookonce
from lookonce import Dataset, Detections, Detector, Report, evaluate, export, read_dataset, train

run = train("cells", epochs=30, freeze=5, network=Path("x.cfg"), labels=["RBC", "WBC"], out="~/runs")
report: Report = evaluate(run, "cells", bootstrap=100, labels=("RBC",))
_ = (report.mean_ap, report.to_json())
export(run, "onnx", out="cells")

detector = Detector("runs/cells-1", threshold=0.5)
found: Detections = detector("photo.jpg", threshold=0.25, labels=["RBC"])
several: list[Detections] = detector(["a.jpg", Path("b.jpg"), np.zeros((4, 4, 3), np.uint8)])
_ = (found.boxes.shape, found.scores.max(), found.labels.tolist(), found.class_names)
for one in found:
    _ = (one.name.upper(), one.score + 1, one.box[0] + 1, one.label + 1)
best: Detections = found[:5].above(0.5).only("RBC")
name: str = found[0].name
found[found.scores > 0.5].draw(hide_scores=True, line_width=3).show()
found.save("out.jpg", image=np.zeros((4, 4, 3), np.uint8))
sizes: list[tuple[int, int]] = [crop.size for crop in found.crops("photo.jpg")]
rows: list[dict[str, object]] = found.to_coco(image_id=7)

dataset: Dataset = read_dataset("cells", "test")
dataset.draw(0).save("image.png")
_ = (dataset.records[0].boxes, len(dataset))

lookonce.check("cells", report="check.html")
lookonce.detect(run, ["photos", Path("b.jpg")], save=["yolo", "crops"], labels=["RBC"], hide_labels=True)
lookonce.convert("cells", "cells-coco", format="coco")
lookonce.anchors("cells", k=9)
lookonce.prune("runs/cells-1", "cells")
lookonce.benchmark(["runs/cells-1"])
lookonce.diagnose("runs/cells-1", Path("cells"))
lookonce.download("yolov2-tiny", out="downloads")
lookonce.cache(clear=True)
lookonce.demo("digits")

train("cells", epoch=30)  # wrong: epoch
train("cells", optimizer="adamm")  # wrong: adamm
evaluate(run)  # wrong: data
detector("photo.jpg", treshold=0.5)  # wrong: No overloads
found.draw(line_width="3")  # wrong: line_width
lookonce.detect(run, ["photo.jpg"], save=["pdf"])  # wrong: pdf
_ = found[0].names  # wrong: names
