"""Instances for other programs: one module a format. Names of the formats: `gigaseg.export.formats`."""
