"""gigaseg: instance segmentation of gigapixel slides and rasters.

The steps follow the data's path; each is a Snakemake rule, a CLI sub-command and a public function:
inspect, grid, tile, segment, stitch, measure, export, aggregate, report.
"""

__version__ = "0.1.0"
