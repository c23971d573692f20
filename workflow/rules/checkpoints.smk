# fetches what the presets name; run by hand where there is a network: snakemake checkpoints
rule checkpoints:
    log:
        f"{RESULTS}/log/checkpoints.log",
    localrule: True
    conda:
        "../../envs/gigaseg.yaml"
    params:
        names=PLAN.checkpoints,
    shell:
        "gigaseg checkpoints {params.names:q} 2>&1 | tee {log:q}"
