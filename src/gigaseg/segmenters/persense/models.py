"""Density maps by a model of the user's, a TorchScript or ONNX file: an export of DSALVANet or CounTR, say.

The file takes two inputs, in this order:

- image: (1, 3, H, W) float32 RGB, normalised by ImageNet's mean and deviation.
- boxes: (1, K, 4) float32 ymin, xmin, ymax, xmax of the exemplars, px of that image: the order of both published ones.

It gives one map, (1, 1, h, w), (1, h, w) or (h, w) of any size, which covers the image: objects per cell, times
`scale`. A model that takes crops of the exemplars cuts them in a wrapper that is exported with it. One that draws
random numbers, as DSALVANet does unless its latent variable is set to its mean, is exported without that.

A TorchScript file is a program: load only those whose origin you trust, as with any model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gigaseg.devices import choose_device
from gigaseg.errors import SegmenterError, is_machine_fault, one_line
from gigaseg.files import sha256_file
from gigaseg.segmenters.persense.base import Density, Exemplar, Picture, Scene
from gigaseg.segmenters.persense.hub import SHOWN, needed
from gigaseg.segmenters.persense.strip import beside

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_Map = npt.NDArray[np.float64]
_Run = Callable[[Tensor, Tensor], Any]


class ModelDensity:
    """The density map of a model from a file.

    Exemplars of another picture are cut out, with what surrounds them, and shown on a strip to the right of the
    picture (`gigaseg.segmenters.persense.strip.beside`), which is cut off the map again.

    Attributes
    ----------
    name, needs_weights, deterministic : as `BackEnd`.

    Parameters
    ----------
    path : .pt or .pth of `torch.jit.save`, or .onnx.
    device : as `gigaseg.devices.choose_device` takes it. onnxruntime uses a GPU when it was built for it.
    size : px; the picture is squeezed into a square of that side, boxes with it, which lose their fractions, as
        DSALVANet has it with 512; 0: the picture as it is.
    exemplars : that the model takes: the first ones, or the given ones again and again until they suffice. DSALVANet
        takes exactly 3; 0: as many as there are.
    scale : what the map is divided by; 60 for CounTR.
    multiple : px, of which the sides of the image must be multiples; it is filled up with the picture's mean colour.
        Not with `size`.
    ceil : whether the count is rounded up, as the released code does with DSALVANet. The map's sum is not.
    deterministic : what the exporter knows of the model.

    Raises
    ------
    DeviceError
        The device is not there.
    SegmenterError
        The file is missing or holds no such model; onnxruntime is not installed; an option is not accepted.
    """

    needs_weights = True

    def __init__(
        self,
        path: str | Path,
        device: str = "cpu",
        size: int = 0,
        exemplars: int = 3,
        scale: float = 1.0,
        multiple: int = 1,
        ceil: bool = False,
        deterministic: bool = True,
    ) -> None:
        for option, value, good, accepted in (
            ("size", size, size >= 0, "px, or 0"),
            ("exemplars", exemplars, exemplars >= 0, "a number, or 0 for all"),
            ("scale", scale, scale > 0, "a number above 0"),
            ("multiple", multiple, multiple >= 1 and (multiple == 1 or not size), "1 px or more; 1 with a size"),
        ):
            if not good:
                raise SegmenterError(f"density model: {option} is {value}, accepted: {accepted}")
        self._path = Path(path)
        if not self._path.is_file():
            raise SegmenterError(f"{path}: no such file, expected a density model (.pt, .pth or .onnx)")
        loaders = {".pt": _torch_script, ".pth": _torch_script, ".onnx": _onnx}
        if self._path.suffix.lower() not in loaders:
            raise SegmenterError(f"{path}: suffix is '{self._path.suffix}', accepted: {', '.join(loaders)}")
        self._device = torch.device(choose_device(device))
        self._run = loaders[self._path.suffix.lower()](self._path, self._device)
        self.name = f"model {self._path.name} {sha256_file(self._path)[:16]}"
        self.deterministic = deterministic
        self._size, self._number, self._scale, self._multiple, self._ceil = size, exemplars, scale, multiple, ceil

    def lone(self, exemplars: Sequence[Exemplar]) -> float:
        """0: nobody says."""
        return 0.0

    def density(self, scene: Scene, exemplars: Sequence[Exemplar]) -> Density:
        """Density of `scene`; the count is the sum of the model's own map, before it is resized to the picture.

        Negative values of the map count as 0.

        Raises
        ------
        SegmenterError
            The model fails, or gives no map.
        ValueError
            There is no exemplar.
        """
        if not exemplars:
            raise ValueError("no exemplars, expected at least one")
        canvas, boxes = beside(scene, exemplars[: self._number or None], self._multiple)
        boxes = boxes[np.arange(self._number or len(boxes)) % len(boxes)]
        image, placed = self._inputs(canvas, boxes)
        cells = self._map(image, placed)
        whole, shape = canvas.shape[:2], scene.shape
        kept = np.outer(*(_shares(n, full, own) for n, full, own in zip(cells.shape, whole, shape)))
        count = float((cells * kept).sum())
        grown = resized(cells, (whole[0], whole[1]))[: shape[0], : shape[1]]
        total = float(grown.sum())
        spread = grown * (count / total if total > 0 else 0.0)
        return Density(spread.astype(np.float32), float(math.ceil(count)) if self._ceil else count)

    def _inputs(self, canvas: Picture, boxes: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """As the model takes them; boxes come as xmin, ymin, xmax, ymax."""
        image = torch.tensor(canvas).permute(2, 0, 1)[None].float() / 255
        yxyx = boxes[:, [1, 0, 3, 2]]
        if self._size:
            ratio = np.array([self._size / side for side in canvas.shape[:2]] * 2)
            yxyx = np.trunc(yxyx * ratio)
            yxyx[:, 2:] = np.maximum(yxyx[:, 2:], yxyx[:, :2] + 1)  # of a tiny one nothing would be left
            image = F.interpolate(image, (self._size, self._size), mode="bilinear", antialias=True)
        mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (image - mean) / std, torch.from_numpy(yxyx).float()[None]

    def _map(self, image: Tensor, boxes: Tensor) -> _Map:
        """(h, w), of the model's own size."""
        try:
            found = self._run(image, boxes)
        except Exception as error:  # whatever the program in the file does
            if is_machine_fault(error) or isinstance(error, torch.OutOfMemoryError):
                raise
            raise SegmenterError(
                f"{self._path}: fails on an image of {tuple(image.shape)} and boxes of {tuple(boxes.shape)} "
                f"({_last(error)}); see its size and number of exemplars"
            ) from error
        accepted = "accepted: a map of (1, 1, h, w), (1, h, w) or (h, w)"
        if not isinstance(found, Tensor | np.ndarray):
            raise SegmenterError(f"{self._path}: gives {type(found).__name__}, {accepted}")
        cells = np.asarray(found.float().cpu() if isinstance(found, Tensor) else found, np.float64)
        if not 2 <= cells.ndim <= 4 or any(n != 1 for n in cells.shape[:-2]) or not cells.size:
            raise SegmenterError(f"{self._path}: gives {cells.shape}, {accepted}")
        if not np.isfinite(cells).all():
            raise SegmenterError(f"{self._path}: gives values that are not finite, {accepted} of finite ones")
        return np.maximum(cells.reshape(cells.shape[-2:]), 0) / self._scale


