"""Help pages: options in groups, rarely used options only with --help-all, and examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

SHOW_ALL = "--help-all"
WIDEST_NAME = 21
"""Columns of an option's name; longer ones are folded."""
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "Data": (
            "data", "labels", "tree", "image-labels", "train-split", "val-split", "difficult", "policy", "keep-empty",
            "pixel-range",
        ),
        "Length": ("minutes", "steps", "epochs", "usual-steps", "batch-size", "monitor", "patience", "min-delta"),
        "Network": ("network", "size", "multi-scale", "resize", "tile", "anchors"),
        "Start": ("weights", "match-classes", "keep-last", "freeze", "features", "variants"),
        "Optimizer and loss": (
            "recipe", "learning-rate", "optimizer", "schedule", "momentum", "beta2", "epsilon", "weight-decay",
            "burn-in", "milestones", "ema", "gradient-clip", "sparsity", "loss", "object-scale", "noobject-scale",
            "coord-scale", "class-scale", "class-weights", "iou-gradient", "match-iou", "objectness-prior",
            "prior-loss-images", "prior-loss-batches", "teacher",
        ),
        "Augmentation": (),
        "Run": (),
    },
    "detect": {
        "Images and output": ("model", "images", "out", "overwrite", "save", "save-images", "hide-labels",
                              "hide-scores", "line-width"),
        "Videos, cameras and streams": ("track", "zones", "every", "fps", "start", "end", "keep-all", "resume",
                                        "show"),
        "Large images and small objects": ("tile", "overlap"),
        "Tables of very many images": ("format", "shards", "workers", "ray"),
        "Detection": ("labels", "threshold", "iou-threshold", "nms", "tree-threshold", "flip"),
    },
}  # fmt: skip
"""Groups of a command's options in the order of its help. "Augmentation" holds --augment.*, the last group the rest."""
COMMON = {
    "train": {
        "data", "labels", "val-split", "minutes", "steps", "epochs", "network", "size", "weights", "learning-rate",
        "name", "resume", "device",
    },
}  # fmt: skip
"""Options that the short help of a command shows; all, if it is not here."""
EXAMPLES = {
    "anchors": ("lookonce anchors cells --k 9 --size 512",),
    "benchmark": ("lookonce benchmark runs/cells-1 --images photos/",),
    "cache": ("lookonce cache --clear",),
    "compare": ("lookonce compare runs/cells-1 runs/cells-2",),
    "check": ("lookonce check cells --report cells.html",),
    "convert": ("lookonce convert cells cells-coco --format coco",),
    "demo": ("lookonce demo",),
    "detect": ("lookonce detect coco photo.jpg", "lookonce detect runs/cells-1 photos/",
               "lookonce detect yolov2.cfg photo.jpg --threshold .5", "lookonce detect coco clip.mp4 --track",
               "lookonce detect runs/cells-1 slides/ --tile auto",
               "lookonce detect coco s3://bucket/photos --out tables --format parquet"),
    "diagnose": ("lookonce diagnose runs/cells-1 cells",),
    "models": ("lookonce models",),
    "download": ("lookonce download yolov2-tiny",),
    "evaluate": ("lookonce evaluate runs/cells-1", "lookonce evaluate runs/cells-1 cells --report cells-1.html",
                 "lookonce evaluate runs/cells-1 --tile 640x480 --overlap .3"),
    "explain": ("lookonce explain cells runs/cells-1",),
    "export": ("lookonce export runs/cells-1 --format onnx",
               "lookonce export runs/cells-1 --format openvino --int8 --data cells"),
    "prune": ("lookonce prune runs/cells-1 cells --ratio .5",),
    "serve": ("lookonce serve runs/cells-1", "lookonce serve cells=runs/cells-1 parts=parts.xml --port 9000"),
    "zones": ("lookonce zones clip.mp4", "lookonce zones clip.mp4 clip-zones.yaml"),
    "train": ("lookonce train cells --weights coco", "lookonce train cells --weights coco --minutes 1",
              "lookonce train cells --tile auto", "lookonce train --resume runs/cells-1"),
}  # fmt: skip
NOTES = {
    "models": (
        "detect, evaluate, export and benchmark take such a name in place of a model file, and train as --weights. The "
        "first use downloads the file, says from where, and keeps it in the cache folder (LOOKONCE_CACHE); it is "
        "checked each time it is used. With --offline, or LOOKONCE_OFFLINE=1 in the environment, nothing connects, and "
        "the message names the file to download and its place. LOOKONCE_MIRROR is the address of a folder of the files "
        "on your own server; it is used in place of the published addresses.\n\n"
        "mAP50 is the published mAP@0.5 on COCO in percent, at this input size. Files of the first layers of a network "
        "are for train --weights alone. All are in the public domain. --json adds addresses, checksums and sources.\n"
    ),
}
"""What a command's help says above the examples."""


