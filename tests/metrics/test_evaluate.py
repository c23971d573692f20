from __future__ import annotations

import json
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from scipy.io import savemat

from gigaseg.errors import ConfigError, FormatError, UpstreamFailure
from gigaseg.files import write_failure
from gigaseg.instances.table import Instances
from gigaseg.metrics.evaluate import evaluate, score_folder
from gigaseg.metrics.images import read_labels, touching_ids
from gigaseg.metrics.instance import panoptic_quality
from gigaseg.metrics.overlap import Overlap
from gigaseg.metrics.score import score_labels
from gigaseg.slides.base import Level, Rendering, SlideInfo


def _png(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint16)).save(path)


def _folders(root: Path, crowd, seeds=(11, 21, 31)) -> tuple[Path, Path]:
    for seed in seeds:
        _png(root / "truth" / f"image{seed}.png", crowd(seed))
        _png(root / "found" / f"image{seed}.png", crowd(seed + 1))
    return root / "found", root / "truth"


def _geojson(path: Path, geometry, classes=None, crs: str | None = None) -> Path:
    features = [
        {"type": "Feature", "properties": {"class": c} if c else {}, "geometry": json.loads(shapely.to_geojson(g))}
        for g, c in zip(geometry, classes or [None] * len(geometry))
    ]
    head = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", **head, "features": features}))
    return path


def _instances(path: Path, geometry, classes=("nucleus",), class_index=None) -> Path:
    n = len(geometry)
    path.parent.mkdir(parents=True, exist_ok=True)
    Instances(
        geometry=np.array(geometry, dtype=object),
        score=np.linspace(1, 0.5, n).astype(np.float32),
        class_index=np.zeros(n, np.int32) if class_index is None else np.asarray(class_index, np.int32),
        class_prob=np.ones((n, len(classes)), np.float32),
        tile_row=np.zeros(n, np.int32),
        tile_col=np.zeros(n, np.int32),
        cut=np.zeros(n, np.uint8),
        prompt=np.full(n, -1),
        classes=tuple(classes),
        members=np.ones(n, np.int16),
    ).write(path, {"slide": "s"})
    return path


def _outlines(labels: np.ndarray) -> list[shapely.Geometry]:
    return [
        shapely.union_all([shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(labels == i)])
        for i in np.unique(labels)
        if i
    ]


def _slide_json(path: Path, crs: str, transform: tuple[float, ...]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    SlideInfo(
        slide="town", path="town.tif", kind="raster", reader="rasterio", vendor="GTiff", width=100, height=100,
        levels=(Level(100, 100, 1.0, 1.0),), channels=("r", "g", "b"), dtype="uint8", background=(0.0, 0.0, 0.0),
        rendering=Rendering((0, 1, 2)), pixel_size=(0.5, 0.5), pixel_size_source="metadata", unit="m", crs=crs,
        transform=transform, nodata=None, bounds=None, objective_power=None, fingerprint="x",
    ).write(path)  # fmt: skip
    return path


def test_folder_reports_the_mean_over_images_and_pooled_figures(tmp_path, crowd):
    found, truth = _folders(tmp_path, crowd)
    report = evaluate(found, truth, bootstrap=200)
    each = [score_labels(crowd(seed), crowd(seed + 1)) for seed in (11, 21, 31)]
    assert report.images == ("image11", "image21", "image31")
    for name in ("pixel_dice", "aji", "aji_plus", "pq", "seg", "object_dice", "f1_70"):
        figure = report.figures[name]
        assert figure.value == pytest.approx(np.mean([e[name] for e in each]))
        assert (figure.images, figure.over) == (3, "mean")
        assert figure.low <= figure.value <= figure.high
    overlaps = [Overlap.from_labels(crowd(seed), crowd(seed + 1)) for seed in (11, 21, 31)]
    both, t, p = (sum(o.covered[k] for o in overlaps) for k in range(3))
    assert report.figures["pixel_dice_pooled"].value == pytest.approx(2 * both / (t + p))
    assert report.figures["truth_objects"].value == sum(len(o.truth_ids) for o in overlaps)


def test_report_is_a_table_for_people_and_json_for_programs(tmp_path, crowd):
    found, truth = _folders(tmp_path, crowd)
    report = evaluate(found, truth, out=tmp_path / "scores.json", bootstrap=100)
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content == report.to_dict()
    assert content["figures"]["aji"]["value"] == report.figures["aji"].value
    assert [row["image"] for row in content["per_image"]] == list(report.images)
    lines = report.table().splitlines()
    assert lines[0].endswith("3 images")
    row = next(line for line in lines if line.startswith("aji "))
    assert row.split()[1] == f"{report.figures['aji'].value:.4f}"
    assert "95 % interval" in report.table()
    assert "95 % interval" not in evaluate(found, truth, bootstrap=0).table()


def test_truth_first_gives_the_same_report(tmp_path, crowd):
    found, truth = _folders(tmp_path, crowd)
    assert score_folder(truth, found, bootstrap=50).to_dict() == evaluate(found, truth, bootstrap=50).to_dict()


def test_images_without_truth_do_not_enter_pq_but_their_false_positives_are_shown(tmp_path, boxes):
    for name, truth, prediction in (("a", [(5, 5, 9, 9)], [(5, 5, 9, 9)]), ("b", [], [(5, 5, 9, 9), (30, 30, 5, 5)])):
        _png(tmp_path / "truth" / f"{name}.png", boxes(*truth))
        _png(tmp_path / "found" / f"{name}.png", boxes(*prediction))
    figures = evaluate(tmp_path / "found", tmp_path / "truth").figures
    assert (figures["pq"].value, figures["pq"].images) == (pytest.approx(1, abs=2e-6), 1)
    assert (figures["aji"].value, figures["aji"].images) == (0.5, 2)
    assert (figures["false_positives_without_truth"].value, figures["false_positives_without_truth"].images) == (2, 1)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".mat"])
