rule propose:
    input:
        info=rules.inspect.output.info,
        grid=rules.grid.output.grid,
        tiles=tile_store,
    output:
        points=f"{RESULTS}/{{slide}}/prompts/{{shard}}.parquet",
        run=f"{RESULTS}/{{slide}}/run/propose-{{shard}}.json",
    log:
        f"{RESULTS}/{{slide}}/log/propose-{{shard}}.log",
    benchmark:
        f"{RESULTS}/{{slide}}/run/propose-{{shard}}.tsv"
    conda:
        "../../envs/gigaseg.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        tiles=lambda wildcards, input: ["--tiles", input.tiles] if input.tiles else [],
        options=options("propose"),
        digest=digest("propose"),
    shell:
        "gigaseg propose {input.info:q} {input.grid:q} {params.tiles:q} --shard {wildcards.shard} {params.options:q}"
        " --out {output.points:q} --workers {threads} --slide {wildcards.slide} --digest {params.digest}"
        " --run-record {output.run:q} --record-failure 2> {log:q}"


rule prompt:
    input:
        info=rules.inspect.output.info,
        grid=rules.grid.output.grid,
        foreground=rules.grid.output.foreground,
        proposals=slide_proposals,
    output:
        prompts=f"{RESULTS}/{{slide}}/prompts.parquet",
        run=f"{RESULTS}/{{slide}}/run/prompt.json",
    log:
        f"{RESULTS}/{{slide}}/log/prompt.log",
    conda:
        "../../envs/gigaseg.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        proposals=lambda wildcards, input: (
            ["--proposals", *input.proposals] if input.proposals else []
        ),
        options=options("prompt"),
        digest=digest("prompt"),
    shell:
        "gigaseg prompt {input.info:q} {input.grid:q} --foreground {input.foreground:q} {params.proposals:q}"
        " {params.options:q} --out {output.prompts:q} --slide {wildcards.slide} --digest {params.digest} --run-record {output.run:q}"
        " --record-failure 2> {log:q}"
