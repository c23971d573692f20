"""OME-Zarr, AnnData and SpatialData, read by ome-zarr, anndata and spatialdata."""

import sys
import warnings
from dataclasses import replace

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from rasterio.features import rasterize

from export_files import export_one
from gigaseg.cli import main
from gigaseg.errors import DeviceError
from gigaseg.export import labels
from gigaseg.export.formats import FORMATS
from gigaseg.files import read_metadata
from gigaseg.geometry import Bounds, Shape2d
from gigaseg.instances.table import STITCHED_FORMAT, Instances
from gigaseg.slides.base import SlideInfo
from gigaseg.slides.registry import open_slide

SCALE = 1.6
"""Level-0 px per working px of `measured`."""


@pytest.fixture(scope="module")
def files(measured):
    return measured / "instances.parquet", measured / "measurements.parquet", measured / "slide.json"


@pytest.fixture(scope="module")
def expected(files):
    """(438, 750) the label image by rasterio."""
    frame = geopandas.read_parquet(files[0])
    working = shapely.transform(frame.geometry.to_numpy(), lambda xy: np.rint(xy / SCALE))
    return rasterize(zip(working, frame["instance"], strict=True), (438, 750), dtype=np.int32)


def ome_nodes(path):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    return list(Reader(parse_url(str(path)))())


def test_ome_zarr_holds_the_masks_and_every_level_keeps_its_labels(files, expected, tmp_path):
    from ome_zarr.reader import Label, Multiscales

    [node] = ome_nodes(export_one(files, "ome-zarr", tmp_path))
    assert {type(spec) for spec in node.specs} == {Label, Multiscales}
    assert [level.shape for level in node.data] == [(438, 750), (219, 375)]
    full, half = (np.asarray(level) for level in node.data)
    assert full.dtype == np.int32
    np.testing.assert_array_equal(full, expected)
    np.testing.assert_array_equal(half, full[::2, ::2])


def test_ome_zarr_has_pixel_size_classes_and_colours(files, tmp_path):
    [node] = ome_nodes(export_one(files, "ome-zarr", tmp_path))
    assert [(axis["name"], axis["unit"]) for axis in node.metadata["axes"]] == [
        ("y", "micrometer"),
        ("x", "micrometer"),
    ]
    scales = [level[0]["scale"] for level in node.metadata["coordinateTransformations"]]
    assert scales == [[0.8, 0.8], [1.6, 1.6]]
    count = pq.read_metadata(files[0]).num_rows
    assert node.metadata["color"][count] == [0, 200 / 255, 83 / 255, 1]
    assert set(node.metadata["properties"]) == set(range(1, count + 1))
    assert node.metadata["properties"][1]["class"] == "nucleus"


def test_the_label_image_is_the_same_in_blocks_of_any_size(files, expected, tmp_path, monkeypatch):
    import zarr

    monkeypatch.setattr(labels, "BLOCK", 64)
    monkeypatch.setattr(labels, "CHUNK", 32)
    group = zarr.open_group(export_one(files, "ome-zarr", tmp_path), mode="r")
    np.testing.assert_array_equal(group["0"][:], expected)
    np.testing.assert_array_equal(group["4"][:], expected[::16, ::16])
    assert max(group["5"].shape) <= 32


def test_of_many_instances_the_header_has_no_colours(files, tmp_path, monkeypatch):
    from gigaseg.export import ome_zarr

    monkeypatch.setattr(ome_zarr, "MOST_COLORED", 10)
    [node] = ome_nodes(export_one(files, "ome-zarr", tmp_path))
    assert node.metadata["color"] == {}
    assert np.asarray(node.data[0]).max() > 10


def test_anndata_has_measurements_places_and_classes(files, tmp_path):
    import anndata

    found = anndata.read_h5ad(export_one(files, "anndata", tmp_path))
    table = pq.read_table(files[1]).to_pandas()
    level0 = geopandas.read_parquet(files[0])
    assert found.shape == (len(table), table.shape[1] - 3), "all but instance, class and region"
    assert found.obs_names.to_list() == table["instance"].astype(str).to_list()
    for name in found.var_names:
        np.testing.assert_allclose(found[:, name].X.ravel(), table[name].to_numpy(float), rtol=1e-6, equal_nan=True)
    assert found.var.loc["area_um2", "label"] == "Area µm²"
    np.testing.assert_allclose(found.obsm["spatial"], table[["centroid_x_px", "centroid_y_px"]])
    assert (found.obs["class"] == "nucleus").all()
    np.testing.assert_allclose(found.obs["score"], level0["score"])
    assert (found.obs["tile_col"] == level0["tile_col"].to_numpy()).all()
    assert found.obs["region"].astype(object).where(found.obs["region"].notna(), None).to_list() == [
        None if value is None else value for value in table["region"].where(table["region"].notna(), None)
    ]
    assert found.uns["pixel_size"].tolist() == [0.5, 0.5]
    assert (found.uns["unit"], found.uns["slide"]) == ("um", "s")
    assert found.uns["class_colors"].tolist() == ["#00c853"]


