"""The examples of docs/formats.md run as they stand."""

import re
import warnings
from pathlib import Path

import pytest

from export_files import export_one
from gigaseg.export.formats import FORMATS

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def demo(measured, tmp_path_factory):
    """Working directory of a user whose slide `demo` is exported in all formats that the examples read."""
    folder = tmp_path_factory.mktemp("demo")
    files = (measured / "instances.parquet", measured / "measurements.parquet", measured / "slide.json")
    for name, format in FORMATS.items():
        if any(f"export/{format.file}" in example for example in EXAMPLES):
            export_one(files, name, folder / "results" / "demo" / "export")
    return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.split()[1].partition(".")[0])
def test_an_example_runs(demo, monkeypatch, capsys, example):
    monkeypatch.chdir(demo)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(example, "docs/formats.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_page_lists_every_format_with_its_file():
    table = [line for line in PAGE.splitlines() if line.startswith("| `")]
    names = {name for line in table for name in re.findall(r"`([^`]+)`", line.split("|")[1])}
    assert names == set(FORMATS)
    files = {file for line in table for file in re.findall(r"`([^`]+)`", line.split("|")[2])}
    assert files == {format.file for format in FORMATS.values()}
