"""A small copy of GlaS 2015 as it is published, with the blanks of its table."""

import numpy as np
from PIL import Image

from training import discs

HEAD = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"
IMAGES = {
    "train_1": (2, "malignant"), "train_2": (2, "benign"), "train_3": (3, "benign"), "train_10": (4, "malignant"),
    "train_11": (5, "benign"), "testA_1": (2, "malignant"), "testA_2": (6, "benign"), "testB_1": (7, "benign"),
}  # fmt: skip
"""Patient and grade; patient 2 has both grades, in train and test."""


def write_glas(folder, side=64):
    """Images of 64 x 48 px with three glands of the ids 1, 2 and 9 (fewer where discs hide others)."""
    folder.mkdir(exist_ok=True)
    lines = [HEAD]
    for seed, (name, (patient, grade)) in enumerate(IMAGES.items()):
        image, labels = (array[: side * 3 // 4] for array in discs(seed, side=side, count=3))
        Image.fromarray(image).save(folder / f"{name}.bmp")
        Image.fromarray(np.where(labels == 3, 9, labels).astype(np.uint8)).save(folder / f"{name}_anno.bmp")
        lines.append(f"{name},{patient}, {grade}, healthy")
    (folder / "Grade.csv").write_text("\r\n".join(lines) + "\r\n")
    return folder
