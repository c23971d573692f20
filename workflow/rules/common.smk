# The plan of the cohort, and the functions by which rules look things up in it.
import json
import sys

from snakemake.utils import validate

try:
    from gigaseg.export.formats import FORMATS
    from gigaseg.session import end, start
except ModuleNotFoundError as error:
    sys.exit(
        f"gigaseg is not installed in {sys.prefix} ({error}); run: pip install -e ."
    )

PLAN = start(config, workflow)

# the same checks once more, in the form that other Snakemake tools read
validate(config, "../schemas/config.schema.yaml")

RESULTS = PLAN.config.results
EXPORTS = {format.file: name for name, format in FORMATS.items()}


wildcard_constraints:
    slide="[A-Za-z0-9_][A-Za-z0-9._-]*",
    shard="[0-9][0-9][0-9]+",
    file="|".join(format.file for format in FORMATS.values() if not format.folder),
    store="|".join(format.file for format in FORMATS.values() if format.folder),


def growing(amount):
    """A job's MB or minutes: so much at its first attempt, and as much again at each further one."""
    return lambda wildcards, attempt: amount * attempt


def digest(step):
    """The digest of a step for the job's slide: a changed one runs the step again."""
    return lambda wildcards: PLAN.slides[wildcards.slide].digests[step]


def options(step):
    """The command-line options of a step for the job's slide."""
    return lambda wildcards: PLAN.slides[wildcards.slide].options[step]


def slide_path(wildcards):
    """The slide's file: a parameter, not an input, so that a missing slide fails alone."""
    return str(PLAN.slides[wildcards.slide].row.path)


def tile_store(wildcards):
    """The tile store of the job's shard; nothing when the slide itself is read."""
    stored = PLAN.slides[wildcards.slide].stored
    return (
        f"{RESULTS}/{wildcards.slide}/tiles/{wildcards.shard}.zarr.zip"
        if stored
        else []
    )


def segmented_tiles(wildcards):
    """The tile store that `segment` reads; nothing where `propose` has read it, or it would be kept or made again."""
    proposes = PLAN.slides[wildcards.slide].proposes
    return [] if proposes else tile_store(wildcards)


def slide_prompts(wildcards):
    """The prompts of the job's slide; nothing for a segmenter or a row without any."""
    prompted = PLAN.slides[wildcards.slide].prompted
    return f"{RESULTS}/{wildcards.slide}/prompts.parquet" if prompted else []


def slide_proposals(wildcards):
    """The points that a segmenter proposed on all shards of the job's slide; nothing for prompts from a file."""
    proposes = PLAN.slides[wildcards.slide].proposes
    return of_shards(wildcards, "prompts") if proposes else []


def shard_instances(wildcards):
    """Instance tables of all shards of the job's slide."""
    return of_shards(wildcards, "instances")


def of_shards(wildcards, folder):
    """The table of every shard of the job's slide."""
    shards = range(PLAN.slides[wildcards.slide].shards)
    return [
        f"{RESULTS}/{wildcards.slide}/{folder}/{shard:03d}.parquet" for shard in shards
    ]


def of_slides(name):
    """One file of every slide of the cohort."""
    return [f"{RESULTS}/{slide}/{name}" for slide in PLAN.slides]


def viewer_folder():
    """The viewer as a folder, where the configuration asks for it."""
    return [f"{RESULTS}/viewer"] if PLAN.config.report.viewer else []


def exports():
    """All export files of the cohort."""
    return [
        f"{RESULTS}/{name}/export/{FORMATS[format].file}"
        for name, slide in PLAN.slides.items()
        for format in slide.preset.export
    ]


def region_maps():
    """The map of regions of every slide that has some."""
    return [
        f"{RESULTS}/{name}/regions.gpkg"
        for name, slide in PLAN.slides.items()
        if slide.row.regions
    ]
