"""Tests of lookonce.data.other_formats."""

from lookonce.data.other_formats import describe_folder, name_tool


def test_a_file_of_no_tool_is_named_nothing(tmp_path):
    (tmp_path / "package.json").write_text('{"name": "x"}')
    (tmp_path / "a.xml").write_text("<project/>")
    assert name_tool(tmp_path / "package.json") is None
    assert name_tool(tmp_path / "a.xml") is None
    assert name_tool(tmp_path / "gone.json") is None
    assert name_tool(tmp_path / "notes") is None


def test_files_are_counted_by_folder_and_ending(tmp_path):
    assert describe_folder(tmp_path) == "there are no files"
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "b.JPG", "sub/c.png", "sub/LICENSE", ".DS_Store"):
        (tmp_path / name).touch()
    assert describe_folder(tmp_path) == "there are 2 .jpg; sub/: 1 without ending, 1 .png"


def test_cvats_xml_is_named_whatever_stands_before_its_root(tmp_path):
    file = tmp_path / "annotations.xml"
    file.write_text('<?xml version="1.0"?>\n<!-- <annotation> -->\n<annotations>')
    assert "CVAT" in name_tool(file)
