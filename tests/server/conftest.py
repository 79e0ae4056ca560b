"""What the tests of the server share: one server of the trained run, and the detector that is its oracle."""

import pytest

from lookonce import Detector, read_dataset
from served import serving


@pytest.fixture(scope="session")
def detector(run):
    return Detector(run, "openvino", throughput=True)


@pytest.fixture(scope="session")
def files(squares):
    return [record.path for record in read_dataset(squares, "test").records]


@pytest.fixture(scope="session")
def server(run):
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    with serving({"squares": lambda: Detector(run, "openvino", throughput=True)}, queue=300) as running:
        yield running


@pytest.fixture(scope="session")
def http(server):
    import httpx

    with httpx.Client(base_url=server.url, limits=httpx.Limits(max_connections=100), timeout=30) as client:
        yield client
