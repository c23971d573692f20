rule export:
    input:
        instances=rules.stitch.output.instances,
        measurements=rules.measure.output.measurements,
        info=rules.inspect.output.info,
    output:
        f"{RESULTS}/{{slide}}/export/{{file}}",
    log:
        f"{RESULTS}/{{slide}}/log/export-{{file}}.log",
    conda:
        "../../envs/gigaseg.yaml"
    resources:
        mem_mb=4000,
    params:
        format=lambda wildcards: EXPORT_FILES[wildcards.file],
        digest=digest("export"),
    shell:
        "gigaseg export {input.instances:q} {input.measurements:q} --info {input.info:q} --format {params.format}"
        " --out {output:q} --slide {wildcards.slide} --digest {params.digest} --record-failure 2> {log:q}"
