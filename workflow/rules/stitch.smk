rule stitch:
    input:
        instances=shard_instances,
        grid=rules.grid.output.grid,
        info=rules.inspect.output.info,
    output:
        instances=f"{RESULTS}/{{slide}}/instances.parquet",
        run=f"{RESULTS}/{{slide}}/run/stitch.json",
    log:
        f"{RESULTS}/{{slide}}/log/stitch.log",
    benchmark:
        f"{RESULTS}/{{slide}}/run/stitch.tsv"
    conda:
        "../../envs/gigaseg.yaml"
    threads: 2
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        options=options("stitch"),
        digest=digest("stitch"),
    shell:
        "gigaseg stitch {params.options:q} --workers {threads} --grid {input.grid:q} --info {input.info:q} --out {output.instances:q}"
        " --slide {wildcards.slide} --digest {params.digest} --run-record {output.run:q} --record-failure"
        " {input.instances:q} 2> {log:q}"
