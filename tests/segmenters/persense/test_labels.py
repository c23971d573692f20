"""A label is the user's text, CLIP's best word, or the last word of an answer; its plural follows one rule."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from gigaseg.errors import DeviceError, SegmenterError
from gigaseg.segmenters.persense.labels import (
    QUESTION,
    ClipLabel,
    StaticLabel,
    VipLlavaLabel,
    all_of,
    plural,
    shown,
)

WORDS = ("nucleus", "building", "tree")


def picture(seed=0):
    """A picture that is no square, and the mask of an object in it."""
    rgb = np.random.default_rng(seed).integers(1, 256, (40, 60, 3), dtype=np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:20, 5:30] = True
    mask[10, 5:15] = False
    return rgb, mask


@pytest.fixture(scope="module")
def tiny():
    pytest.importorskip("transformers", reason="of the extra 'persense'")
    import tiny_transformers

    return tiny_transformers


@pytest.fixture(scope="module")
def clip(tiny, tmp_path_factory):
    return tiny.write_clip(tmp_path_factory.mktemp("clip"))


@pytest.mark.parametrize(
    ("word", "plurals"),
    [
        ("nucleus", "nucleus"), ("glass", "glass"), ("monkey", "monkeys"), ("berry", "berries"), ("y", "ies"),
        ("peach", "peaches"), ("moth", "mothes"), ("potato", "potatoes"), ("pea", "peaes"), ("taxi", "taxies"),
        ("gnu", "gnues"), ("box", "boxs"), ("leaf", "leafs"), ("cell", "cells"), ("tree", "trees"),
    ],
)  # fmt: skip
def test_the_plural_follows_the_rule_of_the_released_code(word, plurals):
    assert plural(word) == plurals
    assert all_of(word) == f"all {plurals}"


def test_a_static_label_is_the_text_without_needless_blanks():
    label = StaticLabel("  tumour  nucleus ")
    assert label.label(*picture()) == "tumour nucleus"
    assert (label.name, label.needs_weights, label.deterministic) == ("static tumour nucleus", False, True)


def test_a_blank_label_is_refused():
    with pytest.raises(SegmenterError, match="label is blank"):
        StaticLabel(" ")


def test_only_the_masked_object_is_shown_in_the_middle_of_a_square():
    rgb, mask = picture()
    square = shown(rgb, mask, 0.2)
    assert square.shape == (35, 35, 3)  # 25 px and two borders of 5
    expected = np.where(mask[..., None], rgb, 0)[10:20, 5:30]
    assert (square[12:22, 5:30] == expected).all()
    square[12:22, 5:30] = 0
    assert not square.any()


def test_without_a_margin_the_whole_picture_is_shown():
    rgb, mask = picture()
    square = shown(rgb, mask, None)
    assert square.shape == (60, 60, 3)
    assert (square[10:50] == np.where(mask[..., None], rgb, 0)).all()
    assert not square[:10].any()
    assert not square[50:].any()


def test_an_empty_mask_is_refused():
    with pytest.raises(SegmenterError, match="mask is empty"):
        shown(picture()[0], np.zeros((40, 60), bool), 0.1)


@pytest.mark.parametrize("chosen", range(3), ids=WORDS)
def test_clip_says_the_word_whose_text_points_where_the_picture_does(tiny, tmp_path, chosen):
    rgb, mask = picture()

    def change(model, processor):
        """Texts are projected so that the chosen one has the picture's embedding, and the others its opposite."""
        text = [f"a photo of a {word}" for word in WORDS]
        inputs = processor(text=text, images=Image.fromarray(shown(rgb, mask, 0.25)), return_tensors="pt", padding=True)
        seen = model(**inputs)
        signs = -torch.ones(3)
        signs[chosen] = 1
        wanted = seen.image_embeds[0][:, None] * signs
        read = model.text_model(inputs["input_ids"], inputs["attention_mask"]).pooler_output.T
        model.text_projection.weight.copy_(wanted @ torch.linalg.pinv(read))

    label = ClipLabel(tiny.write_clip(tmp_path / "model", change), WORDS)
    assert label.label(rgb, mask) == WORDS[chosen]
    assert (label.needs_weights, label.deterministic) == (True, True)


def test_clip_agrees_with_its_model_called_by_hand(tiny, clip):
    processor, model = (
        tiny.transformers.CLIPProcessor.from_pretrained(clip),
        tiny.transformers.CLIPModel.from_pretrained(clip),
    )
    label = ClipLabel(clip, WORDS)
    for seed in range(4):
        rgb, mask = picture(seed)
        image = Image.fromarray(shown(rgb, mask, 0.25))
        likeness = []
        for word in WORDS:
            with torch.no_grad():
                found = model(**processor(text=[f"a photo of a {word}"], images=image, return_tensors="pt"))
            likeness.append(float(found.logits_per_image))
        assert label.label(rgb, mask) == WORDS[int(np.argmax(likeness))]


