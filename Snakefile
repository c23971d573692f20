# gigaseg: from slides to instances, statistics and a report.  Run: snakemake --cores 8 --resources gpu=1
from snakemake.utils import min_version

min_version("9.19")


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/checkpoints.smk"
include: "workflow/rules/slides.smk"
include: "workflow/rules/tiles.smk"
include: "workflow/rules/prompts.smk"
include: "workflow/rules/instances.smk"
include: "workflow/rules/stitch.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/benchmark.smk"


onsuccess:
    end(PLAN, workflow)


onerror:
    end(PLAN, workflow)


rule all:
    default_target: True
    input:
        f"{RESULTS}/cohort.tsv",
        f"{RESULTS}/report.html",
        collect(f"{RESULTS}/{{slide}}/instances.parquet", slide=PLAN.slides),
        exports(),
        region_maps(),
        viewer_folder(),
