"""The density generators by the texts that option `density` holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.persense.base import DensityGenerator
from gigaseg.segmenters.persense.checkpoint import Loaded
from gigaseg.segmenters.persense.correlation import FeatureDensity, NccDensity

FILES = (".pt", ".pth", ".onnx")
"""Endings of the files of models."""


def density_generator(options: Mapping[str, Any], loaded: Loaded) -> DensityGenerator:
    """What maps the density.

    Parameters
    ----------
    options : of the card: `density` is "ncc", "features", "regressor", or the file of a TorchScript or ONNX model.
    loaded : SAM, and the regressor where the checkpoint has one.

    Raises
    ------
    SegmenterError
        The name is none of these; the checkpoint has no regressor; the model is not there or unfit.
    """
    name: str = options["density"]
    least: float = options["least"]
    given = {} if least < 0 else {"least": least}
    if name == "ncc":
        return NccDensity(**given)
    if name == "features":
        return FeatureDensity(**given)
    if name == "regressor":
        if loaded.density is None:
            raise SegmenterError(
                "density is 'regressor', which this checkpoint of SAM does not have; accepted with it: ncc, features, "
                "the file of a model; or a checkpoint of `gigaseg train persense`"
            )
        from gigaseg.segmenters.persense.regressed import RegressedDensity

        return RegressedDensity.of(loaded)
    if Path(name).suffix.lower() not in FILES:
        raise SegmenterError(f"density is '{name}', accepted: ncc, features, regressor, a file ({', '.join(FILES)})")
    from gigaseg.segmenters.persense.models import ModelDensity

    return ModelDensity(
        name,
        str(loaded.backend.device),
        size=options["model_size"],
        exemplars=options["model_exemplars"],
        scale=options["model_scale"],
        multiple=options["model_multiple"],
        ceil=options["model_ceil"],
    )
