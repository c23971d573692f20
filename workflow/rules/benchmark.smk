# measures every method on the data sets that config.yaml names; run by hand: snakemake benchmark --cores 8 --resources gpu=1
# (the figures are no output: rows that are not run again stay)
rule benchmark:
    output:
        f"{PLAN.config.benchmark.out}/accuracy.md",
    log:
        f"{PLAN.config.benchmark.out}/accuracy.log",
    conda:
        "../../envs/gigaseg.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        script=Path(workflow.current_basedir).parents[1] / "benchmarks" / "accuracy.py",
        data=PLAN.config.benchmark.data or "",
        work=lambda wildcards, output: str(Path(output[0]).parent / "work"),
        options=PLAN.config.benchmark.options,
    shell:
        "python {params.script:q} --data {params.data:q} --work {params.work:q} --cores {threads} --out {output:q}"
        " {params.options:q} > {log:q} 2>&1"
