"""Features of a frozen encoder, kept on disk: what it has seen once it need not see again.

A file belongs to exactly what the encoder saw: its name is the hash of the pixels, the encoder's weights, the precision
and the layers. So nothing can be stale, any number of runs may share a folder, and what is read is bit for bit what was
computed. Mirrored and turned views are files of their own, as an encoder's features do not turn with the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gigaseg.files import atomic
from gigaseg.sam.encoder import Encoded


@dataclass(frozen=True)
class FeatureCache:
    """A folder of features.

    Attributes
    ----------
    folder : made when first written to.
    weights : sha256 of the checkpoint whose encoder it is.
    layers : positions of the hidden features that are kept.
    """

    folder: Path
    weights: str
    layers: tuple[int, ...]

    def encode(self, images: Tensor, encoder: Callable[[Tensor], Encoded]) -> Encoded:
        """Features of a batch, computed only for images that are not there yet.

        Parameters
        ----------
        images : (b, 3, y, x) normalised, as `encoder` takes them.
        encoder : computes embedding and all hidden features of some of them.

        Returns
        -------
        Encoded
            On the device of `images`; hidden features that are not kept are empty tensors.
        """
        dtype = torch.get_autocast_dtype(images.device.type) if torch.is_autocast_enabled(images.device.type) else ""
        found = []
        for image in images:
            path = self._path(image, f"{dtype}")
            features = _read(path)
            if features is None:  # one by one: what is computed must not depend on what else was missing
                made = encoder(image[None])
                features = {"embedding": made.embedding[0], **{str(k): made.hidden[k][0] for k in self.layers}}
                self.folder.mkdir(parents=True, exist_ok=True)
                with atomic(path) as temporary:
                    save_file({name: value.cpu().contiguous() for name, value in features.items()}, temporary)
            found.append(features)

        def joined(name: str) -> Tensor:
            return torch.stack([one[name].to(images.device) for one in found])

        hidden = [images.new_zeros(0)] * (max(self.layers, default=-1) + 1)
        for k in self.layers:
            hidden[k] = joined(str(k))
        return Encoded(joined("embedding"), tuple(hidden))

    def _path(self, image: Tensor, precision: str) -> Path:
        pixels = image.contiguous().cpu()
        name = hashlib.sha256(f"{self.weights} {self.layers} {precision} {tuple(pixels.shape)}".encode())
        name.update(pixels.numpy().tobytes())
        return self.folder / f"{name.hexdigest()}.safetensors"


def _read(path: Path) -> dict[str, Tensor] | None:
    """What a file holds; None where there is none, or a damaged one, which is then written anew."""
    with suppress(SafetensorError, OSError):
        if path.is_file():
            return dict(load_file(path))
    return None
