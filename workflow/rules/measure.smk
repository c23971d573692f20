rule measure:
    input:
        instances=rules.stitch.output.instances,
        info=rules.inspect.output.info,
        foreground=rules.grid.output.foreground,
    output:
        measurements=f"{RESULTS}/{{slide}}/measurements.parquet",
        summary=f"{RESULTS}/{{slide}}/summary.json",
        run=f"{RESULTS}/{{slide}}/run/measure.json",
    log:
        f"{RESULTS}/{{slide}}/log/measure.log",
    benchmark:
        f"{RESULTS}/{{slide}}/run/measure.tsv"
    conda:
        "../../envs/gigaseg.yaml"
    threads: 2
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        options=options("measure"),
        digest=digest("measure"),
    shell:
        "gigaseg measure {input.instances:q} --info {input.info:q} --foreground {input.foreground:q}"
        " {params.options:q} --workers {threads} --out {output.measurements:q} --summary {output.summary:q} --slide {wildcards.slide}"
        " --digest {params.digest} --run-record {output.run:q} --record-failure 2> {log:q}"


rule regions:
    input:
        summary=rules.measure.output.summary,
        info=rules.inspect.output.info,
    output:
        map=f"{RESULTS}/{{slide}}/regions.gpkg",
        run=f"{RESULTS}/{{slide}}/run/regions.json",
    log:
        f"{RESULTS}/{{slide}}/log/regions.log",
    conda:
        "../../envs/gigaseg.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        options=options("regions"),
        digest=digest("regions"),
    shell:
        "gigaseg regions {input.summary:q} --info {input.info:q} {params.options:q} --out {output.map:q}"
        " --slide {wildcards.slide} --digest {params.digest} --run-record {output.run:q} --record-failure 2> {log:q}"
