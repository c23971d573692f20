rule prompt:
    input:
        info=rules.inspect.output.info,
        grid=rules.grid.output.grid,
        foreground=rules.grid.output.foreground,
    output:
        prompts=f"{RESULTS}/{{slide}}/prompts.parquet",
        run=f"{RESULTS}/{{slide}}/run/prompt.json",
    log:
        f"{RESULTS}/{{slide}}/log/prompt.log",
    conda:
        "../../envs/gigaseg.yaml"
    resources:
        mem_mb=4000,
    params:
        options=options("prompt"),
        digest=digest("prompt"),
    shell:
        "gigaseg prompt {input.info:q} {input.grid:q} --foreground {input.foreground:q} {params.options:q}"
        " --out {output.prompts:q} --slide {wildcards.slide} --digest {params.digest} --run-record {output.run:q}"
        " --record-failure 2> {log:q}"
