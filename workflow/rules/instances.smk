rule segment:
    input:
        info=rules.inspect.output.info,
        grid=rules.grid.output.grid,
        tiles=segmented_tiles,
        prompts=slide_prompts,
    output:
        instances=f"{RESULTS}/{{slide}}/instances/{{shard}}.parquet",
        run=f"{RESULTS}/{{slide}}/run/segment-{{shard}}.json",
    log:
        f"{RESULTS}/{{slide}}/log/segment-{{shard}}.log",
    benchmark:
        f"{RESULTS}/{{slide}}/run/segment-{{shard}}.tsv"
    conda:
        "../../envs/gigaseg.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        tiles=lambda wildcards, input: ["--tiles", input.tiles] if input.tiles else [],
        prompts=lambda wildcards, input: (
            ["--prompts", input.prompts] if input.prompts else []
        ),
        options=options("segment"),
        digest=digest("segment"),
    shell:
        "gigaseg segment {input.info:q} {input.grid:q} {params.tiles:q} {params.prompts:q} --shard {wildcards.shard}"
        " {params.options:q} --out {output.instances:q} --workers {threads} --slide {wildcards.slide}"
        " --digest {params.digest} --run-record {output.run:q} --record-failure 2> {log:q}"
