"""The demo cohort: one synthetic slide, its truth, and the sheet that names it."""

from __future__ import annotations

from pathlib import Path

from gigaseg.errors import ConfigError
from gigaseg.files import atomic
from gigaseg.testing.slides import Truth, synthetic_slide


def write_demo(folder: str | Path, *, side: int = 4096, seed: int = 0) -> Truth:
    """Write ``slide.tif`` with its truth, and ``slides.tsv``, into `folder`.

    Parameters
    ----------
    side : width and height, px of 0.5 µm.
    seed : the same side and seed give the same pixels.
    """
    if seed < 0:
        raise ConfigError(f"--seed is {seed}, accepted: 0 or more")
    target = Path(folder)
    truth = synthetic_slide(target / "slide.tif", width=side, height=side, mpp=0.5, seed=seed)
    with atomic(target / "slides.tsv") as temporary:
        temporary.write_text("slide\tpath\tgroup\ndemo\tslide.tif\tsynthetic\n", encoding="utf-8")
    return truth
