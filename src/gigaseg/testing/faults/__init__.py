"""Damaged inputs, and what the command line makes of them: for tests and benchmarks."""

from gigaseg.testing.faults.attempt import Attempt, attempt
from gigaseg.testing.faults.damage import KINDS, damaged, find_layout
from gigaseg.testing.faults.samples import FORMATS, Sample, sample
from gigaseg.testing.faults.trial import Outcome, Trials

__all__ = ["FORMATS", "KINDS", "Attempt", "Outcome", "Sample", "Trials", "attempt", "damaged", "find_layout", "sample"]
