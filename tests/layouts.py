"""Data sets as the tools of the field write them: the same ten images, laid out and annotated in each tool's way."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog")
SIZE = (64, 48)
COUNTS = {"train": 5, "val": 3, "test": 2}


def _objects(number):
    draw = np.random.default_rng(number)
    found = []
    for _ in range(1 + number % 3):
        x, y = int(draw.integers(0, 30)), int(draw.integers(0, 20))
        w, h = int(draw.integers(8, 30)), int(draw.integers(8, 25))
        found.append((CLASSES[int(draw.integers(2))], (x, y, x + w, y + h)))
    return found


STEMS = {split: [f"{split}{n}" for n in range(count)] for split, count in COUNTS.items()}
ALL = [stem for stems in STEMS.values() for stem in stems]
TRUTH = {stem: _objects(number) for number, stem in enumerate(ALL)}
"""Stem of each image -> its objects: (class, (x1, y1, x2, y2) image px)."""


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = ALL.index(path.stem) if path.stem in ALL else 99
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize(SIZE).save(path)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def xml(path, filename=None, folder=""):
    """Pascal VOC's annotation of the image of the path's stem."""
    objects = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>"
        f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in TRUTH[path.stem]
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    name = filename or f"{path.stem}.jpg"
    text(path, f"<annotation><folder>{folder}</folder><filename>{name}</filename>{size}{objects}</annotation>")


def txt(path):
    """YOLO's label file of the image of the path's stem."""
    lines = []
    for name, (x1, y1, x2, y2) in TRUTH[path.stem]:
        cx, cy, w, h = (x1 + x2) / 2 / SIZE[0], (y1 + y2) / 2 / SIZE[1], (x2 - x1) / SIZE[0], (y2 - y1) / SIZE[1]
        lines.append(f"{CLASSES.index(name)} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}\n")
    text(path, "".join(lines))


def coco(path, stems, named="{}.jpg", first=1, root_category=None):
    """A COCO file. named: file_name of a stem; first: id of the first category; root_category: Roboflow's group."""
    groups = [{"id": 0, "name": root_category, "supercategory": "none"}] if root_category else []
    categories = [{"id": first + n, "name": name, "supercategory": root_category or ""}
                  for n, name in enumerate(CLASSES)]  # fmt: skip
    images, annotations = [], []
    for number, stem in enumerate(stems):
        images.append({"id": number, "file_name": named.format(stem), "width": SIZE[0], "height": SIZE[1]})
        for name, (x1, y1, x2, y2) in TRUTH[stem]:
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"id": len(annotations), "image_id": number, "category_id": first + CLASSES.index(name),
                                "bbox": box, "area": box[2] * box[3], "iscrowd": 0, "segmentation": []})  # fmt: skip
    text(path, json.dumps({"info": {}, "licenses": [], "categories": groups + categories, "images": images,
                           "annotations": annotations}))  # fmt: skip


def names(path):
    text(path, "".join(f"{name}\n" for name in CLASSES))


# Roboflow


def roboflow_coco(root):
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        for stem in STEMS[split]:
            image(root / folder / f"{stem}.jpg")
        coco(root / folder / "_annotations.coco.json", STEMS[split], root_category="animals")
    text(root / "README.roboflow.txt", "animals - v1\n")
    text(root / "README.dataset.txt", "0 images in all\n")


def roboflow_voc(root):
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        for stem in STEMS[split]:
            image(root / folder / f"{stem}.jpg")
            xml(root / folder / f"{stem}.xml")
    text(root / "README.roboflow.txt", "animals - v1\n")


def roboflow_yolov5(root, train="../train/images", val="../valid/images", test="../test/images"):
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        for stem in STEMS[split]:
            image(root / folder / "images" / f"{stem}.jpg")
            txt(root / folder / "labels" / f"{stem}.txt")
    text(root / "data.yaml", f"train: {train}\nval: {val}\ntest: {test}\n\nnc: 2\nnames: ['cat', 'dog']\n\nroboflow:\n"
         "  workspace: me\n  project: animals\n  version: 1\n  license: CC BY 4.0\n")  # fmt: skip


