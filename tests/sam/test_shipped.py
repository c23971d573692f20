"""The weights inside the package: what their cards say, how large they are, and that they outline nuclei."""

import numpy as np
import pytest
import torch

from gigaseg.sam.backend import Backend
from gigaseg.sam.checkpoints import read_checkpoint
from gigaseg.sam.config import CONFIGS
from gigaseg.sam.downloads import shipped
from gigaseg.sam.encoder import normalise
from gigaseg.sam.prompting import box_sets, point_sets
from gigaseg.segmenters.cfrsam.checkpoint import open_adapted, open_cfrsam
from gigaseg.segmenters.cfrsam.model import Refiner, encode_images
from gigaseg.segmenters.cfrsam.segmenter import CfrSam
from gigaseg.segmenters.densesam.checkpoint import open_densesam
from gigaseg.segmenters.densesam.segmenter import DenseSam
from gigaseg.segmenters.sac.checkpoint import open_sac
from gigaseg.segmenters.sac.segmenter import Sac
from gigaseg.segmenters.whole import segment_image
from gigaseg.testing import synthetic_image


def test_all_that_ships_is_small_and_made_of_free_data():
    files = shipped()
    assert "small-v1" in files
    assert sum(path.stat().st_size for path in files.values()) <= 60e6
    for name, path in files.items():
        assert path.stat().st_size <= 50e6
        _, state, card = read_checkpoint(name)
        assert card["licence"] == "CC0-1.0", name
        assert card.keys() >= {"data", "split", "figures", "seed", "commit", "loop", "step", "minutes"}, name
        assert all(tensor.isfinite().all() for tensor in state.values()), name


def test_small_is_the_model_that_its_card_describes():
    backend = Backend.open()
    assert backend.config == CONFIGS["small"]
    assert sum(p.numel() for p in backend.model.parameters()) == 6_014_272
    assert backend.card["name"] == "small-v1"
    nominal = backend.card["nominal"]
    assert (nominal["object_diameter_px"], nominal["pixel_size_um"]) == (20.0, 0.4), "nuclei of 8 µm"
    for prompt in ("box", "jittered", "centre", "point"):
        for group in ("", "/fluorescence", "/purple", "/brightfield"):
            assert 0 < backend.card["figures"][prompt + group] < 1
    assert backend.window(-1) == 10


@pytest.mark.parametrize(("kind", "boxed", "pointed"), [("brightfield", 0.45, 0.5), ("fluorescence", 0.6, 0.65)])
def test_small_outlines_generated_nuclei_from_boxes_and_from_points(kind, boxed, pointed):
    image, labels = synthetic_image((512, 512), mpp=0.4, seed=3, kind=kind)
    if kind == "fluorescence":
        image = np.repeat((image / image.max() * 255).astype(np.uint8)[..., None], 3, axis=2)
    tile = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    masks, boxes, points = [], [], []
    for number in np.unique(labels)[1:]:
        mask = labels == number
        y, x = np.nonzero(mask)
        if mask.sum() < 60 or min(x.min(), y.min()) == 0 or max(x.max(), y.max()) == 511:
            continue
        masks.append(mask)
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
        points.append([x.mean() + 0.5, y.mean() + 0.5])
    assert len(masks) > 20
    backend = Backend.open()
    image_of = torch.zeros(len(masks), dtype=torch.int64)
    for sets, least in (
        (box_sets(image_of, torch.tensor(np.array(boxes), dtype=torch.float32)), boxed),
        (point_sets(image_of, torch.tensor(np.array(points), dtype=torch.float32)), pointed),
    ):
        found = backend.masks(backend.encode(tile), sets, (512, 512), window=backend.window(-1))
        iou = []
        for truth, mask, (x0, y0, x1, y1) in zip(masks, found.unpack(), found.boxes.tolist()):
            whole = np.zeros_like(truth)
            whole[y0:y1, x0:x1] = mask.numpy()
            iou.append((whole & truth).sum() / (whole | truth).sum())
        assert np.mean(iou) > least


