"""What may be asked of a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lookonce.errors import ConfigError

RuntimeName = Literal["auto", "torch", "openvino", "onnxruntime"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Settings:
    """How a network runs."""

    runtime: RuntimeName = "auto"
    """auto: the fastest at hand."""
    device: str | None = None
    """None: the runtime's own choice. torch: cpu, cuda, cuda:1, ...; onnxruntime: cpu, cuda, tensorrt."""
    precision: Precision = "auto"
    """auto: bf16 where the processor has instructions for it, else fp32."""
    throughput: bool = False
    """Many pictures at once count, not how long one takes. OpenVINO then runs as many as suit the machine."""
    threads: int | None = None
    """Of the CPU. None: the runtime's own choice, the cores that this process may use. PyTorch has one number for the
    whole process, and it is changed."""

    def __post_init__(self) -> None:
        for name, allowed in (("runtime", RuntimeName), ("precision", Precision)):
            if (given := getattr(self, name)) not in get_args(allowed):
                raise ConfigError(f"{name}: {given!r}; expected one of {', '.join(get_args(allowed))}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads: {self.threads}; expected at least 1")

    def precision_where(self, native: bool) -> Literal["fp32", "bf16"]:
        """What is meant on a machine. native: it has instructions for bf16."""
        if self.precision == "auto":
            return "bf16" if native else "fp32"
        return self.precision
