"""What `lookonce serve` stands: throughput beside the Detector itself, overload, memory, slow and damaged requests.

The server is a process of its own on the loopback address; the clients are sockets of this process, which take about
0.1 ms of CPU a request from the same cores. Rounds of the server and of the Detector alternate, and a ratio is the
median over rounds. CPU time an image, over all threads, holds where other programs take most of the cores.

python benchmarks/serve.py MODEL IMAGE... [--seconds 10] [--rounds 3] [--requests 100000] [--mutated 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import base64
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from lookonce import Detector
from lookonce.data.images import BATCH

MOST_SECONDS = 600
"""Longest of one measurement."""


def mutated(draw: np.random.Generator, content: bytes) -> bytes:
    """Return bytes with some of them changed, repeated, or removed."""
    found = bytearray(content)
    for _ in range(int(draw.integers(1, 8))):
        at = int(draw.integers(0, len(found)))
        kind = draw.integers(0, 4)
        if kind == 0:
            found[at] = int(draw.integers(0, 256))
        elif kind == 1:
            del found[at : at + int(draw.integers(1, 40))]
        elif kind == 2:
            found[at:at] = found[at : at + int(draw.integers(1, 60))]
        else:
            found[at:at] = draw.integers(0, 256, int(draw.integers(1, 20)), dtype=np.uint8).tobytes()
        if not found:
            return b"x"
    return bytes(found)


def genuine(image: bytes, model: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield (head, body) of one request of each kind. The head lacks Content-Length and its end."""
    disposition = b"\r\nContent-Disposition: form-data; name="
    form = (b"--b" + disposition + b'"image"; filename="a.png"\r\n\r\n' + image
            + b"\r\n--b" + disposition + b'"threshold"\r\n\r\n0.5\r\n--b--\r\n')  # fmt: skip
    coded = base64.b64encode(image).decode()
    kserve = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [coded]}]}
    studio = {"tasks": [{"id": 1, "data": {"image": f"data:image/png;base64,{coded}"}}]}
    as_json = "application/json"
    bodies = (
        ("/v1/detect?threshold=.5&iou=.5", "image/png", image),
        ("/v1/detect", "multipart/form-data; boundary=b", form),
        ("/v1/detect", as_json, json.dumps({"image": coded, "threshold": 0.5, "format": "csv"}).encode()),
        (f"/v2/models/{model}/infer", as_json, json.dumps(kserve).encode()),
        ("/predict", as_json, json.dumps(studio).encode()),
        ("/v1/models", "", b""),
    )
    for path, kind, body in bodies:
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        yield head.encode(), body


def damaged(draw: np.random.Generator, kinds: Sequence[tuple[bytes, bytes]], number: int) -> bytes:
    """Return a whole request of a kind with its head (one in three) or its body damaged."""
    head, body = kinds[number % len(kinds)]
    if number // len(kinds) % 3 == 0:
        head = mutated(draw, head)
    elif body:
        body = mutated(draw, body)
    return head + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


@dataclass
class Load:
    """What clients got."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    """Time of each answer, by status."""
    lost: int = 0
    """Requests without an answer."""
    took: float = 0.0

    def add(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self.statuses[status] += 1
        self.seconds.setdefault(status, []).append(seconds)

    @property
    def rate(self) -> float:
        """Images/s."""
        return self.statuses[200] / self.took

    def percentiles(self, status: int = 200) -> str:
        """Return the times of the answers of a status as text."""
        values = np.percentile(self.seconds.get(status) or [np.nan], (50, 95, 99)) * 1000
        return "p50 {:.1f} ms, p95 {:.1f} ms, p99 {:.1f} ms".format(*values)


class Server:
    """`lookonce serve` in a process of its own."""

    def __init__(self, model: str, *options: str) -> None:
        self.start = time.perf_counter()
        words = [sys.executable, "-m", "lookonce", "serve", f"m={model}", "--port", "0", *options]
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)  # also if a measurement fails
        assert self.process.stderr is not None
        lines = iter(self.process.stderr.readline, "")
        self.url = next(found[0] for line in lines if (found := re.search(r"http://[\d.]+:\d+", line)))
        host, port = self.url.removeprefix("http://").split(":")
        self.host, self.port = host, int(port)

    def stop(self) -> str:
        """End it, and return what it said on standard error."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        assert self.process.wait(60) == 0
        return said

    def metric(self, name: str) -> float:
        """Return the sum of a metric."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    async def _client(self, images: Sequence[bytes], until: float, most: Counter[str], load: Load) -> None:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        number = 0
        while time.perf_counter() < until and most["left"] > 0:
            most["left"] -= 1
            image = images[number % len(images)]
            number += 1
            begun = time.perf_counter()
            try:
                writer.write(b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(image))
                writer.write(image)
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                assert length is not None
                await reader.readexactly(int(length[1]))
                load.add(int(head[9:12]), time.perf_counter() - begun)
                if b"connection: close" in head.lower():
                    reader, writer = await asyncio.open_connection(self.host, self.port)
            except (OSError, asyncio.IncompleteReadError):
                load.lost += 1
                reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.close()

    def load(self, images: Sequence[bytes], clients: int, seconds: float, requests: int = 1 << 60) -> Load:
        """Return what clients get that each ask again as soon as they are answered."""
        load, most = Load(), Counter(left=requests)

        async def run() -> None:
            until = time.perf_counter() + min(seconds, MOST_SECONDS)
            await asyncio.gather(*(self._client(images, until, most, load) for _ in range(clients)))

        start = time.perf_counter()
        asyncio.run(run())
        load.took = time.perf_counter() - start
        return load

    async def raw(self, content: bytes) -> bytes:
        """Return the start of what the server answers to raw bytes; nothing where it waits for more, or closes."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(content)
            return await asyncio.wait_for(reader.read(1 << 16), 10)
        except (OSError, TimeoutError):
            return b""
        finally:
            writer.close()


