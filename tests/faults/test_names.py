"""Paths and names that a shell, a wildcard or a file system could misread."""

import csv
import json
import shutil

import pytest

from cohorts import ONE_SHARD, ROOT, Cohort, preset, write_slide
from gigaseg.errors import SheetError
from gigaseg.sheet import BadRow, read_sheet
from gigaseg.testing.faults import attempt

PATHS = [
    'it\'s "quoted" größe µ 細胞.tif',
    "-dash {slide} %s*?[x].tif",
    "$(touch escaped) `touch escaped`;&|!.tif",
]


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if ".snakemake" not in path.parts}


def test_odd_paths_through_the_workflow_into_a_folder_with_spaces(tmp_path):
    """Each slide is read, and nothing is written outside the folder of results."""
    shutil.copy(ROOT / "config.yaml", tmp_path)
    cohort = Cohort(tmp_path)
    slides = tmp_path / "my slides"
    slides.mkdir()
    write_slide(slides / "one.tif", 1, size=(150, 150))
    for name in PATHS[1:]:
        shutil.copy(slides / "one.tif", slides / name)
        shutil.copy(slides / "one.geojson", (slides / name).with_suffix(".geojson"))
    (slides / "one.tif").rename(slides / PATHS[0])
    (slides / "one.geojson").rename((slides / PATHS[0]).with_suffix(".geojson"))
    rows = [(f"s{i}", f"my slides/{name}", f"my slides/{name[:-4]}.geojson") for i, name in enumerate(PATHS)]
    bad = [
        ("../out", rows[0][1], ""),
        ("/tmp/out", rows[0][1], ""),
        ("..", rows[0][1], ""),
        ("x" * 200, rows[0][1], ""),
    ]
    cohort.sheet(*rows, *bad, header="slide\tpath\tannotations")
    cohort.configure(results="my results $(touch escaped)", presets={"nuclei": preset(tiles=ONE_SHARD, export=[])})
    before = files_of(tmp_path)
    done = cohort.snakemake()
    assert done.returncode == 0, done.stderr[-3000:]
    results = tmp_path / "my results $(touch escaped)"
    with (results / "cohort.tsv").open() as stream:
        found = {row["slide"]: row for row in csv.DictReader(stream, delimiter="\t")}
    for name, path, _ in rows:
        assert found[name]["status"] == "ok", (path, found[name])
        assert found[name]["instances"] == found["s0"]["instances"] != "0"
    failed = {name for name, row in found.items() if row["status"] == "failed"}
    assert len(failed) == len(bad)
    new = {path for path in files_of(tmp_path) - before if not path.startswith(results.name)}
    assert new == set()


@pytest.mark.parametrize("name", [*PATHS, "new\nline.tif"])
def test_odd_paths_by_hand(tmp_path, name):
    write_slide(tmp_path / "s.tif", 1, size=(150, 150))
    (tmp_path / "s.tif").rename(tmp_path / name)
    before = {*(path.name for path in tmp_path.iterdir())}
    done = attempt(["inspect", "--out=s.json", "--slide=s", "--", name], folder=tmp_path)
    assert (done.code, done.errors) == (0, [])
    assert json.loads((tmp_path / "s.json").read_text())["path"] == name
    done = attempt(["grid", "s.json", "--out=g.parquet", "--foreground=f.tif", "--method=all"], folder=tmp_path)
    assert (done.code, done.errors) == (0, [])
    done = attempt(["inspect", "--out=x.json", "--slide=s", "--", name + "x"], folder=tmp_path)
    assert done.code == 2
    assert len(done.errors) == 1, done
    assert {*(path.name for path in tmp_path.iterdir())} - before == {"s.json", "g.parquet", "f.tif"}


@pytest.mark.parametrize("path", ["nul\0.tif", "x" * 300 + ".tif", "a/" * 3000 + "x.tif", "/dev/null", "/dev"])
def test_paths_that_no_slide_can_have(tmp_path, path):
    done = attempt(["inspect", path, "--out=s.json"], folder=tmp_path)
    assert done.code == 2, done
    assert len(done.errors) == 1, done
    assert not list(tmp_path.iterdir())


def test_a_disk_that_cannot_be_read_is_no_fault_of_the_slide(tmp_path):
    done = attempt(["inspect", "/proc/self/mem", "--out=s.json", "--record-failure"], folder=tmp_path)
    assert done.code == 1, "the job comes again"
    assert done.errors == ["gigaseg inspect: /proc/self/mem: cannot be read (Input/output error)"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        ".",
        "..",
        "a/b",
        "a\\b",
        "nul\0",
        "x" * 129,
        "-x",
        "~",
        "$(x)",
        "a b",
        "x\u202ey",
        "ä",
        "{slide}",
        "cohort.tsv",
        "",
    ],
)
def test_slide_names_that_are_no_folder_of_ours(tmp_path, name):
    sheet = tmp_path / "slides.tsv"
    sheet.write_text(f"slide\tpath\n{name}\tx.tif\nfine\ty.tif\n")
    rows, bad = read_sheet(sheet, ["nuclei"])
    assert [row.slide for row in rows] == ["fine"]
    (row,) = bad
    assert isinstance(row, BadRow)
    assert "line 2" in row.reason
    assert len(row.reason.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe" + "slide\tpath\n".encode("utf-16-le"), b"slide\tpath\nx\xe4\ty\n", b"slide,path\nx,y\n",
     b"path\nx\n", b"slide\tslide\tpath\nx\ty\tz\n", b"\0\0\0"],
)  # fmt: skip
def test_sheets_that_are_none(tmp_path, content):
    sheet = tmp_path / "slides.tsv"
    sheet.write_bytes(content)
    with pytest.raises(SheetError) as caught:
        read_sheet(sheet, ["nuclei"])
    (line,) = str(caught.value).splitlines()
    assert line.startswith(str(sheet))


def test_a_sheet_whose_paths_hold_what_no_path_can_is_a_failed_row(tmp_path):
    shutil.copy(ROOT / "config.yaml", tmp_path)
    cohort = Cohort(tmp_path)
    cohort.configure(presets={"nuclei": preset()})
    cohort.sheet(("a", "nul\0.tif", ""), ("b", "x" * 300, ""), ("c", "d", "n\0"), header="slide\tpath\tannotations")
    done = cohort.snakemake("--dry-run")
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
