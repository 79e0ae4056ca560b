"""Tests of lookonce.inference.lake.ledger."""

import json

from lookonce.inference.lake.ledger import Ledger


def test_events_come_back_in_order_as_lines_of_json(tmp_path):
    ledger = Ledger(tmp_path)
    assert list(ledger.read()) == []
    ledger.write("begun", shard=3)
    ledger.write("done", shard=3, images=7)
    assert [(event["event"], event["shard"]) for event in ledger.read()] == [("begun", 3), ("done", 3)]
    assert [json.loads(line)["shard"] for line in ledger.file.read_text().splitlines()] == [3, 3]


def test_a_line_that_was_cut_off_harms_no_other(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.write("begun", shard=1)
    with ledger.file.open("ab") as file:
        file.write(b'{"event": "done", "sha')
    ledger.write("done", shard=2)
    assert [event["shard"] for event in ledger.read()] == [1, 2]
