"""Mirrors src/lookonce/speed/noise.py."""

from lookonce import read_dataset
from lookonce.data.images import image_size
from lookonce.deploy.step_speed import write_set


def test_a_set_is_as_large_as_asked_and_its_boxes_lie_on_its_images(tmp_path):
    write_set(tmp_path / "set", 5, (400, 320), ["a", "b"], (2, 5))
    found = read_dataset(tmp_path / "set", "train")
    assert len(found) == 5
    assert set(found.labels) <= {"a", "b"}
    for record in found.records:
        assert image_size(record.path) == (400, 320)
        assert 2 <= len(record.boxes) <= 4
        assert record.boxes.min() >= 0
        assert (record.boxes[:, 2:].max(0) <= (400, 320)).all()


def test_images_may_be_written_by_someone_else(tmp_path, squares):
    image = (squares / "JPEGImages" / "test000.png").read_bytes()
    write_set(tmp_path / "set", 2, (400, 320), ["a"], (1, 2), lambda path, _: path.write_bytes(image))
    assert [p.read_bytes() for p in (tmp_path / "set" / "JPEGImages").iterdir()] == [image] * 2
