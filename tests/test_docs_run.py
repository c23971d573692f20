"""Commands and examples of the pages do what the pages say, on small slides and with the quickest segmenter."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from documented import ROOT, blocks, run
from gigaseg.cli import main
from gigaseg.testing.demo import write_demo
from plugins import known

SIDE = 384
"""px, of slides that are looked at by models."""

TWO_CORES = (r"--cores (8|all)\b", "--cores 2")


def block(page, part):
    """The text of the one block of a page that has these words."""
    [found] = [block.text for block in blocks(page) if part in block.text and block.holds_commands]
    return found


def python(page, part, **names):
    """Run an example; returns its names."""
    exec(compile(block(page, part), page, "exec"), names)
    return names


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Working directory with what a checkout has for the workflow; `gigaseg demo` makes a small slide."""
    for name in ("Snakefile", "workflow", "Makefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    config = (ROOT / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("name: centersam ", "name: watershed "))
    (tmp_path / "slides.tsv").write_text((ROOT / "slides.tsv").read_text())
    tools = tmp_path / ".venv" / "bin"  # the Makefile's
    tools.mkdir(parents=True)
    here = Path(sys.executable).parent
    gigaseg = f'#!/bin/sh\n[ "$1" = demo ] && set -- "$@" --side 512\nexec {here}/gigaseg "$@"\n'
    snakemake = f'#!/bin/bash\nset -- "${{@/#all/2}}"\nexec {here}/snakemake "$@"\n'
    for name, script in {"gigaseg": gigaseg, "snakemake": snakemake}.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{here}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fetched(command, *more):
    """Start a server as the page says, at a free port; returns its page."""
    words = [sys.executable, "-u", "-m", *command.split(), *more]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            address = re.search(r"http://[^\s)]+", server.stdout.readline())[0]
            with urllib.request.urlopen(address, timeout=30) as answer:
                return answer.read().decode()
        finally:
            server.terminate()


@pytest.mark.slow
def test_make_demo_and_the_start_of_the_readme(checkout):
    done = subprocess.run(
        ["make", "--old-file=.venv/.from-lock", "demo"], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found, true, f1 = map(
        float, re.search(r"found (\d+) nuclei, true (\d+), F1 at IoU 0.5: (\S+)", done.stdout).groups()
    )
    assert 0.5 * true < found < 1.5 * true
    assert f1 > 0.7
    assert (checkout / "demo" / "results" / "report.html").exists()

    (checkout / "results").symlink_to(checkout / "demo" / "results")  # the same slide: only its group is another
    run(
        block("README.md", "gigaseg demo --out demo"),
        [(r"^pip .*", "true"), (r"^gigaseg demo", " gigaseg demo"), TWO_CORES],
    )
    assert len(python("README.md", "nuclei = geopandas")["nuclei"]) == found
    answers_of_the_faq(found)


def answers_of_the_faq(found):
    again = block("docs/faq.md", "--forcerun").rstrip()
    run(f"{again} --dry-run | tee planned", [TWO_CORES, ("snakemake", "snakemake --dry-run"), (" --dry-run [|]", " |")])
    planned = dict(re.findall(r"^(\w+) +(\d+)$", Path("planned").read_text(), re.MULTILINE))
    assert {"inspect", "grid", "segment", "stitch", "measure"} <= set(planned)
    assert not {"aggregate", "report"} & set(planned)
    for part in ("gpu=1\n```", "gigaseg status", "gigaseg doctor\n"):
        run(
            block("docs/faq.md", part.removesuffix("```")), [TWO_CORES, ("^gigaseg doctor", "true")]
        )  # see test_doctor.py
    run(block("docs/report.md", "gigaseg status --json"))
    assert len(python("docs/faq.md", "table = nuclei.merge")["table"]) == found


@pytest.mark.slow
def test_the_first_slide(checkout, capsys):
    page = "docs/first-slide.md"
    write_demo(checkout / "made", side=512, seed=1)
    (checkout / "made" / "slide.tif").rename(checkout / "CMU-1-Small-Region.svs")
    run(block(page, "printf"))
    run(block(page, "gpu=1 --config slides=mine.tsv"))
    results = checkout / "mine" / "CMU-1"
    features = json.loads((results / "export" / "instances.geojson").read_text())["features"]
    python(page, "import geopandas")
    count, area = capsys.readouterr().out.split()
    assert int(count) == len(features) > 50
    assert 20 < float(area) < 80
    cohort = pd.read_csv(checkout / "mine" / "cohort.tsv", sep="\t")
    assert cohort["instances"].tolist() == [int(count)]
    told = [row.split("|")[1].strip() for row in (ROOT / page).read_text().splitlines() if row.startswith("| ")]
    report = (checkout / "mine" / "report.html").read_text().lower()
    assert [
        word for word in told if word in ("instances", "foreground", "density", "coverage") and word not in report
    ] == []
    assert (results / "overview.png").exists()

    looked = [
        block(page, "gigaseg view mine"),
        block("docs/view.md", "gigaseg view results\n"),
        block("docs/faq.md", "gigaseg view"),
    ]
    for command in looked:
        assert "<script" in fetched(command.replace(" results", " mine"), "--port", "0")
    written, served = block("docs/view.md", "--out viewer").replace(" results", " mine").splitlines()
    run(written)
    assert "<script" in fetched(served.removeprefix("python -m "), "0")

    [mine] = [found.text for found in blocks(page) if found.language == "yaml"]
    (checkout / "mine.yaml").write_text(mine)
    run(block(page, "--configfile mine.yaml"))
    assert len(pd.read_csv(results / "export" / "instances.csv")) == int(count)


@pytest.fixture
def by_hand(tmp_path, monkeypatch):
    """Working directory with slide.svs and truth.geojson."""
    monkeypatch.chdir(tmp_path)
    write_demo(tmp_path, side=SIDE, seed=1)
    Path("slide.tif").rename("slide.svs")
    Path("slide.geojson").rename("truth.geojson")
    return tmp_path


@pytest.mark.slow
def test_the_steps_by_hand(by_hand, capsys):
    quick = [
        (r"--workers 8", "--workers 1"),
        (r"^(gigaseg (grid|segment) (?!.*--segmenter).*)", r"\1 --segmenter watershed"),
    ]
    run(block("README.md", "gigaseg inspect slide.svs"), quick)
    assert float(re.search(r"f1_50 +(\S+)", capsys.readouterr().out)[1]) > 0.7
    assert json.loads(Path("s/instances.geojson").read_text())["features"]
    usage = block("docs/stitching.md", "gigaseg stitch")
    run(usage, [(r"\[--\S+ \S+\]", ""), ("results/S", "s")])

    run(block("docs/faq.md", "--pixel-size 0.5"))
    assert json.loads(Path("s/slide.json").read_text())["pixel_size_source"] == "sheet"
    run(block("docs/faq.md", "--object-diameter 12"))
    main(["stitch", "s/instances/000.parquet", "--grid", "s/grid.parquet", "--out", "s/instances.parquet"])
    run(block("docs/faq.md", "gigaseg evaluate"))
    assert "f1_50" in capsys.readouterr().out


@pytest.mark.slow
def test_prompts_by_hand(by_hand):
    import geopandas

    main(["inspect", "slide.svs", "--slide", "s", "--out", "s/slide.json"])
    truth = geopandas.read_file("truth.geojson")
    truth.iloc[::20].to_file("mine.geojson")
    run(block("docs/prompts.md", "--segmenter prompted"))
    main(["stitch", "s/instances/000.parquet", "--grid", "s/grid.parquet", "--out", "s/instances.parquet"])
    Path("results").mkdir()
    Path("results/town").symlink_to(Path("s").absolute())
    instances = python("docs/prompts.md", "import geopandas")["instances"]
    drawn = truth.iloc[::20].reset_index(drop=True)
    assert sorted(instances["feature"]) == list(range(len(drawn)))
    shapes = drawn.geometry.loc[instances["feature"]].to_numpy()
    assert instances.geometry.intersects(geopandas.GeoSeries(shapes, instances.index)).all()

    geopandas.GeoDataFrame(geometry=truth.centroid[:5]).to_file("mine.geojson")
    main(["grid", "s/slide.json", "--segmenter", "sac", "--out", "s/grid.parquet", "--foreground", "s/foreground.tif"])
    run(block("docs/prompts.md", "--every-tile"))
    assert set(pd.read_parquet("s/prompts.parquet")["feature"]) == set(range(5))


def test_a_model_of_ones_own(tmp_path, monkeypatch, capsys):
    """What pip would do is done by hand, since it needs an index for the build."""
    import tomllib

    page = "docs/own-model.md"
    monkeypatch.chdir(tmp_path)
    for file in blocks(page):
        if file.title:
            Path(file.title).parent.mkdir(parents=True, exist_ok=True)
            Path(file.title).write_text(file.text)
    run(block(page, "pip install -e my_model"), [("^pip .*", "true")])
    project = tomllib.loads(Path("my_model/pyproject.toml").read_text())["project"]
    with known(tmp_path / "my_model", project["name"], project["entry-points"]["gigaseg.segmenters"]):
        run(block(page, "gigaseg demo --out demo"), [("--side 1024", "--side 512")])
        assert float(re.search(r"f1_50 +(\S+)", capsys.readouterr().out)[1]) > 0.6
    run(block(page, "--annotations demo/slide.geojson"))
    drawn = json.loads(Path("demo/slide.geojson").read_text())["features"]
    assert json.loads(Path("own/summary.json").read_text())["instances"] == len(drawn)


def test_one_object_is_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(block("docs/persense.md", "gigaseg demo"))
    assert len(json.loads(Path("demo/one.geojson").read_text())["features"]) == 1
    assert pd.read_csv("demo/slides.tsv", sep="\t")["exemplar"].tolist() == ["one.geojson"]


def test_the_examples_in_python(tmp_path, monkeypatch):
    import torch
    from PIL import Image

    from gigaseg.segmenters.base import Context
    from gigaseg.segmenters.card import read_card
    from gigaseg.segmenters.registry import load_segmenter
    from gigaseg.segmenters.whole import nominal_tiling
    from gigaseg.testing import synthetic_image
    from gigaseg.testing.array_slide import ArraySlide

    monkeypatch.chdir(tmp_path)
    image, truth = (array[100:356, 100:356] for array in synthetic_image((456, 456), seed=3))
    card = read_card("watershed")
    info = ArraySlide(np.zeros((1, 1, 3), np.uint8)).info
    watershed = load_segmenter("watershed", Context(info, nominal_tiling(card), options=card.complete({})))
    labels = python("docs/accuracy.md", "estimate_diameter", segmenter=watershed, image=image)["labels"]
    assert labels.shape == truth.shape
    assert labels.max() > 10

    folders = {"prediction_folder": tmp_path / "found", "truth_folder": tmp_path / "true"}
    for folder, array in zip(folders.values(), (labels, truth)):
        folder.mkdir()
        Image.fromarray(array.astype(np.uint16)).save(folder / "a.png")
    python("docs/metrics.md", "score_labels", truth=truth, prediction=labels, **folders)

    tiles = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    ours = (
        block("docs/sam.md", "encode(sam")
        .replace('CONFIGS["vit_b"]', 'CONFIGS["small"]')
        .replace('"vit_b"', '"small-v1"')
    )
    names = {"images": tiles}
    exec(compile(ours, "docs/sam.md", "exec"), names)
    assert names["encoded"].embedding.shape[0] == 1
    ours = block("docs/sam.md", "write_delta(").replace('"vit_b"', '"small-v1"')
    exec(compile(ours, "docs/sam.md", "exec"), names)
    assert names["card"]["licence"] == "CC0-1.0"
    ours = block("docs/sam.md", "Backend.open").replace('"vit_b", device="cuda"', '"small-v1", device="cpu"')
    exec(compile(ours.replace("(512, 512)", "(256, 256)"), "docs/sam.md", "exec"), names | {
        "tiles": tiles, "image": torch.zeros(2, dtype=torch.long), "xy": torch.tensor([[60.0, 60], [120.0, 99]]),
    })  # fmt: skip


def test_configurations_of_the_pages_are_accepted(tmp_path, monkeypatch):
    """Each YAML block with presets, laid over config.yaml as Snakemake does it."""
    from snakemake.utils import update_config

    from documented import PAGES
    from gigaseg.config import load_config

    monkeypatch.chdir(tmp_path)
    shown = [found for page in PAGES for found in blocks(page) if re.search("^presets:", found.text, re.MULTILINE)]
    assert len(shown) > 5
    for found in shown:
        content = yaml.safe_load((ROOT / "config.yaml").read_text())
        mine = yaml.safe_load(found.text)
        for preset in mine["presets"].values():
            weights = Path(preset["segmenter"].get("checkpoint") or "none")
            if weights.suffix:
                weights.parent.mkdir(parents=True, exist_ok=True)
                weights.touch()
        update_config(content, mine)
        assert set(mine["presets"]) <= set(load_config(content).presets), found.page
