rule grid:
    input:
        info=rules.inspect.output.info,
    output:
        grid=f"{RESULTS}/{{slide}}/grid.parquet",
        foreground=f"{RESULTS}/{{slide}}/foreground.tif",
        run=f"{RESULTS}/{{slide}}/run/grid.json",
    log:
        f"{RESULTS}/{{slide}}/log/grid.log",
    conda:
        "../../envs/gigaseg.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        options=options("grid"),
        digest=digest("grid"),
    shell:
        "gigaseg grid {input.info:q} {params.options:q} --out {output.grid:q} --foreground {output.foreground:q}"
        " --slide {wildcards.slide} --digest {params.digest} --run-record {output.run:q} --record-failure 2> {log:q}"


rule tile:
    input:
        info=rules.inspect.output.info,
        grid=rules.grid.output.grid,
    output:
        store=temp(f"{RESULTS}/{{slide}}/tiles/{{shard}}.zarr.zip"),
        run=f"{RESULTS}/{{slide}}/run/tile-{{shard}}.json",
    log:
        f"{RESULTS}/{{slide}}/log/tile-{{shard}}.log",
    benchmark:
        f"{RESULTS}/{{slide}}/run/tile-{{shard}}.tsv"
    conda:
        "../../envs/gigaseg.yaml"
    threads: 4
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        digest=digest("tile"),
    shell:
        "gigaseg tile {input.info:q} {input.grid:q} --shard {wildcards.shard} --out {output.store:q}"
        " --workers {threads} --slide {wildcards.slide} --digest {params.digest} --run-record {output.run:q}"
        " --record-failure 2> {log:q}"