def test_every_kind_of_label_file_scores_the_same(tmp_path, crowd, suffix):
    labels, path = crowd(12), tmp_path / f"found{suffix}"
    if suffix == ".png":
        _png(path, labels)
    elif suffix == ".tif":
        tifffile.imwrite(path, labels.astype(np.uint32), compression="zlib")
    elif suffix == ".npy":
        np.save(path, labels)
    else:
        savemat(path, {"inst_map": labels.astype(float)})
    _png(tmp_path / "truth.png", crowd(11))
    assert evaluate(path, tmp_path / "truth.png").figures["aji"].value == score_labels(crowd(11), labels)["aji"]


def test_polygons_and_label_images_score_alike_in_any_combination(tmp_path, crowd):
    truth, found = crowd(11), crowd(12)
    _png(tmp_path / "truth.png", truth)
    _png(tmp_path / "found.png", found)
    _geojson(tmp_path / "truth.geojson", _outlines(truth))
    _instances(tmp_path / "instances.parquet", _outlines(found))
    expected = score_labels(truth, found)
    for prediction in ("found.png", "instances.parquet"):
        for side in ("truth.png", "truth.geojson"):
            figures = evaluate(tmp_path / prediction, tmp_path / side).figures
            for name in ("pixel_iou", "aji", "aji_plus", "pq", "seg", "object_dice", "f1_60"):
                assert figures[name].value == pytest.approx(expected[name], abs=1e-9), (prediction, side, name)
            assert figures["detection_f1_hungarian"].value == pytest.approx(
                evaluate(tmp_path / "found.png", tmp_path / "truth.png").figures["detection_f1_hungarian"].value
            )


def test_folder_of_results_meets_folder_of_annotations(tmp_path, crowd):
    for slide, seed in (("one", 11), ("two", 21)):
        _instances(tmp_path / "results" / slide / "instances.parquet", _outlines(crowd(seed)))
        _geojson(tmp_path / "truth" / f"{slide}.geojson", _outlines(crowd(seed)))
    report = evaluate(tmp_path / "results", tmp_path / "truth")
    assert report.images == ("one", "two")
    assert report.figures["aji"].value == pytest.approx(1)


def test_classes_of_polygons_give_pq_iou_and_f1_of_each(tmp_path):
    squares = [shapely.box(20 * i, 0, 20 * i + 10, 10) for i in range(4)]
    _geojson(tmp_path / "truth.geojson", squares, ["a", "a", "b", "b"])
    found = _instances(tmp_path / "i.parquet", squares, ("a", "b", "c"), [0, 0, 0, 2])
    figures = evaluate(found, tmp_path / "truth.geojson").figures
    assert figures["pq"].value == pytest.approx(1, abs=1e-6)
    assert figures["pq_a"].value == pytest.approx(2 / 2.5, abs=1e-6)
    assert figures["pq_b"].value == 0
    assert figures["mpq"].value == pytest.approx(0.4, abs=1e-6)
    assert (figures["iou_a"].value, figures["iou_b"].value) == (pytest.approx(2 / 3), 0)
    assert figures["miou"].value == pytest.approx(1 / 3)
    assert figures["classification_f1_hungarian_a"].value == pytest.approx(4 / (4 + 2))
    assert figures["classification_f1_greedy_a"].value == pytest.approx(4 / 5)
    assert figures["classification_f1_hungarian_b"].value == 0
    assert "pq_c" not in figures


