"""Split compiled lock files: for every machine, torch for CUDA, torch's CPU build, the documentation, lowest versions.

Usage: python tools/split_lock.py FULL DOCS LOWEST
Writes requirements.lock, -cuda.lock, -cpu.lock, -docs.lock and -lowest.lock here. DOCS is FULL with what the extra docs
adds, LOWEST has the lowest versions that pyproject.toml allows.
"""

import re
import sys
from pathlib import Path

CUDA = re.compile(r"^(nvidia-|cuda-|triton==)")
CPU_TORCH = {"2.13.0": ["6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"]}
"""sha256 of PyTorch's CPU builds (version +cpu)."""


def main(full: Path, docs: Path, lowest: Path) -> None:
    """Write the parts into the current folder."""
    entries = read_entries(full)
    parts: dict[str, list[str]] = {"requirements.lock": [], "requirements-cuda.lock": []}
    for entry in entries:
        name = entry.split()[0]
        if name.startswith("torch=="):
            hashes = CPU_TORCH[name.partition("==")[2]]
            cpu = [f"{name}+cpu", *(f"--hash=sha256:{value}" for value in hashes)]
            Path("requirements-cpu.lock").write_text(" \\\n    ".join(cpu) + "\n", newline="\n")
        parts["requirements-cuda.lock" if CUDA.match(name) else "requirements.lock"].append(entry)
    known = {entry.split()[0] for entry in entries}
    parts["requirements-docs.lock"] = [entry for entry in read_entries(docs) if entry.split()[0] not in known]
    parts["requirements-lowest.lock"] = [entry for entry in read_entries(lowest) if not CUDA.match(entry)]
    for file, lines in parts.items():
        Path(file).write_text("\n".join(lines) + "\n", newline="\n")


def read_entries(lock: Path) -> list[str]:
    """Return the requirements of a lock file, each with its hashes."""
    return re.split(r"\n(?=\S)", lock.read_text().strip())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
