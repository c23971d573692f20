"""What jobs ask a cluster for."""

import re


def test_every_step_says_its_memory_and_run_time_and_a_second_attempt_asks_for_twice_as_much(cohort):
    done = cohort.snakemake("--dry-run", "--attempt", "2")
    assert done.returncode == 0, done.stderr
    told = re.findall(r"\nrule (\w+):\n(?:    .*\n)*?    resources: (.*)\n", done.stdout + done.stderr)
    asked = {rule: dict(pair.split("=") for pair in resources.split(", ")) for rule, resources in told if rule != "all"}
    steps = {"inspect", "grid", "tile", "segment", "stitch", "measure", "export", "overview", "aggregate", "report"}
    assert set(asked) == steps
    assert all("mem_mb" in resources and "runtime" in resources for resources in asked.values())
    assert (asked["segment"]["mem_mb"], asked["segment"]["runtime"], asked["segment"]["gpu"]) == ("16000", "240", "1")
