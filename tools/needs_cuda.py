"""Exit with 0 if the installed torch needs the CUDA libraries of requirements-cuda.lock, else with 1."""

import importlib.metadata
import sys

needs = any(name.startswith(("nvidia-", "cuda-", "triton")) for name in importlib.metadata.requires("torch") or [])
sys.exit(0 if needs and sys.platform == "linux" else 1)
