"""Label images from files, and what the metrics need of their objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gigaseg.errors import FormatError, is_machine_fault, one_line
from gigaseg.metrics.overlap import FloatArray, IntArray

SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".mat")
"""Files that are read as label images."""


@dataclass(frozen=True)
class LabelImage:
    """A label image and the classes of its objects.

    Attributes
    ----------
    labels : (y, x) integer or bool, 0 = background.
    class_of : class name of each id; None where the file states none (of objects that it has).
    """

    labels: npt.NDArray[Any]
    class_of: dict[int, str] | None = None


def read_labels(path: Path) -> LabelImage:
    """Read a label image: 8- to 32-bit PNG or TIFF, NPY, or the MAT layout of HoVer-Net and CoNSeP.

    NPY may be (y, x), or (y, x, 2) with instances and classes; MAT has `inst_map` and optionally `inst_type`
    (the class of each id in ascending order) or `type_map`. Classes are named by their number; 0 is no class.

    Raises
    ------
    FormatError : the file is missing, damaged, or of another shape or type.
    """
    try:
        array, types = _load(path)
    except FormatError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SyntaxError) as error:
        raise FormatError(f"{path}: cannot be read as a label image ({one_line(error)})") from error
    if array.ndim == 3 and 1 in array.shape:
        array = array.squeeze()
    if array.ndim == 3 and array.shape[-1] == 2 and path.suffix.lower() == ".npy":
        array, types = array[..., 0], array[..., 1]
    if array.ndim != 2:
        raise FormatError(f"{path}: has shape {array.shape}; expected a label image (y, x)")
    if np.issubdtype(array.dtype, np.floating):
        whole = array.astype(np.int64)
        if not np.array_equal(whole, array):
            raise FormatError(f"{path}: has fractional values; expected integer ids, 0 = background")
        array = whole
    if array.dtype != bool and (not np.issubdtype(array.dtype, np.integer) or array.min(initial=0) < 0):
        raise FormatError(f"{path}: has {array.dtype} values, some negative or no numbers; expected ids from 0")
    if types is None:
        return LabelImage(array, None if array.any() else {})
    return LabelImage(array, _classes(path, array, np.asarray(types)))


def label_points(labels: npt.NDArray[Any], ids: IntArray) -> FloatArray:
    """Centroids (x, y) of objects, (n, 2) float64; pixel (0, 0) has its centre at (0.5, 0.5).

    Parameters
    ----------
    labels : (y, x) integer, 0 = background.
    ids : (n,) ascending, all ids that occur.
    """
    flat = labels.ravel()
    at = np.flatnonzero(flat)
    code = flat[at].astype(np.int64)
    if len(ids) and ids[-1] >= max(4 * len(ids), 1 << 16):
        code, n = np.searchsorted(ids, code), len(ids)
        pick = np.arange(n)
    else:
        n, pick = int(ids[-1]) + 1 if len(ids) else 0, ids
    y, x = np.divmod(at, max(labels.shape[1], 1))
    area = np.bincount(code, minlength=n)[pick]
    sums = [np.bincount(code, weights=values, minlength=n)[pick] for values in (x, y)]
    return np.column_stack(sums) / area[:, None] + 0.5


def touching_ids(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Ids of the objects that have another object among the eight neighbours of any of their pixels, ascending.

    Parameters
    ----------
    labels : (y, x) integer, 0 = background.

    >>> touching_ids(np.array([[1, 0, 0, 4], [0, 2, 0, 4]]))
    array([1, 2])
    """
    meeting = []
    right, down = np.s_[:, 1:], np.s_[1:]
    left, up = np.s_[:, :-1], np.s_[:-1]
    for one, other in (
        (labels[left], labels[right]),
        (labels[up], labels[down]),
        (labels[up][left], labels[down][right]),
        (labels[up][right], labels[down][left]),
    ):
        meet = (one != other) & (one > 0) & (other > 0)
        meeting += [one[meet], other[meet]]
    return np.unique(np.concatenate(meeting))


def rasterise(geometry: npt.NDArray[np.object_], shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Draw polygons as a label image; a pixel belongs to a polygon when its centre does, later ones overwrite.

    Exact for outlines on pixel corners.

    Parameters
    ----------
    geometry : (n,) polygons, px; polygon i gets the id i + 1.
    shape : (height, width).
    """
    from rasterio.features import rasterize

    if not len(geometry):
        return np.zeros(shape, np.int32)
    drawn: npt.NDArray[np.int32] = rasterize(
        zip(geometry, range(1, len(geometry) + 1)), out_shape=shape, fill=0, dtype=np.int32
    )
    return drawn


def _load(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """The array of a file, and its class map or the classes in the order of the ids."""
    suffix = path.suffix.lower()
    if not path.is_file():
        raise FormatError(f"{path}: no such file; expected a label image ({', '.join(SUFFIXES)})")
    if suffix == ".npy":
        return np.load(path, allow_pickle=False), None
    if suffix in (".tif", ".tiff"):
        import tifffile

        return tifffile.imread(path), None
    if suffix == ".mat":
        content = read_mat(path)
        types = content["inst_type"].ravel() if "inst_type" in content else content.get("type_map")
        return content["inst_map"], types
    if suffix == ".png":
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = None
        with Image.open(path) as image:
            return np.asarray(image), None
    raise FormatError(f"{path}: expected a label image ({', '.join(SUFFIXES)})")


def read_mat(path: Path) -> dict[str, Any]:
    """The variables of a MAT file in the layout of HoVer-Net; one is ``inst_map``.

    Raises FormatError when it cannot be read or lacks that one.
    """
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(path)
    except Exception as error:  # also IndexError, zlib.error, NotImplementedError: whatever stops its parser
        if is_machine_fault(error):
            raise
        raise FormatError(f"{path}: cannot be read as a MAT file ({one_line(error)})") from error
    if "inst_map" not in content:
        found = ", ".join(name for name in content if not name.startswith("__"))
        raise FormatError(f"{path}: has the variables {found}; expected inst_map")
    return content


def _classes(path: Path, labels: npt.NDArray[Any], types: npt.NDArray[Any]) -> dict[int, str]:
    """Class of each id: as listed, or the most frequent non-zero value of the class map on the object."""
    ids, code = np.unique(labels, return_inverse=True)
    if types.shape == labels.shape:
        kinds = types.astype(np.int64)
        votes = np.bincount(
            code.ravel() * (kinds.max() + 1) + kinds.ravel(), minlength=len(ids) * (kinds.max() + 1)
        ).reshape(len(ids), -1)
        votes[:, 0] = 0
        chosen = votes.argmax(1)[ids > 0]
    elif types.ndim == 1 and len(types) == np.count_nonzero(ids):
        chosen = types.astype(np.int64)
    else:
        raise FormatError(f"{path}: classes have shape {types.shape}; expected one a pixel or one an object")
    return {int(i): str(int(kind)) for i, kind in zip(ids[ids > 0], chosen)}
