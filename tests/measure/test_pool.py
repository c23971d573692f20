"""Cohorts: rows of slides and regions, and distributions of all instances together in bounded memory."""

import csv
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gigaseg.errors import FormatError
from gigaseg.files import write_failure, write_json, write_parquet
from gigaseg.measure.aggregate import aggregate, read_cohort
from gigaseg.measure.pool import Source, pool
from gigaseg.measure.sketch import Sketch

QUANTILES = (0.05, 0.5, 0.95)


def write_measurements(path, classes=("a", "b"), n=1000, seed=0, **columns):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, len(classes), n).astype(np.int32)
    table = {
        "instance": pa.array(np.arange(1, n + 1)),
        "class": pa.DictionaryArray.from_arrays(pa.array(index), pa.array(classes, pa.string())),
        "area_um2": pa.array(rng.lognormal(4, 1, n)),
        "nn_distance_um": pa.array(np.where(rng.random(n) < 0.1, np.nan, rng.random(n)), from_pandas=True),
        "centroid_x_px": pa.array(rng.random(n)),
        "region": pa.array(np.array(["left", None], object)[np.arange(n) % 3 // 2]),
        **columns,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(path, pa.table(table), {"format": "gigaseg/measurements/1"})


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float64, st.integers(1, 200), elements=st.floats(-1e6, 1e6) | st.floats(-1e-3, 1e-3) | st.just(np.nan)),
    st.integers(1, 5),
    st.floats(0, 1),
)
def test_quantiles_of_a_sketch_are_within_one_in_2000_however_it_was_fed(values, parts, q):
    sketch = Sketch()
    for part in np.array_split(values, parts):
        sketch.add(part)
    known = values[np.isfinite(values)]
    assert sketch.count == len(known)
    if not len(known):
        assert sketch.quantile(q) is sketch.mean is sketch.sd is None
        return
    exact = np.sort(known)[max(int(np.ceil(q * len(known) - 1e-9)), 1) - 1]
    assert sketch.quantile(q) == pytest.approx(exact, rel=5e-4, abs=1e-37)
    assert sketch.mean == pytest.approx(known.mean(), rel=1e-9, abs=1e-9)
    assert (sketch.low, sketch.high) == (known.min(), known.max())
    if len(known) > 1:
        assert sketch.sd == pytest.approx(known.std(ddof=1), rel=1e-9, abs=1e-9)


def test_a_cohort_is_pooled_by_preset_group_region_and_class(tmp_path):
    groups = ["x", "x", "y"]
    sources = []
    for i, group in enumerate(groups):
        sources.append(Source(tmp_path / f"{i}.parquet", "nuclei", group))
        write_measurements(sources[-1].path, seed=i, n=500 * (i + 1))
    write_failure(tmp_path / "bad.parquet", "segment", "no weights")
    rows = pool([*sources, Source(tmp_path / "bad.parquet", "nuclei", "y")], tmp_path / "out.tsv", QUANTILES)
    assert {(row["group"], row["region"], row["class"], row["measurement"]) for row in rows} == {
        (group, region, label, name)
        for group in "xy"
        for region in ("", "left")
        for label in ("", "a", "b")
        for name in ("area_um2", "nn_distance_um")
    }
    assert len(rows) == 24
    tables = [pq.read_table(source.path).to_pandas() for source in sources]
    for row in rows:
        values = np.concatenate(
            [
                table[
                    ((table["class"] == row["class"]) | (row["class"] == ""))
                    & ((table["region"] == row["region"]) | (row["region"] == ""))
                ][row["measurement"]]
                for table, group in zip(tables, groups)
                if group == row["group"]
            ]
        )
        values = values[np.isfinite(values)]
        assert row["n"] == len(values)
        assert row["slides"] == groups.count(row["group"])
        assert row["mean"] == pytest.approx(values.mean())
        assert row["q95"] == pytest.approx(np.quantile(values, 0.95, method="inverted_cdf"), rel=5e-4)
    with (tmp_path / "out.tsv").open() as stream:
        assert len(list(csv.DictReader(stream, delimiter="\t"))) == len(rows)


def test_a_slide_of_one_class_gives_no_rows_twice(tmp_path):
    write_measurements(tmp_path / "a.parquet", classes=("nucleus",))
    rows = pool([Source(tmp_path / "a.parquet")], tmp_path / "out.tsv", QUANTILES)
    assert [(row["region"], row["class"]) for row in rows] == [("", ""), ("left", "")] * 2


def test_a_damaged_table_is_named(tmp_path):
    write_measurements(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"a\.parquet"):
        pool([Source(tmp_path / "a.parquet")], tmp_path / "out.tsv", QUANTILES)


def summary(instances, regions=None):
    numbers = {
        "instances": instances,
        "foreground_mm2": 2.0,
        "density_per_mm2": instances / 2,
        "classes": {
            "a": {
                "instances": instances,
                "fraction": 1.0,
                "density_per_mm2": instances / 2,
                "measurements": {"area_um2": {"mean": 5.0, "sd": 1.0, "q5": 2.0}},
            },
            "b": {"instances": 0, "fraction": 0.0, "density_per_mm2": 0.0},
        },
        "ratios": {"a/b": None},
        "measurements": {"area_um2": {"mean": 5.0, "sd": 1.0, "q50": 4.0, "q95": 8.0}},
    }
    return {
        "format": "gigaseg/summary/1", "segmenter": "s", "unit": "um", "mean_score": 0.5, "flags": [],
        **numbers,
        "regions": {name: {**numbers, "instances": count} for name, count in (regions or {}).items()},
    }  # fmt: skip


def test_regions_have_rows_after_their_slide_and_failed_slides_one(tmp_path):
    write_json(tmp_path / "one" / "summary.json", summary(9, regions={"tumour": 4, "stroma": 5}))
    write_json(tmp_path / "two" / "summary.json", summary(3))
    write_failure(tmp_path / "bad" / "summary.json", "grid", "no tissue")
    paths = [(name, tmp_path / name / "summary.json") for name in ("one", "two", "bad")]
    aggregate(paths, tmp_path / "cohort.tsv", tmp_path / "cohort.parquet", labels={"one": {"group": "g"}})
    rows = read_cohort(tmp_path / "cohort.tsv")
    assert [(row["slide"], row["region"], row["instances"]) for row in rows] == [
        ("one", "", "9"), ("one", "tumour", "4"), ("one", "stroma", "5"), ("two", "", "3"), ("bad", "", ""),
    ]  # fmt: skip
    assert [row["group"] for row in rows[:3]] == ["g"] * 3
    assert rows[1]["density_per_mm2_a"] == "4.5"
    assert rows[1]["area_um2_median"] == "4"
    assert rows[1]["instances_a"] == "9"
    assert "area_um2_q95" not in rows[0]
    table = pq.read_table(tmp_path / "cohort.parquet")
    assert table["area_um2_q95"].to_pylist() == [8, 8, 8, 8, None]
    assert table["area_um2_q5_a"].to_pylist() == [2, 2, 2, 2, None]
    assert table["region"].to_pylist() == [None, "tumour", "stroma", None, None]


def test_the_pool_has_the_quantiles_of_the_summaries_and_the_median(tmp_path, caplog):
    for name in ("a", "bad"):
        write_measurements(tmp_path / name / "measurements.parquet")
    content = summary(9)
    content["measurements"]["area_um2"] = {"mean": 5.0, "sd": 1.0, "q2.5": 1.0, "q90": 8.0}
    write_json(tmp_path / "a" / "summary.json", content)
    write_failure(tmp_path / "bad" / "measurements.parquet", "grid", "no tissue")
    write_failure(tmp_path / "bad" / "summary.json", "grid", "no tissue")
    paths = [(name, tmp_path / name / "summary.json") for name in ("a", "bad")]
    with caplog.at_level("INFO"):
        aggregate(paths, tmp_path / "cohort.tsv", tmp_path / "cohort.parquet", pooled=tmp_path / "pool.tsv")
    names = (tmp_path / "pool.tsv").read_text().splitlines()[0].split("\t")
    assert names[-5:] == ["min", "q2.5", "q50", "q90", "max"]
    assert "measurements of 1 slides pooled, 1 failed left out" in caplog.text


def test_the_memory_of_a_cohort_does_not_grow_with_its_slides(tmp_path):
    regions = {f"region {i}": 3 for i in range(20)}
    write_json(tmp_path / "summary.json", summary(9, regions))
    peak = []
    for slides in (40, 160):
        paths = [(f"{i}", tmp_path / "summary.json") for i in range(slides)]
        tracemalloc.start()
        aggregate(paths, tmp_path / "cohort.tsv", tmp_path / "cohort.parquet")
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pq.read_metadata(tmp_path / "cohort.parquet").num_rows == 21 * slides
    assert peak[1] < 1.2 * peak[0]
