"""COCO JSON, read by pycocotools."""

import json
import warnings

import geopandas
import numpy as np
import pytest
import shapely
from pycocotools.coco import COCO

from export_files import export_one
from gigaseg.measure.runs import pixel_runs


def read(path):
    return COCO(str(path))


def mask_of(coco, number):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools' own
        return coco.annToMask(coco.anns[number])


def pixels(outline, shape):
    runs = pixel_runs(np.array([outline]), 0, shape[0], shape[1])
    mask = np.zeros(shape, np.uint8)
    mask.ravel()[runs.pixels(0, 0, shape[1])[0]] = 1
    return mask


def test_image_categories_boxes_and_areas(slide_files, tmp_path):
    coco = read(export_one(slide_files(classes=("tumour", "stroma")), "coco", tmp_path))
    assert coco.loadImgs([1]) == [{"id": 1, "file_name": "case-1.svs", "width": 4000, "height": 3000}]
    assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == [(1, "tumour"), (2, "stroma")]
    assert coco.getAnnIds(imgIds=[1], catIds=[2]) == [2, 4]
    assert [coco.anns[i]["area"] for i in (1, 2, 3)] == [400, 2900, 150]
    assert coco.anns[1]["bbox"] == [10, 20, 20, 20]
    assert coco.anns[3]["bbox"] == [200, 200, 30, 10]
    assert coco.anns[4]["score"] == pytest.approx(1)


def test_masks_are_the_pixels_of_the_outlines_with_holes_and_parts(slide_files, tmp_path):
    files = slide_files()
    coco = read(export_one(files, "coco", tmp_path))
    assert isinstance(coco.anns[2]["segmentation"], dict), "a hole is no part of a polygon of COCO"
    assert len(coco.anns[3]["segmentation"]) == 2
    for number, outline in enumerate(geopandas.read_parquet(files[0]).geometry[:3], 1):
        mask = mask_of(coco, number)
        assert mask.shape == (3000, 4000)
        np.testing.assert_array_equal(mask, pixels(outline, mask.shape))


def test_runs_that_go_on_in_the_next_column_are_one(slide_files, tmp_path):
    # a frame as high as the slide
    frame = shapely.Polygon([(0, 0), (6, 0), (6, 5), (0, 5)], [[(2, 2), (4, 2), (4, 3), (2, 3)]])
    path = export_one(slide_files(np.array([frame]), width=8, height=5), "coco", tmp_path)
    counts = json.loads(path.read_text())["annotations"][0]["segmentation"]["counts"]
    assert counts == [0, 12, 1, 4, 1, 12, 10]
    np.testing.assert_array_equal(mask_of(read(path), 1), pixels(frame, (5, 8)))


def test_real_instances_come_back(measured, tmp_path):
    files = (measured / "instances.parquet", measured / "measurements.parquet", measured / "slide.json")
    coco = read(export_one(files, "coco", tmp_path))
    level0 = geopandas.read_parquet(files[0])
    assert len(coco.anns) == len(level0)
    areas = np.array([coco.anns[i]["area"] for i in level0["instance"]])
    assert areas == pytest.approx(level0.area.to_numpy(), abs=0.01)
    for number in (1, 20, 50):
        assert mask_of(coco, number).sum() == pytest.approx(level0.area[number - 1], rel=0.05)


def test_a_slide_without_instances_has_no_annotations(slide_files, tmp_path):
    coco = read(export_one(slide_files(np.empty(0, object)), "coco", tmp_path))
    assert (len(coco.imgs), len(coco.anns)) == (1, 0)
