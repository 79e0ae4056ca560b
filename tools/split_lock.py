"""Split a compiled lock file: for every machine, for a CUDA build of torch, and torch's CPU build.

Usage: python tools/split_lock.py FULL (writes requirements.lock, requirements-cuda.lock, requirements-cpu.lock here)
"""

import re
import sys
from pathlib import Path

CUDA = re.compile(r"^(nvidia-|cuda-|triton==)")
CPU_TORCH = {"2.13.0": ["6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"]}
"""sha256 of PyTorch's CPU builds (version +cpu)."""


def main(full: Path) -> None:
    """Write the three parts of a full lock file into the current folder."""
    entries = re.split(r"\n(?=\S)", full.read_text().strip())
    parts: dict[str, list[str]] = {"requirements.lock": [], "requirements-cuda.lock": []}
    for entry in entries:
        name = entry.split()[0]
        if name.startswith("torch=="):
            hashes = CPU_TORCH[name.partition("==")[2]]
            cpu = [f"{name}+cpu", *(f"--hash=sha256:{value}" for value in hashes)]
            Path("requirements-cpu.lock").write_text(" \\\n    ".join(cpu) + "\n", newline="\n")
        parts["requirements-cuda.lock" if CUDA.match(name) else "requirements.lock"].append(entry)
    for file, lines in parts.items():
        Path(file).write_text("\n".join(lines) + "\n", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