class HelpPage:
    """Print the help of a command. Part of cyclopts' protocol HelpFormatter."""

    def __init__(self, command: str | None, show_all: bool) -> None:
        self.command, self.show_all = command, show_all

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print one panel of cyclopts: its options group by group, or its commands."""
        from cyclopts.help import InlineText
        from cyclopts.help.specs import DescriptionRenderer, NameRenderer
        from rich.table import Table
        from rich.text import Text

        groups = GROUPS.get(self.command or "") if panel.format == "parameter" else None
        parts = self._grouped(panel.entries, groups) if groups else [(str(panel.title), panel.entries)]
        name, description = NameRenderer(max_width=WIDEST_NAME), DescriptionRenderer()
        for number, (title, entries) in enumerate(parts):
            if entries:
                table = Table.grid(padding=(0, 2, 0, 0))
                table.add_column(style="cyan", min_width=WIDEST_NAME if groups else None)
                for entry in entries:
                    text = getattr(entry.description, "primary_renderable", None)
                    if isinstance(text, Text):  # with the line ends and indents of the docstring
                        entry = entry.copy(description=InlineText(Text(" ".join(text.plain.split()))))
                    table.add_row(name(entry), description(entry))
                if number:
                    console.print()
                console.print(Text(title, "bold"), table)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: object) -> None:
        """Print the usage line."""
        if usage:
            console.print(f"Usage: {str(usage).strip()}\n", markup=False, highlight=False)

    def _grouped(
        self, entries: list[HelpEntry], groups: dict[str, tuple[str, ...]]
    ) -> list[tuple[str, list[HelpEntry]]]:
        """Return (group, its options), without empty groups and without rare options in a short help."""
        common = COMMON.get(self.command or "", set())
        found: dict[str, list[HelpEntry]] = {title: [] for title in groups}
        group_of = {name: title for title, names in groups.items() for name in names}
        order = {name: place for names in groups.values() for place, name in enumerate(names)}
        last = list(groups)[-1]
        for entry in entries:
            name = next((each.removeprefix("--") for each in entry.names), "")
            title = "Augmentation" if name.startswith("augment.") else group_of.get(name, last)
            if self.show_all or not common or name in common:
                found[title].append(entry)
        for listed in found.values():
            listed.sort(key=lambda entry: order.get(next(iter(entry.names), "").removeprefix("--"), len(order)))
        return [(title, listed) for title, listed in found.items() if listed]


def epilogue(command: str | None, show_all: bool) -> str:
    """Return the text below a help page: examples, or what all commands share."""
    if command is None:
        return (
            "lookonce COMMAND --help explains a command. Every command also takes --json, which prints the result as "
            "JSON, --offline, which forbids connections, and --config FILE.yaml, which reads options from a file; none "
            "unsets an option of it: --name none."
        )
    notes = [NOTES[command]] if command in NOTES else []
    lines = [*notes, "Examples:", *(f"  {example}" for example in EXAMPLES.get(command, ()))]
    if command in COMMON and not show_all:
        lines.append(f"\n{SHOW_ALL} lists all options.")
    return "\n".join(lines)