def test_what_lies_outside_the_mask_does_not_matter_to_clip(clip):
    rgb, mask = picture()
    label = ClipLabel(clip, WORDS)
    other = np.where(mask[..., None], rgb, 255 - rgb)
    assert label.label(other, mask) == label.label(rgb, mask)


@pytest.mark.parametrize("words", [("Tree", "tree"), ("tree", "Tree")])
def test_of_equal_words_clip_says_the_first(clip, words):
    assert ClipLabel(clip, words).label(*picture()) == words[0]


@pytest.mark.parametrize("words", [(), ("tree",), ("tree", " tree ", "")])
def test_clip_needs_a_choice(words):
    with pytest.raises(SegmenterError, match=r"chooses among words, found [01]"):
        ClipLabel("unread", words)


ANSWER = ("This", "is", "a", "cell", "nucleus", ".")


@pytest.mark.parametrize("rest", [(), ("###", "Human")], ids=["ends", "goes on"])
def test_vip_llava_is_taken_by_the_last_word_of_its_turn(tiny, tmp_path, rest):
    label = VipLlavaLabel(tiny.write_vip_llava(tmp_path / "model", [*ANSWER, *rest]))
    assert label.answer(*picture()) == " ".join(ANSWER)
    assert label.label(*picture()) == "nucleus"
    assert (label.needs_weights, label.deterministic) == (True, True)


def test_vip_llava_is_asked_in_the_form_that_its_folder_states(tiny, tmp_path):
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}"
        "Human: {{ c['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} Assistant:{% endif %}"
    )
    label = VipLlavaLabel(tiny.write_vip_llava(tmp_path / "model", ["nucleus"], template))
    assert label._asked() == f"<image> Human: {QUESTION} Assistant:"
    assert label.label(*picture()) == "nucleus"


def test_an_empty_answer_is_an_error_that_says_what_to_do(tiny, tmp_path):
    label = VipLlavaLabel(tiny.write_vip_llava(tmp_path / "model", ["."]))
    with pytest.raises(SegmenterError, match=r"answered '\.', expected a noun; give the label as text"):
        label.label(*picture())


def test_a_temperature_makes_vip_llava_sample(tiny, tmp_path):
    label = VipLlavaLabel(tiny.write_vip_llava(tmp_path / "model", ["nucleus"]), temperature=0.01)
    assert not label.deterministic
    assert label.label(*picture()) == "nucleus"  # the other tokens have no chance


def test_a_missing_package_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        SegmenterError, match=r"'clip' needs the package transformers.*pip install 'gigaseg\[persense\]'"
    ):
        ClipLabel("unread", WORDS)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", ["no/such/folder", "/no/such/folder", "nobody/nothing"])
def test_a_model_that_is_nowhere_is_told_in_one_line(monkeypatch, name):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # else it is asked for half a minute
    with pytest.raises(SegmenterError, match=rf"^{name}: back end 'clip' cannot load it \(.*'clip'$") as error:
        ClipLabel(name, WORDS)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("tiny")
def test_an_empty_folder_is_told_in_one_line(tmp_path):
    with pytest.raises(SegmenterError, match="cannot load it") as error:
        ClipLabel(str(tmp_path), WORDS)
    assert "\n" not in str(error.value)


def test_a_model_of_another_kind_is_refused(clip):
    with pytest.raises(SegmenterError, match="of type 'clip', accepted by back end 'vip-llava': 'vipllava'"):
        VipLlavaLabel(clip)


def test_a_model_that_lacks_weights_is_refused(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny.write_clip(tmp_path / "model")
    state = load_file(f"{folder}/model.safetensors")
    del state["text_projection.weight"]
    save_file(state, f"{folder}/model.safetensors", {"format": "pt"})
    with pytest.raises(SegmenterError, match=r"weights lack 1 tensors, such as 'text_projection\.weight'"):
        ClipLabel(folder, WORDS)


def test_code_in_a_folder_is_not_run(tiny, tmp_path):
    folder = tiny.write_clip(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (tmp_path / "model" / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(SegmenterError, match="cannot load it"):
        ClipLabel(folder, WORDS)
    assert not ran.exists()


def test_a_device_that_is_not_there_is_refused(clip):
    with pytest.raises(DeviceError, match="cuda:99"):
        ClipLabel(clip, WORDS, device="cuda:99")
