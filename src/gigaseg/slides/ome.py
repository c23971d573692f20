"""What OME-XML says of an image: pixel size, channel names and colours, objective, kind of light."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

_UM = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25400.0, "Å": 1e-4}
"""µm per unit of length as OME writes it (both code points of µ)."""


@dataclass(frozen=True)
class OmeImage:
    """One image of an OME-XML document; None or empty where it does not tell.

    Attributes
    ----------
    pixel_size : (x, y) in µm.
    names : of the channels, "" where unnamed.
    colors : RGB colour in 0..1 of each channel.
    objective_power : nominal magnification.
    fluorescence : whether the light was fluorescence.
    """

    pixel_size: tuple[float, float] | None = None
    names: tuple[str, ...] = ()
    colors: tuple[tuple[float, float, float], ...] | None = None
    objective_power: float | None = None
    fluorescence: bool | None = None


def parse_ome(xml: str | None, index: int) -> OmeImage:
    """Read image number `index` of an OME-XML document (any schema); an empty one when it has none."""
    try:
        root = ElementTree.fromstring(xml or "")
    except ElementTree.ParseError:
        return OmeImage()
    images = root.findall("{*}Image")
    if not images:
        return OmeImage()
    image = images[min(index, len(images) - 1)]
    pixels = image.find("{*}Pixels")
    if pixels is None:
        return OmeImage()
    channels = pixels.findall("{*}Channel")
    return OmeImage(
        pixel_size=_pixel_size(pixels),
        names=tuple(channel.get("Name", "") for channel in channels),
        colors=_colors([channel.get("Color") for channel in channels]),
        objective_power=_objective_power(root, image),
        fluorescence=_fluorescence(channels),
    )


def _pixel_size(pixels: ElementTree.Element) -> tuple[float, float] | None:
    sizes = []
    for axis in "XY":
        unit = _UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        try:
            value = float(pixels.get(f"PhysicalSize{axis}", ""))
        except ValueError:
            return None
        if unit is None:  # "pixel" and "reference frame" are no lengths
            return None
        sizes.append(value * unit)
    return sizes[0], sizes[1]


def _colors(values: list[str | None]) -> tuple[tuple[float, float, float], ...] | None:
    """Colours from signed 32-bit RGBA; None when one is missing or several channels share a single colour."""
    try:
        packed = [int(value or "") & 0xFFFFFFFF for value in values]
    except ValueError:
        return None
    if not packed or (len(packed) > 1 and len(set(packed)) == 1):
        return None
    return tuple(((v >> 24) / 255, (v >> 16 & 255) / 255, (v >> 8 & 255) / 255) for v in packed)


def _objective_power(root: ElementTree.Element, image: ElementTree.Element) -> float | None:
    settings = image.find("{*}ObjectiveSettings")
    wanted = settings.get("ID") if settings is not None else None
    for objective in root.iterfind("{*}Instrument/{*}Objective"):
        if wanted is None or objective.get("ID") == wanted:
            try:
                return float(objective.get("NominalMagnification", ""))
            except ValueError:
                return None
    return None


def _fluorescence(channels: list[ElementTree.Element]) -> bool | None:
    for channel in channels:
        light = {
            channel.get("IlluminationType"),
            channel.get("ContrastMethod"),
            channel.get("AcquisitionMode"),
        }
        if light & {"Transmitted", "Brightfield"}:
            return False
        if light & {"Epifluorescence", "Fluorescence"} or channel.get("Fluor") or channel.get("EmissionWavelength"):
            return True
    return True if len(channels) > 1 else None
