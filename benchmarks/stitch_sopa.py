"""Run sopa's conflict solver on shards of gigaseg: ``python stitch_sopa.py SOLVED SHARD...`` (in sopa's environment).

Prints JSON: seconds and CPU seconds of the solver alone, peak memory before and after it. The solved outlines go to
SOLVED (Parquet, one column of WKB).
"""

import json
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import sopa
from sopa.segmentation.resolve import solve_conflicts


def peak_mb():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def main():
    solved, *shards = sys.argv[1:]
    cells = []
    for shard in shards:
        cells += list(shapely.from_wkb(pq.read_table(shard, columns=["geometry"])["geometry"].to_numpy()))
    before, wall, cpu = peak_mb(), time.perf_counter(), time.process_time()
    result = solve_conflicts(cells, threshold=0.5).geometry.values
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    pq.write_table(pa.table({"geometry": shapely.to_wkb(result)}), solved)
    figures = {"seconds": wall, "cpu": cpu, "before_mb": before, "peak_mb": peak_mb(), "tile_instances": len(cells)}
    print(json.dumps({**figures, "version": sopa.__version__}))


main()