def alone(detector: Detector, images: Sequence[bytes], seconds: float) -> tuple[float, float]:
    """Return images/s and CPU ms an image of a Detector, from bytes to JSON, a batch at a time, as detect works."""
    from concurrent.futures import ThreadPoolExecutor

    from lookonce.data.images import usable_cores

    done, start, cpu = 0, time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(usable_cores()) as pool:

        def prepared(number: int) -> list:  # fmt: skip
            return [pool.submit(detector.prepare, images[(number + n) % len(images)]) for n in range(BATCH)]

        coming = prepared(0)
        while time.perf_counter() - start < seconds:
            batch, coming = [each.result() for each in coming], prepared(done + BATCH)
            for found in detector.detect_prepared(batch, [detector.selection] * BATCH):
                json.dumps(found.above(detector.thresholds).to_json())
            done += BATCH
        took = time.perf_counter() - start
    return done / took, 1000 * (time.process_time() - cpu) / done


def throughput(server: Server, model: str, images: Sequence[bytes], seconds: float, rounds: int) -> None:
    """Print images/s of the server beside those of a Detector."""
    detector = Detector(model, throughput=True)
    alone(detector, images, 1)
    server.load(images, 8, 1)
    ratios: dict[int, list[float]] = {8: [], 32: []}
    loads: dict[int, list[Load]] = {8: [], 32: []}
    for number in range(rounds):
        for clients in (8, 32) if number % 2 else (32, 8):
            base, base_cpu = alone(detector, images, seconds)
            before = server.metric("process_cpu_seconds_total")
            load = server.load(images, clients, seconds)
            cpu = 1000 * (server.metric("process_cpu_seconds_total") - before) / max(1, load.statuses[200])
            base = (base + alone(detector, images, seconds)[0]) / 2
            ratios[clients].append(load.rate / base)
            loads[clients].append(load)
            print(f"  round {number + 1}: {clients} clients {load.rate:.1f}/s {dict(load.statuses)}, lost {load.lost}; "
                  f"Detector {base:.1f}/s; CPU {cpu:.1f} and {base_cpu:.1f} ms an image", flush=True)  # fmt: skip
    for clients, found in loads.items():
        whole = Load(seconds={200: [each for load in found for each in load.seconds[200]]})
        rate, ratio = statistics.median(load.rate for load in found), statistics.median(ratios[clients])
        print(f"{clients} clients: {rate:.1f} images/s, {ratio:.2f} of the Detector at batch {BATCH}; "
              f"{whole.percentiles()}")  # fmt: skip


def overload(model: str, images: Sequence[bytes], seconds: float) -> None:
    """Print what requests get that come at twice the rate that the server can answer, whether it answers or not."""
    server = Server(model, "--queue", "16")
    server.load(images, 4, 1)
    capacity = server.load(images, 16, 3).rate
    load = Load()

    async def one(image: bytes) -> None:
        begun = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                         b"Content-Length: %d\r\n\r\n" % len(image) + image)  # fmt: skip
            answer = await reader.read()
            load.add(int(answer[9:12]), time.perf_counter() - begun)
            writer.close()
        except (OSError, ValueError):
            load.lost += 1

    async def arrivals() -> None:
        start = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(round(2 * capacity * min(seconds, MOST_SECONDS))):
                await asyncio.sleep(start + number / (2 * capacity) - time.perf_counter())
                tasks.create_task(one(images[number % len(images)]))

    start = time.perf_counter()
    asyncio.run(arrivals())
    load.took = time.perf_counter() - start
    print(f"overload: capacity {capacity:.1f} images/s, {2 * capacity:.1f} requests/s: {dict(load.statuses)}, lost "
          f"{load.lost}; answered {load.rate:.1f}/s, {load.percentiles()}; refused "
          f"{load.percentiles(503)}")  # fmt: skip
    server.stop()


