"""Processes that train one network together: who they are, how they start, and what they tell one another.

Each has a rank from 0. Rank 0 decides and writes; the others follow. Lightning's DDP averages gradients. What is agreed
on here are numbers of the host, over gloo, which waits for no GPU.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from lookonce.data.images import usable_cores
from lookonce.errors import ConfigError, UserError

log = logging.getLogger("lookonce")
HERE = "127.0.0.1"
GRACE = 20.0
"""Seconds that processes get to end by themselves."""
MOST = 1024
"""Most processes of a machine, and most machines."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    """Number of processes."""
    local_rank: int = 0
    """The same on this machine."""
    local_size: int = 1
    started: bool = False
    """torchrun or SLURM started the processes; else rank 0 starts the others."""

    @property
    def is_first(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.size // self.local_size

    @property
    def node(self) -> int:
        """Number of this machine, from 0."""
        return self.rank // self.local_size

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of values over all processes."""
        return self._reduced(values, "SUM")

    def highest(self, values: Sequence[float]) -> list[float]:
        """Return the highest of values over all processes."""
        return self._reduced(values, "MAX")

    def _reduced(self, values: Sequence[float], operation: str) -> list[float]:
        if self.size == 1:
            return [*values]
        import torch
        from torch import distributed

        found = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(found, getattr(distributed.ReduceOp, operation))
        return [float(value) for value in found]

    def from_first(self, value: Any) -> Any:
        """Return the value of rank 0."""
        if self.size == 1:
            return value
        from torch import distributed

        found = [value]
        distributed.broadcast_object_list(found, device="cpu")  # type: ignore[arg-type]
        return found[0]

    def gathered(self, value: Any) -> list[Any]:
        """Return the values of all processes in order of rank; [] on all but rank 0."""
        if self.size == 1:
            return [value]
        from torch import distributed

        found: list[Any] | None = [None] * self.size if self.is_first else None
        distributed.gather_object(value, found)
        return found or []

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.sum([0.0])


ALONE = Ranks()


