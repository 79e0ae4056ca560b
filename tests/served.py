"""A server of this package in a thread of the test process, on a port of its own."""

import asyncio
import threading
import time
from contextlib import contextmanager


class Running:
    """A server that runs: its address, its service, and a way to end it as a signal would."""

    def __init__(self, server, address, thread):
        self.server, self.url, self._thread = server, address, thread
        self.shared = server.shared

    def signal(self, number):
        self.server.config.loop_of_tests.call_soon_threadsafe(self.server._signalled, number)

    def join(self):
        self._thread.join(60)
        state = self.server.server_state
        batchers = [vars(model.engine.batcher) for model in self.shared.models.values()]
        assert not self._thread.is_alive(), (len(state.connections), state.tasks, batchers)


@contextmanager
def serving(models, token=None, label_studio=None, host="127.0.0.1", **limits):
    """Serve {name: function that opens a detector}. Ends the server when the block ends."""
    from lookonce.server.api import Service
    from lookonce.server.app import Access
    from lookonce.server.connections import Server, listen
    from lookonce.server.limits import Limits
    from lookonce.server.metrics import Metrics
    from lookonce.server.models import ServedModel

    made, metrics = Limits(**limits), Metrics()
    served = {n: ServedModel(n, opening, made, metrics.batches.labels(n).observe) for n, opening in models.items()}
    with listen(host, 0) as sock:
        server = Server(Service(served, made, metrics, token is not None), Access(host, token, label_studio))

        async def main():
            server.config.loop_of_tests = asyncio.get_running_loop()
            await server.serve([sock])

        thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
        thread.start()
        for _ in range(2000):
            if server.started:
                break
            time.sleep(0.005)
        assert server.started
        running = Running(server, f"http://{host}:{sock.getsockname()[1]}", thread)
        try:
            yield running
        finally:
            server.should_exit = True
            running.join()


class Held:
    """A backend that computes what another does, when the test lets it: `gate` is a threading.Event."""

    def __init__(self, backend):
        self._backend, self.info, self.about = backend, backend.info, backend.about
        self.gate, self.calls = threading.Event(), 0
        self.gate.set()

    def __call__(self, images):
        self.calls += 1
        assert self.gate.wait(20)
        return self._backend(images)


def until(condition):
    """Wait until a condition holds."""
    for _ in range(4000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("never came true")