@pytest.mark.parametrize(("kind", "least", "most"), [("brightfield", 0.65, 1.6), ("fluorescence", 0.8, 1.3)])
def test_sac_finds_the_foreground_of_generated_nuclei_with_and_without_points(kind, least, most):
    image, labels = synthetic_image((512, 512), mpp=0.3, seed=3, kind=kind)
    if kind == "fluorescence":
        image = np.repeat((image / image.max() * 255).astype(np.uint8)[..., None], 3, axis=2)
    tile = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    loaded = open_sac()
    assert loaded.config.rank == 64
    for pairs in (-1, 0):
        inside = Sac.of(loaded, {"pairs": pairs}).probability(tile)[0].numpy() > 0.5
        truth = labels > 0
        assert 2 * (inside & truth).sum() / (inside.sum() + truth.sum()) > least
    found = segment_image(Sac.of(loaded), image)
    assert 0.6 < len(np.unique(found)) / len(np.unique(labels)) < most


@pytest.mark.parametrize(("kind", "least", "most"), [("brightfield", 0.65, 1.8), ("fluorescence", 0.85, 1.2)])
def test_densesam_finds_generated_nuclei_without_a_prompt(kind, least, most):
    image, labels = synthetic_image((512, 512), mpp=0.3, seed=3, kind=kind)
    if kind == "fluorescence":
        image = np.repeat((image / image.max() * 255).astype(np.uint8)[..., None], 3, axis=2)
    loaded = open_densesam()
    assert (loaded.config.heads, loaded.config.inner_idx) == (2, (0, 1, 2))
    segmenter = DenseSam.of(loaded)
    tile = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    inside, truth = segmenter.probability(tile)[0, 0].numpy() > 0.5, labels > 0
    assert 2 * (inside & truth).sum() / (inside.sum() + truth.sum()) > least
    found = segment_image(segmenter, image)
    assert 0.6 < len(np.unique(found)) / len(np.unique(labels)) < most


@pytest.mark.parametrize(("kind", "least", "most"), [("brightfield", 0.65, 1.6), ("fluorescence", 0.7, 1.3)])
def test_cfrsam_finds_a_point_and_a_mask_for_generated_nuclei(kind, least, most):
    image, labels = synthetic_image((384, 384), mpp=0.3, seed=4, kind=kind)
    if kind == "fluorescence":
        image = np.repeat((image / image.max() * 255).astype(np.uint8)[..., None], 3, axis=2)
    loaded = open_cfrsam()
    assert loaded.config.rank == 64
    assert 0 < loaded.points.threshold < 1
    found = segment_image(CfrSam.of(loaded), image, tile=256, overlap=96)
    truth = labels > 0
    assert 2 * ((found > 0) & truth).sum() / ((found > 0).sum() + truth.sum()) > least
    assert 0.6 < len(np.unique(found)) / len(np.unique(labels)) < most


def test_masks_refined_in_squares_are_those_of_whole_windows():
    image, labels = synthetic_image((384, 384), mpp=0.3, seed=4, kind="brightfield")
    points = [[x.mean() + 0.5, y.mean() + 0.5] for y, x in (np.nonzero(labels == n) for n in np.unique(labels)[1:])]
    adapted = open_adapted("cfrsam-v1")
    backend, added = adapted.backend, adapted.added
    sets = point_sets(torch.zeros(len(points), dtype=torch.int64), torch.tensor(np.array(points), dtype=torch.float32))
    tile = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    found = []
    with backend.running():
        seen = encode_images(backend.model, added, normalise(tile, backend.config))
        for local in (0, -1):
            refine = Refiner(added, seen.maps, local)
            masks = backend.masks(seen.encoded, sets, (384, 384), window=10, refine=refine, fine=added.fine)
            canvas = np.zeros((len(points), 384, 384), bool)
            for k, (mask, (x0, y0, x1, y1)) in enumerate(zip(masks.unpack(), masks.boxes.tolist())):
                canvas[k, y0:y1, x0:x1] = mask.numpy()
            found.append(canvas)
    whole, squares = found
    assert whole.any((1, 2)).sum() > 15
    either = (whole | squares).sum((1, 2))
    iou = (whole & squares).sum((1, 2))[either > 0] / either[either > 0]
    assert iou.mean() > 0.99
