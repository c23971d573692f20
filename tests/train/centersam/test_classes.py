"""Objects of several classes: each keeps its own through crops, batches and targets, and the detector learns them."""

import numpy as np
import pytest
import torch
from PIL import Image

from gigaseg.cli import main
from gigaseg.errors import FormatError
from gigaseg.segmenters.base import TileBatch
from gigaseg.segmenters.centersam.checkpoint import open_centersam
from gigaseg.segmenters.centersam.segmenter import CenterSam
from gigaseg.tiles.tiling import Tiling
from gigaseg.train.centersam.config import CenterSamTraining
from gigaseg.train.centersam.method import CenterSamMethod
from gigaseg.train.centersam.targets import detector_targets
from gigaseg.train.data import load
from gigaseg.train.layouts import read_layout

CLASSES = ("warm", "cold")
COLOURS = {"warm": (210, 180, 40), "cold": (40, 180, 210)}


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """The plain layout with yellow and cyan discs: classes.tsv calls the yellow ones warm and the cyan ones cold."""
    folder = tmp_path_factory.mktemp("coloured")
    index, classes = ["image\tsplit"], ["image\tinstance\tclass"]
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:112, :112] + 0.5
        labels, image = np.zeros(y.shape, np.uint16), np.full((*y.shape, 3), 20.0)
        ids = rng.permutation(np.arange(1, 60))[:9]  # neither consecutive nor in the order of places
        for k, number in enumerate(ids):
            cx, cy = np.array(divmod(k, 3)) * 37 + 18 + rng.uniform(-5, 5, 2)
            disc = (x - cx) ** 2 + (y - cy) ** 2 < 9**2
            name = CLASSES[int(rng.integers(2))]
            labels[disc], image[disc] = number, COLOURS[name]
            classes.append(f"s{seed}\t{number}\t{name}")
        Image.fromarray((image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)).save(
            folder / "images" / f"s{seed}.png"
        )
        Image.fromarray(labels).save(folder / "labels" / f"s{seed}.png")
        index.append(f"s{seed}\t{'train' if seed < 6 else 'val'}")
    (folder / "index.tsv").write_text("\n".join(index) + "\n")
    (folder / "classes.tsv").write_text("\n".join(classes) + "\n")
    return folder


def class_of(pixels):
    """Class by colour, of (..., 3)."""
    return (pixels[..., 2] > pixels[..., 0]).long()


@pytest.mark.parametrize("order", [CLASSES, CLASSES[::-1]], ids="-".join)
@pytest.mark.parametrize("letterbox", [False, True], ids=["scaled", "letterboxed"])
def test_random_crops_give_each_class_the_peaks_of_its_own_objects(sam, coloured, order, letterbox):
    samples = load(read_layout("plain", coloured), classes=order)
    training = CenterSamTraining(classes=order, crop=64, smallest=14, largest=26, letterbox=letterbox, width=8)
    method = CenterSamMethod(training, str(sam))
    seen = 0
    for seed in range(6):
        items = [method.prepare(s, np.random.default_rng([seed, i])) for i, s in enumerate(samples)]
        batch = method.collate(items, np.random.default_rng(seed))
        x, y = batch.centres.long().T
        shown = class_of(batch.images[batch.image, :, y, x])
        assert batch.classes.tolist() == [order.index(CLASSES[k]) for k in shown]
        found = detector_targets(batch, 2, batch.classes, margin=0)
        heat = found.heat.flatten(2)
        assert (heat[found.image, batch.classes, found.index] == 1).all()
        # neither channel has a peak more
        peaks = {(int(i), int(c), int(p)) for i, c, p in torch.nonzero(heat == 1)}
        assert peaks == set(zip(found.image.tolist(), batch.classes.tolist(), found.index.tolist()))
        assert batch[torch.tensor([0, 3])].classes.tolist() == batch.classes[[0, 3]].tolist()
        seen += len(batch.ids)
    assert seen > 100


def test_samples_without_classes_are_not_taken_for_the_first_class(sam, discs_apart):
    method = CenterSamMethod(CenterSamTraining(classes=CLASSES, crop=64), str(sam))
    with pytest.raises(FormatError, match="s0: its objects have no classes, accepted: warm, cold"):
        method.prepare(discs_apart[0][0], np.random.default_rng(0))


def test_a_detector_learns_to_tell_classes_apart_and_its_checkpoint_names_them_in_order(sam, coloured, tmp_path):
    out = tmp_path / "run"
    words = ["train", "centersam", "--data", str(coloured), "--sam", str(sam), "--out", str(out)]
    words += ["--classes", "cold", "warm", "--crop=64", "--smallest=16", "--largest=22", "--window=6", "--size=1"]
    words += ["--width=16", "--detail=0", "--no-native", "--steps=100", "--batch=4", "--rate=1e-2", "--warmup=5"]
    words += ["--beta2=0.95", "--ema=0.9", "--precision=fp32", "--device=cpu", "--threads=1", "--workers=0"]
    words += ["--permute=0", "--invert=0", "--grey=0", "--channel=0", "--validate-every=100"]
    assert main(words) == 0
    loaded = open_centersam(out / "best.safetensors")
    assert loaded.card["classes"] == loaded.card["detector"]["classes"] == ["cold", "warm"]
    segmenter = CenterSam.of(loaded, {"window": 6, "min_contrast": 0.0, "threshold": 0.2, "nms": 1.0})
    assert segmenter.card.classes == ("cold", "warm")

    tiling = Tiling(112, 0, 112, 112, (1.0, 1.0), (1.0, 1.0), "px")
    for sample in load(read_layout("plain", coloured)[6:], classes=("cold", "warm")):
        image = torch.tensor(sample.image).permute(2, 0, 1)[None]
        (found,) = segmenter.segment(TileBatch(image, [tiling.get(0, 0)]))
        assert found.class_prob.shape == (len(found.scores), 2)
        assert found.class_prob.sum(1).tolist() == pytest.approx([1] * len(found.scores), abs=1e-3)
        # this SAM outlines green discs alone: the objects are counted, not compared
        for k, name in enumerate(segmenter.card.classes):
            assert int((found.class_prob.argmax(1) == k).sum()) == pytest.approx(sample.classes.count(name), abs=1)
