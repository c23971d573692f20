"""One export, and the outlines in it."""

import gzip
import json
import zipfile

import shapely

from gigaseg.export.export import export
from gigaseg.export.formats import FORMATS


def export_one(files, format, folder):
    """Write `format` of (instances, measurements, info) into `folder`; returns its path."""
    path = folder / FORMATS[format].file
    export(*files, format, path)
    return path


def outlines(path):
    """Geometries of a GeoJSON file, plain, gzipped or in a ZIP."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            texts = [archive.read(name) for name in sorted(archive.namelist())]
    else:
        texts = [gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()]
    features = [feature for text in texts for feature in json.loads(text)["features"]]
    return [shapely.geometry.shape(feature["geometry"]) for feature in features]
