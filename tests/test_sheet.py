"""A wrong row becomes a failed slide; a sheet that cannot be read is an error."""

import pytest

from gigaseg.errors import SheetError
from gigaseg.sheet import read_sheet


def write(tmp_path, text):
    path = tmp_path / "slides.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_keep_their_order_and_paths_are_relative_to_the_sheet(tmp_path):
    sheet = write(tmp_path, "# a comment\nslide\tpath\tpreset\tgroup\nb\tx/b.svs\t\tcase\n\na\t/abs/a.svs\tbuildings\n")
    rows, bad = read_sheet(sheet, ["nuclei", "buildings"])
    assert [(row.slide, row.preset, row.group, row.line) for row in rows] == [
        ("b", "nuclei", "case", 3),
        ("a", "buildings", None, 5),
    ]
    assert rows[0].path == tmp_path / "x/b.svs"
    assert str(rows[1].path) == "/abs/a.svs"
    assert bad == []


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("../up\tx.svs", ["slide is '../up'", "letters, digits"]),
        ("-rf\tx.svs", ["slide is '-rf'"]),
        (".\tx.svs", ["slide is '.'"]),
        ("a b\tx.svs", ["slide is 'a b'"]),
        ("\tx.svs", ["slide is ''"]),
        ("a\t", ["path of slide 'a' is empty"]),
        ("a\tx.svs\tnucle", ["unknown preset 'nucle'", "did you mean 'nuclei'?"]),
        ("a\tx.svs\t\tnan", ["pixel_size is 'nan'", "a positive number or px"]),
        ("a\tx.svs\t\t-1", ["pixel_size is '-1'"]),
        ("Cohort.tsv\tx.svs", ["slide is 'Cohort.tsv'", "a name that the results folder needs"]),
        ("a\tx.svs\t\t0.5\textra", ["5 cells under 4 columns"]),
    ],
)
def test_a_wrong_row_is_told_with_its_line_and_the_others_go_on(tmp_path, row, words):
    sheet = write(tmp_path, f"slide\tpath\tpreset\tpixel_size\ngood\ty.svs\t\tpx\n{row}\n")
    rows, (bad,) = read_sheet(sheet, ["nuclei"])
    assert [row.slide for row in rows] == ["good"]
    assert "line 3" in bad.reason
    for word in words:
        assert word in bad.reason


def test_a_duplicate_name_fails_alone_also_when_it_differs_in_case(tmp_path):
    sheet = write(tmp_path, "slide\tpath\na\tx.svs\nb\ty.svs\nA\tz.svs\n")
    rows, (bad,) = read_sheet(sheet, ["nuclei"])
    assert [row.slide for row in rows] == ["a", "b"]
    assert bad.slide == "A (line 4)"
    assert "already on line 2" in bad.reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("slide\tpaht\n", "did you mean 'path'?"),
        ("slide\n", "column 'path' occurs 0 times"),
        ("slide\tpath\tpath\n", "occurs 2 times"),
        ("slide\tpath\tgroup\tgroup\n", "column 'group' occurs 2 times"),
        ("slide,path\n", "separated by tabs"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_sheet_that_cannot_be_read_is_an_error(tmp_path, text, words):
    with pytest.raises(SheetError, match=r"slides\.tsv") as caught:
        read_sheet(write(tmp_path, text), ["nuclei"])
    assert words in str(caught.value)


def test_a_quotation_mark_in_a_cell_hides_no_row(tmp_path):
    sheet = write(tmp_path, 'slide\tpath\tgroup\na\ta.svs\t"5 in\nb\tb.svs\tx\nc\tc.svs\t\n')
    rows, bad = read_sheet(sheet, ["nuclei"])
    assert [(row.slide, row.group) for row in rows] == [("a", '"5 in'), ("b", "x"), ("c", None)]
    assert bad == []


def test_a_sheet_from_a_spreadsheet_is_read(tmp_path):
    sheet = write(tmp_path, b"\xef\xbb\xbfslide\tpath\r\na\tx.svs\r\n")
    rows, _ = read_sheet(sheet, ["nuclei"])
    assert rows[0].path.name == "x.svs"


def test_a_missing_sheet_is_an_error(tmp_path):
    with pytest.raises(SheetError, match="cannot be read"):
        read_sheet(tmp_path / "none.tsv", ["nuclei"])
