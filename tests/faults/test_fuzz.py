"""Damaged files of every format through the real steps: a refusal in one line, or a success that can be trusted.

`benchmarks/fuzz.py` is the same with 200 variants of each format.
"""

import pytest

from gigaseg.testing.faults import FORMATS, Trials, sample

VARIANTS = 5


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_refused_in_one_line_or_read_as_it_is(name, tmp_path, request):
    folder = request.getfixturevalue("data") if FORMATS[name] else None
    trials = Trials(sample(name, tmp_path, folder), tmp_path / "trials")
    first = VARIANTS * list(FORMATS).index(name)  # other kinds of damage for other formats
    for seed in range(first, first + VARIANTS):
        outcome = trials.run(seed)
        assert outcome.accepted, (seed, outcome)
