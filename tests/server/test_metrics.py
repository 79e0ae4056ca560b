"""Tests of lookonce.server.metrics."""

import pytest

pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
from prometheus_client.parser import text_string_to_metric_families


def test_prometheus_reads_them(http, files):
    http.post("/v1/detect", content=files[0].read_bytes())
    families = {each.name: each for each in text_string_to_metric_families(http.get("/metrics").text)}
    assert {"lookonce_requests", "lookonce_images", "lookonce_stage_seconds", "lookonce_queue_images",
            "lookonce_batch_images", "lookonce_rejected", "lookonce_requests_running"} <= set(families)  # fmt: skip
    stages = {sample.labels["stage"] for sample in families["lookonce_stage_seconds"].samples}
    assert stages == {"read", "decode", "queue", "network", "answer", "total"}


def test_memory_is_among_them_on_linux(http):
    import sys

    if sys.platform != "linux":
        pytest.skip("read from /proc")
    [line] = [x for x in http.get("/metrics").text.splitlines() if x.startswith("process_resident_memory_bytes ")]
    assert float(line.split()[1]) > 10 << 20


def test_addresses_that_do_not_exist_share_one_label(http):
    before = http.get("/metrics").text.count("lookonce_requests_total{")
    for n in range(20):
        http.get(f"/made/up/{n}")
    after = http.get("/metrics").text
    assert after.count("lookonce_requests_total{") <= before + 2
    assert "/made/up" not in after
