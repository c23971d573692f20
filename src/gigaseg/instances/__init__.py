"""Instances: masks to polygons, the table of instances, the segment loop."""