def test_classes_of_hovernet_files_are_named_by_the_caller(tmp_path, crowd):
    labels = crowd(11)
    kinds = np.where(labels > 0, 1 + labels % 2, 0)
    np.save(tmp_path / "found.npy", np.stack([labels, kinds], -1))
    ids = np.unique(labels)[1:]
    savemat(tmp_path / "truth.mat", {"inst_map": labels, "inst_type": (1 + ids % 2)[:, None]})
    figures = evaluate(tmp_path / "found.npy", tmp_path / "truth.mat", classes=["even", "odd"]).figures
    assert (figures["pq_even"].value, figures["pq_odd"].value) == pytest.approx((1, 1), abs=1e-6)
    overlap = Overlap.from_labels(labels, labels)
    assert figures["pq"].value == panoptic_quality(overlap).pq


def test_truth_in_a_crs_goes_through_the_transform_of_the_slide(tmp_path):
    squares = [shapely.box(10, 20, 30, 44), shapely.box(60, 5, 90, 20)]
    on_ground = [shapely.transform(s, lambda xy: xy * (0.5, -0.5) + (1000.0, 5000.0)) for s in squares]
    truth = _geojson(tmp_path / "truth.geojson", on_ground, crs="urn:ogc:def:crs:EPSG::3857")
    found = _instances(tmp_path / "town" / "instances.parquet", squares)
    with pytest.raises(FormatError, match=r"truth.geojson: has the CRS .*EPSG::3857; give the slide.json"):
        evaluate(found, truth)
    _slide_json(tmp_path / "town" / "slide.json", "EPSG:3857", (0.5, 0.0, 1000.0, 0.0, -0.5, 5000.0))
    assert evaluate(found, truth).figures["aji"].value == pytest.approx(1)


def test_reference_figures_appear_on_request_only(tmp_path, crowd):
    found, truth = _folders(tmp_path, crowd)
    names = {"dsc_reference", "seg_reference", "aji_centersam_reference", "aji_densesam_reference"}
    assert names <= set(evaluate(found, truth, reference=True).figures)
    assert not names & set(evaluate(found, truth).figures)


def test_objects_that_touch_are_counted_in_each_image_and_over_all(tmp_path, boxes):
    corner = [(5, 5, 10, 10), (15, 15, 10, 10)]
    gap = [(40, 5, 10, 10), (40, 16, 10, 10)]
    for name, truth in (("a", corner), ("b", [*corner, *gap, (60, 60, 2, 2)]), ("c", gap), ("d", [])):
        _png(tmp_path / "truth" / f"{name}.png", boxes(*truth))
    figures = evaluate(tmp_path / "truth", tmp_path / "truth", reference=True).figures
    assert figures["truth_touching"].value == pytest.approx((1 + 2 / 5 + 0) / 3)
    assert figures["truth_touching"].images == 3, "an image without objects has no share"
    assert figures["truth_touching_pooled"].value == pytest.approx(4 / 9)
    assert "truth_touching" not in evaluate(tmp_path / "truth", tmp_path / "truth").figures
    _geojson(tmp_path / "truth.geojson", _outlines(boxes(*corner)))
    for prediction, share in (("truth/a.png", 1), ("truth.geojson", nan)):
        figures = evaluate(tmp_path / prediction, tmp_path / "truth.geojson", reference=True).figures
        assert figures["truth_touching"].value == pytest.approx(share, nan_ok=True)


def test_real_nuclei_touch_about_as_often_as_published(data):
    folder = data / "dsb2018" / "labels"
    if not folder.is_dir():
        pytest.skip(f"no dsb2018 in {data}")
    found, total = 0, 0
    for path in sorted(folder.iterdir())[::20]:
        labels = read_labels(path).labels
        found, total = found + len(touching_ids(labels)), total + len(np.unique(labels[labels > 0]))
    assert 0.2 < found / total < 0.4, "29.08 % of its 670 images in the paper"


def test_fragments_become_objects_on_request(tmp_path, boxes):
    labels = boxes((5, 5, 9, 9))
    labels[40:49, 40:49] = 1
    _png(tmp_path / "a.png", labels)
    _png(tmp_path / "b.png", boxes((5, 5, 9, 9), (40, 40, 9, 9)))
    assert evaluate(tmp_path / "a.png", tmp_path / "b.png").figures["f1_50"].value == 0
    assert evaluate(tmp_path / "a.png", tmp_path / "b.png", connected=True).figures["f1_50"].value == 1


