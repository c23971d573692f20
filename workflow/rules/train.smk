# trains a method on the data set that config.yaml names; run by hand: snakemake train --cores 8 --resources gpu=1
# (the checkpoint is no output: Snakemake would delete it before an interrupted run goes on)
rule train:
    output:
        touch(f"{PLAN.config.train.out}/done"),
    log:
        f"{PLAN.config.train.out}/train.log",
    benchmark:
        f"{PLAN.config.train.out}/train.tsv"
    conda:
        "../../envs/gigaseg.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
    params:
        method=PLAN.config.train.method,
        data=PLAN.config.train.data or "",
        out=lambda wildcards, output: str(Path(output[0]).parent),
        options=PLAN.config.train.options,
    shell:
        "gigaseg train {params.method:q} --data {params.data:q} --out {params.out:q} {params.options:q} 2>> {log:q}"
