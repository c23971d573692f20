"""Small copies of data sets in the layouts in which they are published."""

import numpy as np
from PIL import Image

from training import discs

HEAD = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"
IMAGES = {
    "train_1": (2, "malignant"), "train_2": (2, "benign"), "train_3": (3, "benign"), "train_10": (4, "malignant"),
    "train_11": (5, "benign"), "testA_1": (2, "malignant"), "testA_2": (6, "benign"), "testB_1": (7, "benign"),
}  # fmt: skip
"""Patient and grade; patient 2 has both grades, in train and test."""


def write_dsb2018(folder, images=10):
    """The 2018 Data Science Bowl: images of 64 x 64 px with up to three nuclei."""
    for seed in range(images):
        image, labels = discs(seed, side=64, count=3)
        case = folder / "stage1_train" / f"case{seed}"
        for part in ("images", "masks"):
            (case / part).mkdir(parents=True)
        Image.fromarray(image).save(case / "images" / f"case{seed}.png")
        for number in np.unique(labels)[1:]:
            Image.fromarray((labels == number).astype(np.uint8) * 255).save(case / "masks" / f"{number}.png")
    return folder


def write_monuseg(folder, names, side=100):
    """MoNuSeg: images of side x side px with one nucleus each, a rectangle."""
    corners = ((20, 20), (50, 20), (50, 45), (20, 45))
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
    for part in ("Tissue Images", "Annotations"):
        (folder / part).mkdir(parents=True)
    for seed, name in enumerate(names):
        Image.fromarray(discs(seed, side=side)[0]).save(folder / "Tissue Images" / f"{name}.tif")
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<Annotations><Annotation><Regions><Region><Vertices>{vertices}</Vertices></Region></Regions></Annotation>"
            "</Annotations>"
        )
    return folder


def write_glas(folder, side=64):
    """GlaS 2015, with the blanks of its table.

    Images of 64 x 48 px with three glands of the ids 1, 2 and 9 (fewer where discs hide others).
    """
    folder.mkdir(exist_ok=True)
    lines = [HEAD]
    for seed, (name, (patient, grade)) in enumerate(IMAGES.items()):
        image, labels = (array[: side * 3 // 4] for array in discs(seed, side=side, count=3))
        Image.fromarray(image).save(folder / f"{name}.bmp")
        Image.fromarray(np.where(labels == 3, 9, labels).astype(np.uint8)).save(folder / f"{name}_anno.bmp")
        lines.append(f"{name},{patient}, {grade}, healthy")
    (folder / "Grade.csv").write_text("\r\n".join(lines) + "\r\n")
    return folder