def test_missing_prediction_is_an_error_and_extra_ones_are_logged(tmp_path, crowd, caplog):
    found, truth = _folders(tmp_path, crowd)
    (truth / "image21.png").unlink()
    assert evaluate(found, truth).images == ("image11", "image31")
    assert "1 predictions have no truth and are left out, first 'image21'" in caplog.text
    (found / "image31.png").unlink()
    with pytest.raises(FormatError, match=r"found: no prediction for 1 of 2 images of .*truth, first 'image31'"):
        evaluate(found, truth)


def test_what_does_not_fit_together_is_named(tmp_path, crowd, boxes):
    found, truth = _folders(tmp_path, crowd)
    with pytest.raises(FormatError, match="expected two files or two folders"):
        evaluate(found, truth / "image11.png")
    with pytest.raises(FormatError, match="nowhere: no such file or folder"):
        evaluate(tmp_path / "nowhere", truth)
    _png(found / "image11.png", boxes((1, 1, 2, 2)))
    with pytest.raises(FormatError, match=r"image11.png: is 64x64 px but its truth .* is 80x96; expected the same"):
        evaluate(found, truth)
    np.save(found / "image11.npy", boxes())
    with pytest.raises(FormatError, match=r"both image11.npy and image11.png are named 'image11'; keep one"):
        evaluate(found, truth)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="empty: holds no label images or polygons"):
        evaluate(truth, tmp_path / "empty")


def test_broken_label_images_are_named(tmp_path, boxes):
    _png(tmp_path / "truth.png", boxes())
    (tmp_path / "a.png").write_bytes(b"no image")
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    np.save(tmp_path / "c.npy", np.full((64, 64), 0.5))
    savemat(tmp_path / "d.mat", {"mask": boxes()})
    (tmp_path / "e.mat").write_bytes((tmp_path / "d.mat").read_bytes()[:150])
    (tmp_path / "f.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(90))  # an HDF5
    for name, message in (
        ("a.png", "a.png: cannot be read as a label image"),
        ("b.png", r"b.png: has shape \(64, 64, 3\); expected a label image"),
        ("c.npy", "c.npy: has fractional values; expected integer ids"),
        ("d.mat", "d.mat: has the variables mask; expected inst_map"),
        ("e.mat", "e.mat: cannot be read as a MAT file"),
        ("f.mat", "f.mat: cannot be read as a MAT file"),
    ):
        with pytest.raises(FormatError, match=message):
            evaluate(tmp_path / name, tmp_path / "truth.png")


def test_failed_slide_is_passed_on(tmp_path):
    write_failure(tmp_path / "instances.parquet", "stitch", "no tiles")
    truth = _geojson(tmp_path / "truth.geojson", [shapely.box(0, 0, 1, 1)])
    with pytest.raises(UpstreamFailure, match="step 'stitch' failed before"):
        evaluate(tmp_path / "instances.parquet", truth)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bootstrap": -1}, "bootstrap is -1; expected 0 or more"),
        ({"radius": float("nan")}, "radius is nan; expected 0 or more px"),
        ({"thresholds": (0.5, 1.0)}, "threshold is 1.0; expected an IoU from 0 to below 1"),
    ],
)
def test_options_out_of_range_are_named(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(tmp_path, tmp_path, **options)


def test_single_class_on_one_side_only_is_not_scored_by_class(tmp_path):
    squares = [shapely.box(0, 0, 10, 10)]
    truth = _geojson(tmp_path / "truth.geojson", squares)
    found = _instances(tmp_path / "i.parquet", squares)
    assert "mpq" not in evaluate(found, truth).figures
    with pytest.raises(FormatError, match=r"truth.geojson: has no classes .*; expected nucleus"):
        evaluate(found, truth, classes=["nucleus"])


def test_empty_slides_have_undefined_figures_and_null_in_json(tmp_path):
    truth = _geojson(tmp_path / "truth.geojson", [])
    report = evaluate(_instances(tmp_path / "i.parquet", []), truth, out=tmp_path / "scores.json")
    assert isnan(report.figures["aji"].value)
    assert json.loads((tmp_path / "scores.json").read_text())["figures"]["aji"]["value"] is None
    assert next(line for line in report.table().splitlines() if line.startswith("aji ")).split()[1] == "-"


def test_real_annotations_moved_by_two_pixels_score_below_one(data):
    labels = read_labels(data / "monuseg" / "labels" / "TCGA-18-5592-01Z-00-DX1.png").labels
    scores = score_labels(labels, np.roll(labels, 2, axis=1))
    assert scores["f1_50"] > 0.9 > scores["f1_80"]
    assert 0.6 < scores["seg"] < scores["pixel_iou"] < 0.9
