"""Small copies of CFR-SAM's data sets in the layouts in which they are published."""

import numpy as np
from PIL import Image
from scipy.io import savemat

from training import discs

TISSUES = ("Breast", "Colon", "Adrenal_gland")
"""Of PanNuke's images, in turn."""

NUCLEI = ((0, 2, 2), (1, 2, 20), (2, 20, 2), (3, 20, 20), (4, 36, 20))
"""Of an image of PanNuke: class, y and x of squares of 10 px, one of each class; `pannuke_masks` leaves some out."""


def pannuke_masks(kept=range(5), side=48, overlap=False):
    """(side, side, 6) float64 as published: ids of the classes' nuclei, background 1 where there is none.

    With `overlap` a neoplastic nucleus reaches 5 px into the inflammatory one, which the merged map has on top.
    """
    masks = np.zeros((side, side, 6))
    for number, (channel, y, x) in enumerate((NUCLEI[k] for k in kept), 3):
        masks[y : y + 10, x : x + 10, channel] = number
    if overlap:
        masks[2:12, 15:25, 0] = 99
    masks[..., 5] = ~masks[..., :5].any(-1)
    return masks


def pannuke_fold(count, first=0, side=48):
    """Images, masks and tissues of a fold; of four images the third is empty and the fourth has crossing nuclei."""
    kept = (range(5), (0, 4), (), (0, 1))
    masks = np.stack([pannuke_masks(kept[i % 4], side, overlap=i % 4 == 3) for i in range(count)])
    images = np.stack([discs(first + i, side=side, count=0)[0] for i in range(count)]).astype(np.float64)
    images[masks[..., :5].any(-1)] = (120, 40, 140)
    return images, masks, np.array([TISSUES[i % len(TISSUES)] for i in range(count)])


def write_pannuke(folder, counts=(4, 4, 4), side=48, spelling="Fold {0}/{kind}/fold{0}", dtype=np.float64):
    """PanNuke: three folds; `spelling` is the folder of an array of a kind (images, masks).

    A fold without images is not there.
    """
    for fold, count in enumerate(counts, 1):
        if not count:
            continue
        images, masks, tissues = pannuke_fold(count, 100 * fold, side)
        for kind, name, array in (
            ("images", "images", images.astype(dtype)),
            ("images", "types", tissues),
            ("masks", "masks", masks),
        ):
            place = folder / spelling.format(fold, kind=kind)
            place.mkdir(parents=True, exist_ok=True)
            np.save(place / f"{name}.npy", array)
    return folder


def write_consep(folder, train=3, test=2, side=64):
    """CoNSeP: images with up to seven nuclei, whose type is their id; types of their order and as a map."""
    for part, count in (("Train", train), ("Test", test)):
        for kind in ("Images", "Labels", "Overlay"):
            (folder / part / kind).mkdir(parents=True)
        for seed in range(count):
            image, labels = discs(seed, side=side, count=7, radius=5)
            ids = np.unique(labels)[1:]
            name = f"{part.lower()}_{seed + 1}"
            Image.fromarray(image).save(folder / part / "Images" / f"{name}.png")
            savemat(
                folder / part / "Labels" / f"{name}.mat",
                {
                    "inst_map": labels.astype(float),
                    "type_map": labels.astype(float),
                    "inst_type": ids[:, None].astype(float),
                    "inst_centroid": np.array([np.argwhere(labels == i).mean(0)[::-1] for i in ids]),
                },
            )
    return folder