def resized(cells: _Map, shape: tuple[int, int]) -> _Map:
    """A map brought to another size, bilinear as in the released code; its sum changes.

    Below half its size by the means of areas, since there bilinear would pass over cells.
    """
    shrunk = max(old / new for old, new in zip(cells.shape, shape))
    how = cv2.INTER_AREA if shrunk > 2 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cells, (shape[1], shape[0]), interpolation=how), np.float64)


def _shares(cells: int, side: int, kept: int) -> npt.NDArray[np.float64]:
    """Of each of the cells along a side of `side` px, the part that lies in the first `kept` px."""
    return np.clip(cells * kept / side - np.arange(cells), 0, 1)


def _torch_script(path: Path, device: torch.device) -> _Run:
    try:
        model = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # damaged bytes can ask for anything
        if is_machine_fault(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        raise SegmenterError(
            f"{path}: no TorchScript file ({_last(error)}); accepted: one of torch.jit.save"
        ) from error

    def run(image: Tensor, boxes: Tensor) -> Any:
        with torch.inference_mode():
            return model(image.to(device), boxes.to(device))

    return run


def _onnx(path: Path, device: torch.device) -> _Run:
    library = needed("onnxruntime", "model")
    options = library.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # what fails comes as an exception too
    there = library.get_available_providers()
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in there:
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    try:
        session = library.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        if is_machine_fault(error):
            raise
        raise SegmenterError(f"{path}: no ONNX model that onnxruntime reads ({_last(error)})") from error
    names = [given.name for given in session.get_inputs()]
    if len(names) != 2:
        raise SegmenterError(f"{path}: takes {len(names)} inputs ({', '.join(names)}), accepted: image and boxes")

    def run(image: Tensor, boxes: Tensor) -> Any:
        found = session.run(None, dict(zip(names, (image.numpy(), boxes.numpy()))))
        return found[0] if len(found) == 1 else tuple(found)

    return run


def _last(error: Exception) -> str:
    """What went wrong; TorchScript tells it last, after where."""
    lines = [one_line(line) for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:SHOWN]
