"""What detect --format does: tables of detections in shards, for more images than one process should hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lookonce.errors import UserError, plural
from lookonce.files import file_digest, new_folder, sweep
from lookonce.inference.backends.open import model_files
from lookonce.inference.lake.driver import Outcome, Workers, run_job
from lookonce.inference.lake.job import Job, open_job
from lookonce.inference.lake.listing import load_parquet
from lookonce.inference.lake.parts import COLUMNS
from lookonce.inference.lake.processes import Processes
from lookonce.inference.pretrained_models import model_name, model_path


@dataclass(frozen=True)
class LakeOptions:
    """How the work is divided."""

    shards: int | None
    workers: int | None
    ray: str | None

    def __post_init__(self) -> None:
        for name in ("shards", "workers"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 1_000_000:
                raise UserError(f"{name}: {value}; expected 1 to 1,000,000")


@dataclass(frozen=True)
class LakeSummary:
    """The result of `lookonce detect --format`, of all its runs together."""

    out: Path
    format: str
    shards: int
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """Return the counts, the columns, and the speed of this run."""
        done = self.outcome
        return {
            "out": str(self.out), "format": self.format, "columns": COLUMNS, "shards": self.shards,
            **asdict(done.total),
            "images_this_run": done.images, "seconds": round(done.seconds, 3), "workers_died": done.deaths,
        }  # fmt: skip

    def __str__(self) -> str:
        done, total = self.outcome, self.outcome.total
        text = (f"{plural(total.objects, 'detection')} in {plural(total.images, 'image')} -> {self.out} "
                f"({plural(self.shards, 'part')}, {self.format})")  # fmt: skip
        if total.errors:
            text += f"; {plural(total.errors, 'image')} could not be read (column error)"
        if done.deaths:
            text += f"; {plural(done.deaths, 'worker')} died, and their shards were done again"
        if done.images:
            text += f"; {done.images / done.seconds:,.1f} images/s in this run"
        else:
            text += "; all was done already"
        return text


def detect_lake(job: Job, images: Sequence[str], out: Path | None, options: LakeOptions) -> LakeSummary:
    """Do a job, or go on with the one that the folder holds.

    Raises:
        UserError: as inference.lake.job.open_job and inference.lake.driver.run_job do.
        Interrupted: Ctrl-C.
    """
    if out is None:
        raise UserError("format: give --out, the folder of the tables; the same command goes on with it")
    if job.format == "parquet":
        load_parquet("--format parquet")
    model = model_path(job.model)
    digest = file_digest([model] if model_name(model) != str(model) else model_files(model))
    job = replace(job, model=str(model.absolute()), digest=str(digest), base=str(Path.cwd()))
    with new_folder(out, reuse=True) as folder:
        sweep(folder)
        lists = open_job(folder, job, images, options.shards)
        workers: Workers
        if options.ray is None:
            workers = Processes(job, folder, lists, options.workers)
        else:
            from lookonce.inference.lake.ray_actors import RayActors

            workers = RayActors(job, folder, lists, options.workers, options.ray)
        return LakeSummary(folder, job.format, lists.shards, run_job(job, folder, lists, workers))