def surrounding() -> Ranks:
    """Return what torchrun, SLURM or rank 0 says in the environment; ALONE if nothing.

    Raises ConfigError for SLURM tasks that are spread unevenly over machines.
    """
    env = os.environ
    if "RANK" in env and int(env.get("WORLD_SIZE", 1)) > 1:
        rank, size, local = (int(env[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return Ranks(rank, size, local, int(env.get("LOCAL_WORLD_SIZE", size)), started=True)
    if "SLURM_PROCID" in env and int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # started by srun
        return _of_slurm()
    return ALONE


def _of_slurm() -> Ranks:
    """Return this process among the tasks of a SLURM step; name them to torch as torchrun would."""
    env = os.environ
    rank, size, local = (int(env[name]) for name in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"))
    nodes = int(env.get("SLURM_STEP_NUM_NODES", 1))
    if size % nodes:
        raise ConfigError(f"SLURM runs {size} tasks on {nodes} machines; expected as many on each: give srun "
                          "--ntasks-per-node")  # fmt: skip
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    first = SLURMEnvironment.resolve_root_node_address(env.get("SLURM_STEP_NODELIST", HERE))
    port = 15000 + int(env.get("SLURM_JOB_ID", 0)) % 15000
    for name, value in (("MASTER_ADDR", first), ("MASTER_PORT", port), ("RANK", rank), ("WORLD_SIZE", size),
                        ("LOCAL_RANK", local), ("LOCAL_WORLD_SIZE", size // nodes)):  # fmt: skip
        env.setdefault(name, str(value))
    return Ranks(rank, size, local, size // nodes, started=True)


def planned(devices: int | None, nodes: int | None, device: str) -> Ranks:
    """Return this process, rank 0, among those that will train. Refuse what would wait forever, before it starts.

    Args:
        devices: processes on each machine, each with a GPU of its own if there are GPUs; None: those that torchrun or
            SLURM started, else 1.
        nodes: machines; None: those of torchrun or SLURM, else 1.
        device: auto, cpu, cuda, cuda:NUMBER or mps.
    Raises:
        ConfigError: numbers that are not there, or that torchrun or SLURM contradicts.
    """
    for name, value in (("devices", devices), ("nodes", nodes)):
        if value is not None and not 1 <= value <= MOST:
            raise ConfigError(f"{name}: {value}; expected 1 to {MOST}")
    found = surrounding()
    if found.started:
        given = {"devices": (devices, found.local_size), "nodes": (nodes, found.nodes)}
        for name, (wanted, there) in given.items():
            if wanted is not None and wanted != there:
                raise ConfigError(f"{name}: {wanted}, but torchrun or SLURM started {found.size} processes on "
                                  f"{found.nodes} machines; expected --{name} {there}, or leave it out")  # fmt: skip
    elif nodes is not None and nodes > 1:
        raise ConfigError(f"nodes: {nodes}; the machines have to be started together: on each, torchrun --nnodes "
                          f"{nodes} --nproc-per-node DEVICES ... -m lookonce train DATA, or srun in SLURM")  # fmt: skip
    else:
        found = Ranks(size=devices or 1, local_size=devices or 1)
    if found.size > 1:
        _check_devices(found.local_size, device)
    return found


def _check_devices(count: int, device: str) -> None:
    """Raise ConfigError if a machine cannot give each of its processes a device."""
    import torch

    if device.startswith("cuda:") or device == "mps":
        raise ConfigError(f"device: {device} is one device; with --devices {count} leave it out, or give cpu or cuda")
    there = torch.cuda.device_count()
    if device == "cuda" or (device == "auto" and there):
        if count > there:
            raise ConfigError(f"devices: {count}; PyTorch {torch.__version__} finds {there} CUDA GPUs on this machine; "
                              f"expected {f'1 to {there}, or ' if there else ''}--device cpu")  # fmt: skip
    elif count > usable_cores():
        log.warning("devices: %d processes on %d cores: no faster than %d", count, usable_cores(), usable_cores())


@contextmanager
def together(ranks: Ranks, news: dict[str, Any]) -> Iterator[None]:
    """Connect rank 0 with the other processes, which it starts unless they are there; afterwards they end.

    news: what the others need to know.
    Raises UserError if one of them ends early.
    """
    if ranks.size == 1:
        yield
        return
    import torch

    others, threads = Others(ranks), torch.get_num_threads()
    try:
        connect(ranks)
        ranks.from_first(news)
        yield
        others.wait()
    except torch.OutOfMemoryError:  # the caller says what to try
        raise
    except (RuntimeError, ConnectionError) as error:
        why = others.why() or f"the processes lost one another: {' '.join(str(error).split())[:200]}"
        raise UserError(why) from error
    finally:
        disconnect()
        torch.set_num_threads(threads)
        others.end()


class Others:
    """The processes that rank 0 started on this machine; none if torchrun or SLURM did."""

    def __init__(self, ranks: Ranks) -> None:
        self._before = dict(os.environ)
        self._started: list[tuple[subprocess.Popen[bytes], Any]] = []
        if ranks.started:
            return
        own = {"MASTER_ADDR": HERE, "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(ranks.size),
               "LOCAL_WORLD_SIZE": str(ranks.size)}  # fmt: skip
        if sys.platform == "linux":
            own["GLOO_SOCKET_IFNAME"] = "lo"
        words = [sys.executable, "-m", "lookonce.training.worker"]
        for rank in range(1, ranks.size):
            said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end
            env = {**os.environ, **own, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            self._started.append((subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stderr=said), said))
        os.environ.update({**own, "RANK": "0", "LOCAL_RANK": "0"})

    def wait(self) -> None:
        """Wait until all have ended. Raises RuntimeError if one failed."""
        for process, _ in self._started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        if any(process.returncode for process, _ in self._started):
            raise RuntimeError

    def why(self) -> str | None:
        """Return which process ended first as far as one can see, and what it said; None: none that is known."""
        until = time.monotonic() + GRACE
        while self._started and time.monotonic() < until:
            ended = [(rank, *each) for rank, each in enumerate(self._started, 1) if each[0].poll()]
            killed = [each for each in ended if each[1].returncode < 0]
            for rank, process, said in killed or ended[:1]:
                said.seek(0)
                lines = said.read().decode("utf-8", "replace").split("\n")
                last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
                last = f"signal {-process.returncode} killed it" if process.returncode < 0 else last
                return f"process {rank + 1} of {len(self._started) + 1} (pid {process.pid}) ended: {last[:300]}"
            time.sleep(0.1)
        return None

    def end(self) -> None:
        """End those that still run, and restore the environment."""
        for process, _ in self._started:
            if process.poll() is None:
                process.terminate()
        for process, said in self._started:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdin is not None
            process.stdin.close()
            said.close()
        for name in os.environ.keys() - self._before.keys():
            del os.environ[name]
        os.environ.update(self._before)


def connect(ranks: Ranks) -> None:
    """Join the group of all processes. Raises UserError if that fails, such as for a port that is taken."""
    import torch
    from torch import distributed

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    torch.set_num_threads(max(1, usable_cores() // ranks.local_size))
    try:
        distributed.init_process_group(backend, rank=ranks.rank, world_size=ranks.size)
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(f"the {ranks.size} processes cannot connect at {place}: {' '.join(str(error).split())[:200]}; "
                        "give torchrun another --master-port, or check the network") from None  # fmt: skip


def disconnect() -> None:
    """Leave the group, also after an error."""
    from torch import distributed

    if distributed.is_initialized():
        with suppress(Exception):
            distributed.destroy_process_group()


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended: its standard input then closes."""

    def watch() -> None:
        os.read(0, 1)  # nothing is ever written
        time.sleep(GRACE)  # after the last step it ends by itself
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((HERE, 0))
        return int(found.getsockname()[1])
