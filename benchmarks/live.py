"""Run live mode with a camera that is faster than the network, and report the age of frames and memory by minute.

    python benchmarks/live.py --model runs/digits-1 --minutes 10

An MJPEG server on this machine plays a moving square at twice the rate that the network reaches. `lookonce detect`
reads it as it reads any stream. Memory (VmRSS) is that of this process alone; the server is another one.
"""

from __future__ import annotations

import argparse
import http.server
import io
import json
import multiprocessing
import re
import tempfile
import time
from pathlib import Path
from threading import Thread

import numpy as np
from PIL import Image

from lookonce.commands.detect import detect
from lookonce.commands.moving import _Work
from lookonce.inference.detector import Detector

SIZE = 320, 240
PERIOD = 60
"""Different frames that the camera shows in turn."""


def play(rate: float, seconds: float, port: multiprocessing.Queue) -> None:
    """Serve the camera for so many seconds."""
    frames = []
    for n in range(PERIOD):
        pixels = np.full((SIZE[1], SIZE[0], 3), 230, np.uint8)
        pixels[80:160, 4 * n : 4 * n + 60] = (220, 30, 30)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "JPEG")
        frames.append(content.getvalue())

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            begin, n = time.monotonic(), 0
            try:
                while time.monotonic() < end:
                    time.sleep(max(0, begin + n / rate - time.monotonic()))
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frames[n % PERIOD])}\r\n\r\n"
                    self.wfile.write(head.encode() + frames[n % PERIOD] + b"\r\n")
                    n += 1
            except OSError:
                return

        def log_message(self, *_: object) -> None:
            pass

    end = time.monotonic() + seconds
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    port.put(server.server_address[1])
    Thread(target=server.serve_forever, daemon=True).start()
    time.sleep(seconds)


def memory() -> float:
    """Megabytes of this process."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def network_rate(model: str, seconds: float = 5) -> float:
    """Frames a second of detection, one at a time."""
    detector, frame = Detector(model, throughput=True), np.full((SIZE[1], SIZE[0], 3), 230, np.uint8)
    detector.detect([frame])
    begin, n = time.monotonic(), 0
    while time.monotonic() < begin + seconds:
        detector.detect([frame])
        n += 1
    return n / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--faster", type=float, default=2, help="rate of the camera, times that of the network")
    options = parser.parse_args()
    rate = options.faster * network_rate(options.model)
    port: multiprocessing.Queue = multiprocessing.Queue()
    camera = multiprocessing.Process(target=play, args=(rate, 60 * options.minutes + 120, port), daemon=True)
    camera.start()
    address = f"http://127.0.0.1:{port.get()}/camera.mjpg"
    begin, minutes, plain = time.monotonic(), [], _Work.add
    print(f"camera: {rate:.1f} frames a second, {options.faster:g} times the network", flush=True)

    def add(self, frame, found):
        """Keep the highest age of each minute."""
        drawn = plain(self, frame, found)
        age, minute = time.monotonic() - frame.arrived, int((time.monotonic() - begin) / 60)
        while len(minutes) <= minute:
            if minutes:
                print(f"minute {len(minutes)}: {json.dumps(minutes[-1])}", flush=True)
            minutes.append({"frames": 0, "highest_age_ms": 0.0, "longest_detection_ms": 0.0, "memory_mb": 0.0})
        now = minutes[minute]
        now["frames"] += 1
        now["highest_age_ms"] = round(max(now["highest_age_ms"], 1000 * age), 1)
        now["longest_detection_ms"] = round(max(now["longest_detection_ms"], 1000 * spent[-1]), 1)
        now["memory_mb"] = round(memory(), 1)
        return drawn

    def detecting(self, images, selection=None):
        start = time.perf_counter()
        found = plain_detect(self, images, selection)
        spent[:] = [time.perf_counter() - start]
        return found

    spent, plain_detect = [0.0], Detector.detect
    _Work.add, Detector.detect = add, detecting
    with tempfile.TemporaryDirectory() as folder:
        try:
            print(detect(options.model, [address], out=Path(folder) / "out", track=True, end=60 * options.minutes))
        finally:
            for n, each in enumerate(minutes, 1):
                print(f"minute {n}: {json.dumps(each)}")
            camera.terminate()


if __name__ == "__main__":
    main()
