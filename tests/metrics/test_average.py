"""Means over the reports of runs."""

import json
from math import isnan, nan

import pytest

from gigaseg.cli import main
from gigaseg.errors import ConfigError, FormatError
from gigaseg.metrics.average import average
from gigaseg.metrics.report import MEAN, Figure, Report


@pytest.fixture
def reports(tmp_path):
    """Three runs: one figure in all, one undefined in a run, one absent from two."""

    def write(name, values, **settings):
        path = tmp_path / name / "test.json"
        path.parent.mkdir()
        figures = {key: Figure(value, MEAN, 3) for key, value in values.items()}
        Report("p", "t", ("a",), figures, [values], {"method": "m", "layout": "l", **settings}).write(path)
        return path

    return [
        write("A", {"pq": 0.5, "dead": nan}),
        write("B", {"pq": 0.6, "dead": 0.2}),
        write("C", {"pq": 0.7, "dead": 0.4, "other": 1.0}),
    ], write


def test_each_run_counts_once_and_undefined_figures_are_left_out(reports, tmp_path, capsys):
    paths, _ = reports
    found = average(paths)
    assert (found["pq"].value, found["pq"].sd, found["pq"].runs) == pytest.approx((0.6, 0.1, 3))
    assert (found["dead"].value, found["dead"].runs) == pytest.approx((0.3, 2))
    assert (found["other"].value, found["other"].runs) == (1, 1)
    assert isnan(found["other"].sd)
    assert main(["average", *map(str, paths), "--out", str(tmp_path / "mean.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["figure", "mean", "sd", "run", "1", "run", "2", "run", "3"]
    assert lines[3].split() == ["dead", "0.3000", "0.1414", "-", "0.2000", "0.4000"]
    written = json.loads((tmp_path / "mean.json").read_text())
    assert written["figures"]["dead"]["values"] == [None, 0.2, 0.4]
    assert written["figures"]["other"]["sd"] is None


def test_what_cannot_be_averaged_is_told_in_one_line(reports, tmp_path):
    paths, write = reports
    with pytest.raises(ConfigError, match="1 report, expected two or more"):
        average(paths[:1])
    with pytest.raises(ConfigError, match=r"test\.json: given twice, expected reports of different runs"):
        average([paths[0], paths[0].parent / ".." / "A" / "test.json"])
    with pytest.raises(ConfigError, match=r"D/test\.json: layout is other, expected l, as the other reports have it"):
        average([paths[0], write("D", {"pq": 1.0}, layout="other")])
    for text, told in (
        ("{", "cannot be read as a report"),
        ("[]", "is no report"),
        ('{"format": "gigaseg/scores/1", "settings": {}, "figures": {"pq": {"value": "x"}}}', "figure pq is 'x'"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(FormatError, match=rf"bad\.json: {told}"):
            average([paths[0], tmp_path / "bad.json"])
    with pytest.raises(FormatError, match=r"none\.json: cannot be read as a report"):
        average([paths[0], tmp_path / "none.json"])
