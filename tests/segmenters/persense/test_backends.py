"""Options name back ends; what they need is loaded when they are chosen, and not before."""

import subprocess
import sys

import pytest

from centersam_models import write_painted
from gigaseg.errors import SegmenterError
from gigaseg.segmenters.persense.backends import DETECTORS, detector, label_extractor


@pytest.fixture(scope="module")
def tiny():
    pytest.importorskip("transformers", reason="of the extra 'persense'")
    import tiny_transformers

    return tiny_transformers


@pytest.mark.parametrize("text", ["nucleus", "tumour cell", "vip-llava-like", "clips", "a:b"])
def test_any_text_is_a_label(text):
    found = label_extractor(text)
    assert found.name == f"static {text}"
    assert not found.needs_weights


@pytest.mark.parametrize("text", ["", " ", "clip", "vip-llava:x"])
def test_what_looks_like_a_slip_is_no_label(text):
    with pytest.raises(SegmenterError, match=r"accepted: clip:WORD,WORD,\.\.\., vip-llava, any other text"):
        label_extractor(text)


def test_clip_takes_its_words_from_the_text(tiny, tmp_path):
    found = label_extractor("clip: nucleus , tree,", tiny.write_clip(tmp_path / "model"))
    assert found.words == ("nucleus", "tree")
    with pytest.raises(SegmenterError, match="two or more"):
        label_extractor("clip:nucleus")


def test_vip_llava_is_a_label(tiny, tmp_path):
    folder = tiny.write_vip_llava(tmp_path / "model", ["tree"])
    assert label_extractor("vip-llava", folder).name == f"vip-llava {folder}"


def test_grounding_dino_has_the_threshold_of_the_paper_unless_told(tiny, tmp_path):
    folder = tiny.write_grounding_dino(tmp_path / "model")
    assert detector("grounding-dino", folder).threshold == 0.15
    assert detector("grounding-dino", folder, threshold=0.3).threshold == 0.3


def test_centersam_has_the_threshold_of_its_checkpoint_unless_told(tmp_path):
    path = str(write_painted(tmp_path / "painted.safetensors", tmp_path / "sam.safetensors", threshold=0.4))
    assert detector("centersam", path).threshold == 0.4
    found = detector("centersam", path, threshold=0.2, diameter=30)
    assert (found.threshold, found.diameter) == (0.2, 30)
    assert detector("centersam").name == "centersam centersam-v2"


def test_there_may_be_no_detector():
    assert detector("none") is None


def test_similarity_is_a_detector():
    pytest.importorskip("gigaseg.segmenters.persense.similarity")
    assert not detector("similarity").needs_weights


def test_an_unknown_detector_is_told_with_what_is_accepted():
    with pytest.raises(SegmenterError, match=r"unknown detector 'centresam'; accepted: .*did you mean 'centersam'"):
        detector("centresam")
    assert set(DETECTORS) == {"similarity", "centersam", "grounding-dino", "none"}


def test_a_text_as_label_loads_neither_torch_nor_transformers():
    code = (
        "from gigaseg.segmenters.persense.backends import detector, label_extractor; label_extractor('cell');"
        "detector('none'); import sys; print(sorted({'torch', 'transformers', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