def roboflow_yolov8(root):
    roboflow_yolov5(root, "train/images", "valid/images", "test/images")


def roboflow_darknet(root):
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        names(root / folder / "_darknet.labels")
        for stem in STEMS[split]:
            image(root / folder / f"{stem}.jpg")
            txt(root / folder / f"{stem}.txt")


def roboflow_csv(root):
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
        for stem in STEMS[split]:
            image(root / folder / f"{stem}.jpg")
            rows += [f"{stem}.jpg,64,48,{name},{','.join(map(str, box))}" for name, box in TRUTH[stem]]
        text(root / folder / "_annotations.csv", "\n".join(rows) + "\n")


def roboflow_createml(root):
    for stem in STEMS["train"]:
        image(root / "train" / f"{stem}.jpg")
    text(root / "train" / "_annotations.createml.json", json.dumps([
        {"image": f"{stem}.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 9, "y": 9, "width": 4}}]}
        for stem in STEMS["train"]]))  # fmt: skip


# CVAT


def cvat_coco(root):
    for stem in ALL:
        image(root / "images" / "default" / f"{stem}.jpg")
    coco(root / "annotations" / "instances_default.json", ALL)


def cvat_coco_subsets(root):
    for split, subset in (("train", "Train"), ("val", "Validation"), ("test", "Test")):
        for stem in STEMS[split]:
            image(root / "images" / subset / f"{stem}.jpg")
        coco(root / "annotations" / f"instances_{subset}.json", STEMS[split])


def cvat_voc(root):
    for stem in ALL:
        image(root / "JPEGImages" / f"{stem}.jpg")
        xml(root / "Annotations" / f"{stem}.xml")
    text(root / "ImageSets" / "Main" / "default.txt", "".join(f"{stem}\n" for stem in ALL))
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:1,2,3::\ndog:3,2,1::\n")


def cvat_voc_subfolders(root):
    for number, stem in enumerate(ALL):
        image(root / "JPEGImages" / f"cam{number % 2}" / f"{stem}.jpg")
        xml(root / "Annotations" / f"cam{number % 2}" / f"{stem}.xml", f"cam{number % 2}/{stem}.jpg")
    for split, subset in (("train", "Train"), ("val", "Validation"), ("test", "Test")):
        lines = "".join(f"cam{ALL.index(stem) % 2}/{stem}\n" for stem in STEMS[split])
        text(root / "ImageSets" / "Main" / f"{subset}.txt", lines)


def cvat_yolo(root):
    for stem in ALL:
        image(root / "obj_train_data" / f"{stem}.jpg")
        txt(root / "obj_train_data" / f"{stem}.txt")
    names(root / "obj.names")
    text(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    text(root / "train.txt", "".join(f"data/obj_train_data/{stem}.jpg\n" for stem in ALL))


def cvat_ultralytics(root):
    for split in ("train", "val"):
        for stem in STEMS[split]:
            image(root / "images" / split / f"{stem}.jpg")
            txt(root / "labels" / split / f"{stem}.txt")
        text(root / f"{split}.txt", "".join(f"data/images/{split}/{stem}.jpg\n" for stem in STEMS[split]))
    text(root / "data.yaml", "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\nval: val.txt\n")


def cvat_xml(root):
    for stem in ALL:
        image(root / "images" / f"{stem}.jpg")
    boxes = "".join(f'<image id="{n}" name="{stem}.jpg" width="64" height="48"><box label="cat" xtl="1" ytl="2" '
                    'xbr="9" ybr="9"></box></image>' for n, stem in enumerate(ALL))  # fmt: skip
    text(root / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{boxes}'
         "</annotations>")  # fmt: skip


# Label Studio


def label_studio_yolo(root):
    for stem in ALL:
        image(root / "images" / f"{stem}.jpg")
        txt(root / "labels" / f"{stem}.txt")
    names(root / "classes.txt")
    text(root / "notes.json", json.dumps({"categories": [{"id": n, "name": c} for n, c in enumerate(CLASSES)],
         "info": {"year": 2026, "version": "1.0", "contributor": "Label Studio"}}, indent=2))  # fmt: skip


def label_studio_coco(root):
    for stem in ALL:
        image(root / "images" / f"{stem}.jpg")
    coco(root / "result.json", ALL, "images\\{}.jpg", first=0)


def label_studio_voc(root):
    for stem in ALL:
        image(root / "images" / f"{stem}.jpg")
        xml(root / "Annotations" / f"{stem}.xml", stem)


def label_studio_json(root):
    text(root / "project-1-at-2026.json", json.dumps([{"id": 1, "annotations": [{"result": [
        {"from_name": "label", "to_name": "image", "value": {"x": 1, "rectanglelabels": ["cat"]}}]}]}]))  # fmt: skip


# FiftyOne


def fiftyone_coco(root):
    for stem in ALL:
        image(root / "data" / f"{stem}.jpg")
    coco(root / "labels.json", ALL)


def fiftyone_yolov5(root):
    for split in COUNTS:
        for stem in STEMS[split]:
            image(root / "images" / split / f"{stem}.jpg")
            txt(root / "labels" / split / f"{stem}.txt")
    text(root / "dataset.yaml", "names:\n  0: cat\n  1: dog\npath: /home/me/exports/animals\ntrain: ./images/train/\n"
         "val: ./images/val/\ntest: ./images/test/\n")  # fmt: skip


def fiftyone_voc(root):
    for stem in ALL:
        image(root / "data" / f"{stem}.jpg")
        xml(root / "labels" / f"{stem}.xml")


# labelImg, make-sense, Ultralytics


def labelimg_voc(root):
    for stem in ALL:
        image(root / f"{stem}.jpg")
        xml(root / f"{stem}.xml", folder="photos")


def labelimg_yolo(root):
    for stem in ALL:
        image(root / f"{stem}.jpg")
        txt(root / f"{stem}.txt")
    names(root / "classes.txt")


def make_sense_yolo(root):
    for stem in ALL:
        image(root / "images" / f"{stem}.jpg")
        txt(root / "labels_my-project_2026-01-01" / f"{stem}.txt")


def ultralytics_coco8(root, head="path: ../datasets/coco8\n", train="images/train", val="images/val"):
    for split in ("train", "val"):
        for stem in STEMS[split]:
            image(root / "images" / split / f"{stem}.jpg")
            txt(root / "labels" / split / f"{stem}.txt")
    text(root / "animals.yaml", f"{head}train: {train} # train images\nval: {val} # val images\ntest: # optional\n\n"
         "names:\n  0: cat\n  1: dog\n\ndownload: coco8.zip\n")  # fmt: skip


def ultralytics_windows(root):
    ultralytics_coco8(root, "", r"C:\Users\me\animals\images\train", r"C:\Users\me\animals\images\val")


def ultralytics_lists(root):
    for split in COUNTS:
        for stem in STEMS[split]:
            image(root / "images" / f"{stem}.jpg")
            txt(root / "labels" / f"{stem}.txt")
        text(root / f"{split}.txt", "".join(f"./images/{stem}.jpg\n" for stem in STEMS[split]))
    text(root / "data.yaml", "path: .\ntrain: train.txt\nval: val.txt\ntest: test.txt\nnc: 2\nnames: [cat, dog]\n")


def ultralytics_folders(root):
    ultralytics_coco8(root)
    (root / "animals.yaml").unlink()
    names(root / "classes.txt")


def lists_and_names(root):
    ultralytics_lists(root)
    (root / "data.yaml").unlink()
    names(root / "obj.names")


# COCO, DETR, Darknet, VOC


def detr(root):
    for split in ("train", "val"):
        for stem in STEMS[split]:
            image(root / f"{split}2017" / f"{stem}.jpg")
        coco(root / "annotations" / f"custom_{split}.json", STEMS[split])


def coco_2017(root):
    for split in ("train", "val"):
        for stem in STEMS[split]:
            image(root / f"{split}2017" / f"{stem}.jpg")
        coco(root / "annotations" / f"instances_{split}2017.json", STEMS[split])
        text(
            root / "annotations" / f"captions_{split}2017.json", '{"images": [], "annotations": [{"caption": "a cat"}]}'
        )


def named_json(root):
    for stem in ALL:
        image(root / "images" / f"{stem}.jpg")
    coco(root / "cells_train.json", STEMS["train"] + STEMS["val"])
    coco(root / "cells_test.json", STEMS["test"])


def yolo_mark(root):
    for stem in ALL:
        image(root / "data" / "obj" / f"{stem}.jpg")
        txt(root / "data" / "obj" / f"{stem}.txt")
    names(root / "data" / "obj.names")
    text(root / "data" / "obj.data", "classes= 2\ntrain  = data/train.txt\nvalid  = data/test.txt\n"
         "names = data/obj.names\nbackup = backup/\n")  # fmt: skip
    text(root / "data" / "train.txt", "".join(f"data/obj/{stem}.jpg\n" for stem in STEMS["train"]))
    text(root / "data" / "test.txt", "".join(f"data/obj/{stem}.jpg\n" for stem in STEMS["val"] + STEMS["test"]))
    text(root / "yolo-obj.cfg", "[net]\nwidth=416\n")


def darknet_elsewhere(root):
    for stem in ALL:
        image(root / "images" / f"{stem}.jpg")
        txt(root / "labels" / f"{stem}.txt")
    names(root / "voc.names")
    text(root / "voc.data", "classes= 2\ntrain = /home/me/voc/train.txt\nvalid = /home/me/voc/2007_test.txt\n"
         "names = data/voc.names\n")  # fmt: skip
    for name, split in (("train", "train"), ("2007_test", "val")):
        text(root / f"{name}.txt", "".join(f"/home/me/voc/images/{stem}.jpg\n" for stem in STEMS[split]))


def voc_lists(root):
    voc_plain(root)
    main = root / "ImageSets" / "Main"
    for split, stems in (*STEMS.items(), ("trainval", STEMS["train"] + STEMS["val"])):
        text(main / f"{split}.txt", "".join(f"{stem}\n" for stem in stems))
        text(main / f"cat_{split}.txt", "".join(f"{stem} {-1 if n else 1:2}\n" for n, stem in enumerate(stems)))


def voc_plain(root):
    for stem in ALL:
        image(root / "JPEGImages" / f"{stem}.jpg")
        xml(root / "Annotations" / f"{stem}.xml")
    text(root / "Annotations" / "metadata.xml", "<project><tool>something</tool></project>")


def voc_devkit(root):
    voc_lists(root / "VOCdevkit" / "VOC2007")


def voc_two_years(root):
    voc_lists(root / "VOCdevkit" / "VOC2007")
    voc_lists(root / "VOCdevkit" / "VOC2012")


def voc_trainval(root):
    voc_plain(root)
    main = root / "ImageSets" / "Main"
    text(main / "trainval.txt", "".join(f"{stem}\n" for stem in STEMS["train"] + STEMS["val"]))
    text(main / "test.txt", "".join(f"{stem}\n" for stem in STEMS["test"]))


def voc_folds(root):
    voc_plain(root)
    for name, split in (("fold1", "train"), ("fold2", "val"), ("fold3", "test")):
        text(root / "ImageSets" / "Main" / f"{name}.txt", "".join(f"{stem}\n" for stem in STEMS[split]))


def voc_annots(root):
    for stem in ALL:
        image(root / "images" / f"{stem}.jpg")
        xml(root / "annots" / f"{stem}.xml")


def voc_split_folders(root):
    for split in COUNTS:
        for stem in STEMS[split]:
            image(root / split / "JPEGImages" / f"{stem}.jpg")
            xml(root / split / "Annotations" / f"{stem}.xml")


# What is not read


def labelme(root):
    for stem in ALL:
        image(root / f"{stem}.jpg")
        shape = {"label": "cat", "points": [[1, 2], [9, 9]], "shape_type": "rectangle"}
        text(root / f"{stem}.json", json.dumps({"version": "5.2.1", "flags": {}, "shapes": [shape],
             "imagePath": f"{stem}.jpg", "imageData": None, "imageHeight": 48, "imageWidth": 64}))  # fmt: skip


def via(root):
    image(root / "train0.jpg")
    text(root / "via_region_data.json", json.dumps({"train0.jpg1000": {"filename": "train0.jpg", "size": 1000,
         "regions": [{"shape_attributes": {"name": "rect", "x": 1}, "region_attributes": {}}]}}))  # fmt: skip


def supervisely(root):
    image(root / "ds" / "img" / "train0.jpg")
    text(root / "ds" / "ann" / "train0.jpg.json", '{"size": {}, "objects": [{"classTitle": "cat", "points": {}}]}')


def datumaro(root):
    image(root / "images" / "default" / "train0.jpg")
    text(root / "annotations" / "default.json", '{"info": {}, "categories": {}, "items": [{"id": "train0"}]}')


def tfrecord(root):
    text(root / "train" / "animals.tfrecord", "xx")


def packed(root):
    text(root / "animals.zip", "PK")


FULL = {split: set(stems) for split, stems in STEMS.items()}
TWO = {split: FULL[split] for split in ("train", "val")}
HASHED: dict[str, set[str]] = {}
READ = {
    roboflow_coco: ("coco", FULL), roboflow_voc: ("voc", FULL), roboflow_yolov5: ("yolo", FULL),
    roboflow_yolov8: ("yolo", FULL), roboflow_darknet: ("yolo", FULL),
    cvat_coco: ("coco", HASHED), cvat_coco_subsets: ("coco", FULL), cvat_voc: ("voc", HASHED),
    cvat_voc_subfolders: ("voc", FULL), cvat_yolo: ("yolo", {"train": set(ALL)}), cvat_ultralytics: ("yolo", TWO),
    label_studio_yolo: ("yolo", HASHED), label_studio_coco: ("coco", HASHED), label_studio_voc: ("voc", HASHED),
    fiftyone_coco: ("coco", HASHED), fiftyone_yolov5: ("yolo", FULL), fiftyone_voc: ("voc", HASHED),
    labelimg_voc: ("voc", HASHED), labelimg_yolo: ("yolo", HASHED),
    ultralytics_coco8: ("yolo", TWO), ultralytics_windows: ("yolo", TWO), ultralytics_lists: ("yolo", FULL),
    ultralytics_folders: ("yolo", TWO), lists_and_names: ("yolo", FULL),
    detr: ("coco", TWO), coco_2017: ("coco", TWO),
    named_json: ("coco", {"train": FULL["train"] | FULL["val"], "test": FULL["test"]}),
    yolo_mark: ("yolo", {"train": FULL["train"], "val": FULL["val"] | FULL["test"]}), darknet_elsewhere: ("yolo", TWO),
    voc_lists: ("voc", FULL), voc_plain: ("voc", HASHED), voc_devkit: ("voc", FULL),
    voc_trainval: ("voc", {"trainval": FULL["train"] | FULL["val"], "test": FULL["test"]}),
    voc_folds: ("voc", {"fold1": FULL["train"], "fold2": FULL["val"], "fold3": FULL["test"]}),
    voc_annots: ("voc", HASHED), voc_split_folders: ("voc", FULL),
}  # fmt: skip
"""Layout -> (format, its splits by the stems of their images; HASHED: it brings none)."""
REFUSED = {
    roboflow_csv: "_annotations.csv looks like a CSV file .*export it as COCO",
    roboflow_createml: "createml.json looks like CreateML's JSON; export it as COCO",
    cvat_xml: "annotations.xml looks like CVAT's own XML .*export it as Pascal VOC",
    label_studio_json: "looks like Label Studio's own JSON; export it as COCO",
    make_sense_yolo: "YOLO labels are here but no class names: write classes.txt",
    labelme: "looks like labelme's JSON; convert it",
    via: "looks like VGG Image Annotator's JSON; export it as COCO",
    supervisely: "looks like Supervisely's JSON; export it as COCO",
    datumaro: "looks like Datumaro's JSON; export it as COCO",
    tfrecord: "looks like a TFRecord file; export it as COCO",
    packed: "looks like an archive; unpack it",
    voc_two_years: "2 data sets lie in it: VOCdevkit/VOC2007, VOCdevkit/VOC2012; name one",
}
"""Layout -> what the error says, as a regular expression."""


def written(layout, folder: Path) -> Path:
    """A layout in a folder of its name."""
    root = folder / layout.__name__
    root.mkdir(parents=True)
    layout(root)
    return root
