"""The texts of Snakemake's own report."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined

FOLDER = Path(__file__).parents[2] / "workflow" / "report"

CONFIGS = {
    "default": {},
    "full": yaml.safe_load(
        """
        presets:
          nuclei: {segmenter: {name: watershed}, working_resolution: 0.5}
          buildings: {unit: m, segmenter: {name: annotations}, object_diameter: 12}
          bare:
        """
    ),
}


def html_of(name, config):
    """Render a caption as Snakemake does: Jinja, then reStructuredText; a warning is an error."""
    text = Environment(undefined=StrictUndefined).from_string((FOLDER / name).read_text(encoding="utf-8"))
    snakemake = SimpleNamespace(config=config, wildcards=SimpleNamespace(slide="case-1"))
    settings = {"halt_level": 2, "report_level": 2, "_disable_config": True}
    return publish_parts(text.render(snakemake=snakemake), writer="html", settings_overrides=settings)["body"]


@pytest.mark.parametrize("config", list(CONFIGS))
@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.rst")))
def test_caption_is_valid_with_any_config(name, config):
    assert "<p>" in html_of(name, CONFIGS[config])


def test_workflow_text_lists_the_presets():
    html = html_of("workflow.rst", CONFIGS["full"])
    assert html.count("<li>") == 3
    assert "0.5 µm per pixel" in html
    assert "objects of about 12 m" in html


def test_caption_of_a_picture_names_its_slide():
    assert "<strong>case-1</strong>" in html_of("overview.rst", {})
