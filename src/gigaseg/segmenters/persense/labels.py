"""What an exemplar is called: by the user, by CLIP, or by a vision-language model, which is the method's own way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gigaseg.errors import SegmenterError
from gigaseg.segmenters.persense.base import Mask, Picture

CLIP_MODEL = "openai/clip-vit-base-patch32"
"""0.6 GB, MIT."""

VIP_LLAVA_MODEL = "llava-hf/vip-llava-7b-hf"
"""The paper's, as converted for transformers; 14 GB in 16 bits. Its base, Vicuna 1.5, is under the Llama 2 licence."""

QUESTION = "Name the object in the image?"
"""What the paper asks."""

_CHAT = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions.###Human: <image>\n{}###Assistant:"
)
"""The form in which ViP-LLaVA was trained, for copies of it that state none."""

_LONGEST = 512
"""Most tokens of an answer, as the released code has it."""


def plural(word: str) -> str:
    """The plural by the rule of the released code, which knows no exceptions ("leafs").

    >>> [plural(word) for word in ("nucleus", "monkey", "berry", "peach", "potato", "cell")]
    ['nucleus', 'monkeys', 'berries', 'peaches', 'potatoes', 'cells']
    """
    if word.endswith("s"):
        return word
    if word.endswith("y") and not word.endswith("ey"):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("h", "a", "i", "o", "u")) else "s")


def all_of(word: str) -> str:
    """What the detector is asked for to find every object of a name.

    >>> all_of("cell")
    'all cells'
    """
    return f"all {plural(word)}"


def shown(rgb: Picture, mask: Mask, margin: float | None) -> Picture:
    """The masked object alone, on a black square: models cut off what lies outside the middle square.

    Parameters
    ----------
    rgb, mask : of one picture.
    margin : black border around the object's box, in parts of the box's longer side; None: the whole picture.

    Returns
    -------
    (s, s, 3) uint8.

    Raises
    ------
    SegmenterError
        The mask is empty.
    """
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise SegmenterError("the exemplar's mask is empty, expected the px of an object")
    seen = np.where(mask[..., None], rgb, 0).astype(np.uint8)
    if margin is not None:
        seen = seen[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    height, width = seen.shape[:2]
    side = round(max(height, width) * (1 + 2 * (margin or 0)))
    y, x = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, 3), np.uint8)
    square[y : y + height, x : x + width] = seen
    return square


class StaticLabel:
    """A name that the user gives.

    Attributes
    ----------
    text : the name.
    name, needs_weights, deterministic : as `BackEnd`.

    Raises
    ------
    SegmenterError
        The text is blank.
    """

    needs_weights = False
    deterministic = True

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.split())
        if not self.text:
            raise SegmenterError("label is blank, accepted: a noun, such as 'nucleus'")
        self.name = f"static {self.text}"

    def label(self, rgb: Picture, mask: Mask) -> str:
        """The text, whatever is shown."""
        return self.text


class ClipLabel:
    """The word of a list that CLIP finds most like the exemplar; of equals the first.

    Attributes
    ----------
    words : to choose from, each once.
    name, needs_weights, deterministic : as `BackEnd`.

    Parameters
    ----------
    model : a folder or a name on the hub, of a model of type "clip".
    words : two or more.
    device : as `gigaseg.devices.choose_device` takes it.
    margin : as `shown`.
    prompt : what CLIP reads, with {} in place of a word.

    Raises
    ------
    SegmenterError
        There is no choice of words; as `gigaseg.segmenters.persense.hub.pretrained`.
    """

    needs_weights = True
    deterministic = True

    def __init__(
        self,
        model: str = CLIP_MODEL,
        words: Sequence[str] = (),
        device: str = "cpu",
        margin: float | None = 0.25,
        prompt: str = "a photo of a {}",
    ) -> None:
        from gigaseg.segmenters.persense.hub import pretrained

        self.words = tuple(dict.fromkeys(word for word in (" ".join(word.split()) for word in words) if word))
        if len(self.words) < 2:
            raise SegmenterError(
                f"back end 'clip' chooses among words, found {len(self.words)}, accepted: two or more, such as "
                "'clip:nucleus,building'"
            )
        self.name = f"clip {model}"
        self._margin, self._prompt = margin, prompt
        self._processor, self._model, self._device = pretrained("clip", model, "CLIPModel", "clip", device)

    def label(self, rgb: Picture, mask: Mask) -> str:
        """The word for what the mask covers."""
        import torch
        from PIL import Image

        inputs = self._processor(
            text=[self._prompt.format(word) for word in self.words],
            images=Image.fromarray(shown(rgb, mask, self._margin)),
            return_tensors="pt",
            padding=True,
            truncation=True,
        ).to(self._device)
        with torch.inference_mode():
            likeness = self._model(**inputs).logits_per_image[0].float().cpu().numpy()
        return self.words[int(likeness.argmax())]


class VipLlavaLabel:
    """The noun in the answer of ViP-LLaVA (Cai et al. 2024), asked what it sees: the last word, as the code takes it.

    The released code samples the answer, at a temperature of 0.2: two runs may differ. Here the likeliest is taken.

    Attributes
    ----------
    name, needs_weights, deterministic : as `BackEnd`.

    Parameters
    ----------
    model : a folder or a name on the hub, of a model of type "vipllava". It stays in memory as long as this object:
        in float16 on a GPU, in bfloat16 on a CPU, 14 GB.
    device : as `gigaseg.devices.choose_device` takes it.
    temperature : 0 for the likeliest answer; above, answers are sampled.
    margin : as `shown`; the paper shows the whole picture, in which small objects are hard to see.

    Raises
    ------
    SegmenterError
        As `gigaseg.segmenters.persense.hub.pretrained`.
    """

    needs_weights = True

    def __init__(
        self,
        model: str = VIP_LLAVA_MODEL,
        device: str = "cpu",
        temperature: float = 0.0,
        margin: float | None = None,
    ) -> None:
        from gigaseg.segmenters.persense.hub import pretrained

        self.name = f"vip-llava {model}"
        self.deterministic = temperature <= 0
        self._margin = margin
        self._how = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
        self._processor, self._model, self._device = pretrained(
            "vip-llava", model, "VipLlavaForConditionalGeneration", "vipllava", device,
            {"cuda": "float16", "cpu": "bfloat16"},
        )  # fmt: skip

    def label(self, rgb: Picture, mask: Mask) -> str:
        """The noun for what the mask covers.

        Raises
        ------
        SegmenterError
            The mask or the answer is empty.
        """
        said = self.answer(rgb, mask)
        words = said.replace(".", "").split()
        if not words:
            raise SegmenterError(
                f"back end 'vip-llava' answered {said[:40]!r}, expected a noun; give the label as text"
            )
        return words[-1]

    def answer(self, rgb: Picture, mask: Mask) -> str:
        """All that the model says of what the mask covers."""
        import torch
        from PIL import Image

        picture = Image.fromarray(shown(rgb, mask, self._margin))
        inputs = self._processor(images=picture, text=self._asked(), return_tensors="pt")
        inputs = inputs.to(self._device, self._model.dtype)  # whole numbers stay what they are
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, max_new_tokens=_LONGEST, num_beams=1, **self._how)
        said = self._processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return str(said).partition("###")[0].strip()  # where the next turn would begin

    def _asked(self) -> str:
        if not self._processor.chat_template:
            return _CHAT.format(QUESTION)
        said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
        return str(self._processor.apply_chat_template(said, add_generation_prompt=True, tokenize=False))