def memory(server: Server, images: Sequence[bytes], requests: int) -> None:
    """Print the memory of the server over many requests."""
    smallest = [min(images, key=len)]
    server.load(smallest, 8, 5)
    before = start = server.metric("process_resident_memory_bytes")
    done, until = 0, time.perf_counter() + MOST_SECONDS
    marks = []
    while done < requests and time.perf_counter() < until:
        load = server.load(smallest, 8, until - time.perf_counter(), min(requests - done, max(1, requests // 10)))
        done += sum(load.statuses.values())
        marks.append(server.metric("process_resident_memory_bytes"))
    text = ", ".join(f"{mark / 2**20:.0f}" for mark in marks)
    print(f"memory: {start / 2**20:.0f} MB, after {done} requests {marks[-1] / 2**20:.0f} MB "
          f"({(marks[-1] - before) / 2**20:+.1f}); on the way {text}")  # fmt: skip


def slow_clients(server: Server, images: Sequence[bytes], seconds: float) -> None:
    """Print the answers of 8 clients alone, and beside 200 connections that send a byte a second."""

    async def slowloris() -> Load:
        pairs = [await asyncio.open_connection(server.host, server.port) for _ in range(200)]

        async def drip() -> None:
            while True:
                for _, writer in pairs:
                    if not writer.is_closing():
                        writer.write(b"a")
                await asyncio.sleep(1)

        for _, writer in pairs:
            writer.write(b"POST /v1/detect HTTP/1.1\r\nX-A: ")
        dripping = asyncio.create_task(drip())
        load = await asyncio.to_thread(server.load, images, 8, seconds)
        dripping.cancel()
        for _, writer in pairs:
            writer.close()
        return load

    free, load = server.load(images, 8, seconds), asyncio.run(slowloris())
    print(f"slowloris: 8 clients {free.rate:.1f}/s, {free.percentiles()}; beside 200 slow connections "
          f"{load.rate:.1f}/s, {load.percentiles()}, lost {load.lost}")  # fmt: skip


def fuzz(server: Server, image: bytes, requests: int) -> None:
    """Print what damaged requests get. Raises AssertionError for a 500 or a server that has ended."""
    draw, kinds = np.random.default_rng(1), list(genuine(image, "m"))
    statuses: Counter[str] = Counter()

    async def run() -> None:
        limit = asyncio.Semaphore(16)

        async def one(number: int) -> None:
            content = damaged(draw, kinds, number)
            async with limit:
                answer = await server.raw(content)
            statuses[answer[9:12].decode("ascii", "replace") or "closed"] += 1
            assert answer[9:10] != b"5" or answer[9:12] == b"503", (content[:300], answer[:400])

        until = time.perf_counter() + MOST_SECONDS
        for start in range(0, requests, 500):
            if time.perf_counter() < until:
                await asyncio.gather(*(one(n) for n in range(start, min(start + 500, requests))))

    asyncio.run(run())
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    print(f"damaged requests: {sum(statuses.values())}: {dict(sorted(statuses.items()))}")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("model")
    words.add_argument("images", nargs="+", type=Path)
    words.add_argument("--seconds", type=float, default=10)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--requests", type=int, default=100_000)
    words.add_argument("--mutated", type=int, default=10_000)
    given = words.parse_args()
    images = [path.read_bytes() for path in given.images]
    server = Server(given.model, "--timeout", "600")  # on a busy machine too, all are answered
    load = server.load(images[:1], 1, 60, 1)
    print(f"start to first answer: {time.perf_counter() - server.start:.2f} s ({dict(load.statuses)})", flush=True)
    if given.rounds:
        throughput(server, given.model, images, given.seconds, given.rounds)
    if given.requests:
        memory(server, images, given.requests)
    slow_clients(server, images, given.seconds)
    if given.mutated:
        fuzz(server, min(images, key=len), given.mutated)
    said = server.stop()
    assert "Traceback" not in said, said
    overload(given.model, images, given.seconds)


if __name__ == "__main__":
    main()
