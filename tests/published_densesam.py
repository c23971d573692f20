"""Small copies of DenseSAM's data sets in the layouts in which they are published."""

import numpy as np
from PIL import Image
from scipy.io import savemat

from training import discs

SOURCES = ("consep_1", "consep_2", "crag_7", "glas_3")
"""Images that CoNIC's patches are of."""


def write_conic(folder, count=12, side=48, table=True):
    """CoNIC: patches with up to three nuclei, whose classes are their ids; of one image each as `SOURCES` follow."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [discs(seed, side=side, count=3) for seed in range(count)]
    labels = np.stack([label for _, label in made]).astype(np.uint16)
    np.save(folder / "images.npy", np.stack([image for image, _ in made]))
    np.save(folder / "labels.npy", np.stack([labels, labels], -1))
    (folder / "counts.csv").write_text("neutrophil\n1\n")
    if table:
        names = [f"{SOURCES[i % len(SOURCES)]}-{i:04d}" for i in range(count)]
        (folder / "patch_info.csv").write_text("\n".join(["patch_info", *names]) + "\n")
    return folder


def write_cpm15(folder, count=2, side=50):
    """CPM15: images with up to three nuclei, and the overlays that come with them."""
    for part in ("Images", "Labels", "Overlay"):
        (folder / part).mkdir(parents=True)
    for seed in range(count):
        image, labels = discs(seed, side=side, count=3)
        Image.fromarray(image).save(folder / "Images" / f"image_{seed:02d}.png")
        Image.fromarray(image).save(folder / "Overlay" / f"image_{seed:02d}.png")
        savemat(folder / "Labels" / f"image_{seed:02d}.mat", {"inst_map": labels.astype(float)}, do_compression=True)
    return folder


def write_cpm17(folder, train=3, test=2, side=50):
    """CPM17: two such folders."""
    write_cpm15(folder / "train", train, side)
    write_cpm15(folder / "test", test, side)
    return folder


def write_whu(folder, train=3, val=2, test=2, side=64):
    """WHU: images with up to three buildings, which are round here; parts have the same file names."""
    for part, count in (("train", train), ("val", val), ("test", test)):
        for seed in range(count):
            _building(folder / part / "image" / f"{seed}.tif", folder / part / "label" / f"{seed}.tif", seed, side)
    return folder


def write_inria(folder, cities=("austin", "tyrol-w"), numbers=(1, 5, 6), side=600):
    """Inria: large images with up to three buildings in their upper left quarter alone."""
    for seed, city in enumerate(cities):
        for number in numbers:
            _building(
                folder / "train" / "images" / f"{city}{number}.tif",
                folder / "train" / "gt" / f"{city}{number}.tif",
                seed + number,
                side,
                within=side // 2,
            )
    (folder / "test" / "images").mkdir(parents=True)
    return folder


def write_massachusetts(folder, train=2, val=1, test=1, side=90):
    """Massachusetts: images with red buildings; names are those of the published ones' kind."""
    for part, count in (("train", train), ("val", val), ("test", test)):
        for seed in range(count):
            name = f"2267{seed}915_15"
            image, label = folder / "tiff" / part / f"{name}.tiff", folder / "tiff" / f"{part}_labels" / f"{name}.tif"
            _building(image, label, seed, side, colour=(255, 0, 0))
    return folder


def _building(image, label, seed, side, within=None, colour=255):
    within = within or side
    pixels, ids = discs(seed, side=within, count=3)
    ground = np.random.default_rng(seed).integers(0, 40, (side, side, 3), dtype=np.uint8)
    ground[:within, :within] = pixels
    mask = np.zeros((side, side), bool)
    mask[:within, :within] = ids > 0
    for path, array in ((image, ground), (label, (mask[..., None] * np.array(colour)).astype(np.uint8).squeeze())):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