@pytest.fixture(scope="module")
def spatial(files, tmp_path_factory):
    import spatialdata

    path = export_one(files, "spatialdata", tmp_path_factory.mktemp("spatial"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return spatialdata.read_zarr(path)


def levels(element):
    return [np.asarray(level["image"].data) for level in element.values()]


def test_spatialdata_holds_the_picture_and_the_labels_as_pyramids(spatial, files, expected):
    full, half = levels(spatial["labels"])
    np.testing.assert_array_equal(full, expected)
    np.testing.assert_array_equal(half, expected[::2, ::2])
    pictures = levels(spatial["slide"])
    assert [picture.shape for picture in pictures] == [(3, 438, 750), (3, 219, 375)]
    info = SlideInfo.read(files[2])
    slide = open_slide(info)
    area = Bounds(0, 0, 750 * SCALE, 438 * SCALE)
    for picture in pictures:
        native = slide.read(area, Shape2d(*picture.shape[1:]))
        difference = np.abs(info.rendering.rgb(native).transpose(2, 0, 1).astype(int) - picture)
        assert difference.max() <= 1, "blocks round their places"
    slide.close()


def test_spatialdata_annotates_the_outlines_with_the_measurements(spatial, files):
    import spatialdata

    level0 = geopandas.read_parquet(files[0])
    assert shapely.equals(spatial["instances"].geometry.to_numpy(), level0.geometry.to_numpy()).all()
    table = pq.read_table(files[1]).to_pandas()
    found = spatialdata.get_values("area_um2", sdata=spatial, element_name="instances", table_name="measurements")
    np.testing.assert_allclose(found["area_um2"], table["area_um2"], rtol=1e-6)
    assert spatial["measurements"].obs["region"].notna().any(), "the slide's own regions keep their column"


def test_spatialdata_has_level_0_pixels_and_micrometres(spatial):
    from spatialdata.transformations import get_transformation

    assert set(spatial.coordinate_systems) == {"global", "um"}
    scale = {
        (name, system): np.diag(get_transformation(spatial[name], system).to_affine_matrix(("x", "y"), ("x", "y")))[
            :2
        ].tolist()
        for name in ("slide", "labels", "instances")
        for system in ("global", "um")
    }
    assert scale["instances", "global"] == [1, 1]
    assert scale["instances", "um"] == [0.5, 0.5]
    assert scale["slide", "global"] == scale["labels", "global"] == [SCALE, SCALE]
    assert scale["slide", "um"] == pytest.approx([0.8, 0.8])


@pytest.mark.parametrize("format", ["ome-zarr", "spatialdata"])
def test_same_instances_give_the_same_bytes(files, tmp_path, format):
    first, second = (export_one(files, format, tmp_path / name) for name in "ab")
    assert contents(first) == contents(second)
    assert len(contents(first)) > 3


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def no_instances(slide_files, files):
    """The files of a slide without any instance, with the grid of `measured`."""
    instances, measurements, info = slide_files(np.empty(0, object), slide="s")
    empty = replace(Instances.empty(("nucleus",)), members=np.empty(0, np.int16))
    empty.write(instances, dict(read_metadata(files[0], STITCHED_FORMAT)))
    return instances, measurements, info


def test_no_instances_are_an_empty_table_and_an_empty_picture(no_instances, tmp_path):
    import anndata

    assert anndata.read_h5ad(export_one(no_instances, "anndata", tmp_path)).shape == (0, 1)
    [node] = ome_nodes(export_one(no_instances, "ome-zarr", tmp_path))
    assert node.data[0].shape == (438, 750)
    assert not np.asarray(node.data[0]).any()


def test_spatialdata_without_instances_has_the_picture_all_the_same(no_instances, files, tmp_path):
    import spatialdata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = spatialdata.read_zarr(export_one((*no_instances[:2], files[2]), "spatialdata", tmp_path))
    assert set(found.images) == {"slide"}
    assert levels(found["slide"])[0].any()


@pytest.mark.parametrize(("format", "needs"), [("anndata", "anndata"), ("spatialdata", "spatialdata")])
def test_what_is_not_installed_is_told_with_the_command_that_installs_it(files, tmp_path, monkeypatch, format, needs):
    monkeypatch.setitem(sys.modules, needs, None)
    with pytest.raises(DeviceError, match=rf"'{format}' needs {needs}.*pip install 'gigaseg\[spatialdata\]'"):
        export_one(files, format, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "size"),
    [("geojson-regions", 16), ("fgb", 16), ("anndata", 400), ("ome-zarr", 16), ("spatialdata", 64)],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(files, tmp_path, mounted, capsys, format, size):
    disk = mounted(tmp_path / "full", f"size={size}k")
    out = disk / FORMATS[format].file
    told = ["--info", str(files[2]), "--format", format, "--out", str(out)]
    assert main(["export", str(files[0]), str(files[1]), *told]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"gigaseg export: {out}: No space left on device"
    assert list(disk.iterdir()) == []
