rule export:
    input:
        instances=rules.stitch.output.instances,
        measurements=rules.measure.output.measurements,
        info=rules.inspect.output.info,
    output:
        file=f"{RESULTS}/{{slide}}/export/{{file}}",
        run=f"{RESULTS}/{{slide}}/run/export-{{file}}.json",
    log:
        f"{RESULTS}/{{slide}}/log/export-{{file}}.log",
    benchmark:
        f"{RESULTS}/{{slide}}/run/export-{{file}}.tsv"
    conda:
        "../../envs/gigaseg.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        format=lambda wildcards: EXPORTS[wildcards.file],
        options=options("export"),
        digest=digest("export"),
    shell:
        "gigaseg export {input.instances:q} {input.measurements:q} --info {input.info:q} --format {params.format}"
        " {params.options:q} --out {output.file:q} --slide {wildcards.slide} --digest {params.digest} --run-record {output.run:q}"
        " --record-failure 2> {log:q}"


# the same for formats that are folders: Snakemake must be told
rule export_store:
    input:
        instances=rules.stitch.output.instances,
        measurements=rules.measure.output.measurements,
        info=rules.inspect.output.info,
    output:
        store=directory(f"{RESULTS}/{{slide}}/export/{{store}}"),
        run=f"{RESULTS}/{{slide}}/run/export-{{store}}.json",
    log:
        f"{RESULTS}/{{slide}}/log/export-{{store}}.log",
    benchmark:
        f"{RESULTS}/{{slide}}/run/export-{{store}}.tsv"
    conda:
        "../../envs/gigaseg.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        format=lambda wildcards: EXPORTS[wildcards.store],
        options=options("export"),
        digest=digest("export"),
    shell:
        "gigaseg export {input.instances:q} {input.measurements:q} --info {input.info:q} --format {params.format}"
        " {params.options:q} --out {output.store:q} --slide {wildcards.slide} --digest {params.digest} --run-record {output.run:q}"
        " --record-failure 2> {log:q}"
