"""Exit 0 where the installed torch is a build that needs the CUDA libraries of requirements-cuda.lock, else 1."""

import importlib.metadata
import sys

needs = any(name.startswith(("nvidia-", "cuda-", "triton")) for name in importlib.metadata.requires("torch") or [])
sys.exit(0 if needs and sys.platform == "linux" else 1)
