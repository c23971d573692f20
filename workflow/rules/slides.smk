rule inspect:
    output:
        info=f"{RESULTS}/{{slide}}/slide.json",
        run=f"{RESULTS}/{{slide}}/run/inspect.json",
    log:
        f"{RESULTS}/{{slide}}/log/inspect.log",
    conda:
        "../../envs/gigaseg.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        path=slide_path,
        options=options("inspect"),
        digest=digest("inspect"),
    shell:
        "gigaseg inspect --slide {wildcards.slide} {params.options:q} --out {output.info:q}"
        " --digest {params.digest} --run-record {output.run:q} --record-failure -- {params.path:q} 2> {log:q}"
