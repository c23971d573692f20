"""How QGIS draws the instances: each class in its colour, as the XML of a layer's style (QML)."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

_FILL = 80
"""Opacity of the fill, 0..255: the picture is seen through it."""


def layer_style(classes: Sequence[str], colors: Sequence[tuple[int, int, int]]) -> str:
    """QML with a symbol a class, chosen by the column "class".

    Parameters
    ----------
    classes, colors : names of the classes, and their RGB colours, 0..255.
    """
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = ElementTree.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr="class", forceraster="0", symbollevels="0"
    )
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for i, (name, color) in enumerate(zip(classes, colors, strict=True)):
        ElementTree.SubElement(
            categories, "category", symbol=str(i), value=name, label=name, render="true", type="string"
        )
        symbol = ElementTree.SubElement(symbols, "symbol", type="fill", name=str(i), alpha="1", clip_to_extent="1")
        layer = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill"}, enabled="1", locked="0")
        layer.set("pass", "0")
        options = ElementTree.SubElement(layer, "Option", type="Map")
        shade = ",".join(map(str, color))
        for key, value in {
            "color": f"{shade},{_FILL}",
            "outline_color": f"{shade},255",
            "outline_style": "solid",
            "outline_width": "0.4",
            "outline_width_unit": "MM",
            "style": "solid",
        }.items():
            ElementTree.SubElement(options, "Option", name=key, type="QString", value=value)
    text = ElementTree.tostring(root, encoding="unicode")
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + text
