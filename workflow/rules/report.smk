rule overview:
    input:
        instances=rules.stitch.output.instances,
        info=rules.inspect.output.info,
        grid=rules.grid.output.grid,
        foreground=rules.grid.output.foreground,
    output:
        picture=report(
            f"{RESULTS}/{{slide}}/overview.png",
            caption="../report/overview.rst",
            category="Slides",
            labels={"slide": "{slide}", "picture": "overview"},
        ),
        run=f"{RESULTS}/{{slide}}/run/overview.json",
    log:
        f"{RESULTS}/{{slide}}/log/overview.log",
    benchmark:
        f"{RESULTS}/{{slide}}/run/overview.tsv"
    conda:
        "../../envs/gigaseg.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        options=options("overview"),
        digest=digest("overview"),
    shell:
        "gigaseg overview {input.instances:q} --info {input.info:q} --grid {input.grid:q}"
        " --foreground {input.foreground:q} {params.options:q} --out {output.picture:q}"
        " --slide {wildcards.slide} --digest {params.digest} --run-record {output.run:q} --record-failure 2> {log:q}"


rule aggregate:
    input:
        summaries=of_slides("summary.json"),
        measurements=of_slides("measurements.parquet"),
    output:
        cohort=report(
            f"{RESULTS}/cohort.tsv",
            caption="../report/cohort.rst",
            category="Cohort",
            labels={"table": "all slides"},
        ),
        table=f"{RESULTS}/cohort.parquet",
        pooled=f"{RESULTS}/cohort_measurements.tsv",
    log:
        f"{RESULTS}/log/aggregate.log",
    conda:
        "../../envs/gigaseg.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        results=subpath(output.cohort, parent=True),
        # no input: its time says nothing, what it says is in the digest, and a dry run may come before it is made
        sheet=PLAN.sheet,
        presets=list(PLAN.config.presets),
        digest=PLAN.digests["aggregate"],
    shell:
        "gigaseg aggregate --sheet {params.sheet:q} --results {params.results:q} --presets {params.presets:q}"
        " --out {output.cohort:q} --table {output.table:q} --pooled {output.pooled:q}"
        " --digest {params.digest} 2> {log:q}"


rule report:
    input:
        cohort=rules.aggregate.output.cohort,
        overviews=of_slides("overview.png"),
    output:
        report(
            f"{RESULTS}/report.html",
            caption="../report/report.rst",
            category="Cohort",
            labels={"table": "report"},
        ),
    log:
        f"{RESULTS}/log/report.log",
    conda:
        "../../envs/gigaseg.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        results=subpath(input.cohort, parent=True),
        # functions, since Snakemake would take braces in a text for wildcards
        title=lambda wildcards: PLAN.config.report.title,
        shown=lambda wildcards: json.dumps(config, sort_keys=True),
        digest=PLAN.digests["report"],
    shell:
        "gigaseg report {input.cohort:q} --results {params.results:q} --title={params.title:q}"
        " --config-json {params.shown:q} --out {output:q} --digest {params.digest} 2> {log:q}"


rule viewer:
    input:
        measurements=of_slides("measurements.parquet"),
        overviews=of_slides("overview.png"),
        cohort=rules.aggregate.output.cohort,
    output:
        directory(f"{RESULTS}/viewer"),
    log:
        f"{RESULTS}/log/viewer.log",
    conda:
        "../../envs/gigaseg.yaml"
    threads: 4
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        results=subpath(input.cohort, parent=True),
        # not sorted: the first preset is the default
        shown=lambda wildcards: json.dumps(config),
        digest=PLAN.digests["viewer"],
    shell:
        "gigaseg view {params.results:q} --config-json {params.shown:q} --out {output:q} --workers {threads} > {log:q} 2>&1"


rule gate:
    input:
        cohort=rules.aggregate.output.cohort,
        report=rules.report.output,
    log:
        f"{RESULTS}/log/gate.log",
    localrule: True
    conda:
        "../../envs/gigaseg.yaml"
    shell:
        "gigaseg gate {input.cohort:q} 2>&1 | tee {log:q}"
