"""The doctor: all checks of a machine and a cohort, a line each as they end."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from gigaseg.configfiles import read_configs
from gigaseg.doctor.cohort import check_cohort
from gigaseg.doctor.finding import WRONG, Finding
from gigaseg.doctor.machine import check_machine
from gigaseg.errors import UserError


def doctor(configs: Sequence[Path], slides_dir: Path | None = None) -> list[Finding]:
    """Look at this machine and at the cohort of a configuration; print one line a check.

    Parameters
    ----------
    configs : YAML files; later ones are laid over earlier ones, key by key, as by snakemake --configfile.
    slides_dir : stands for the key of that name, where it is given.

    Returns
    -------
    What was found, all in order.

    Raises
    ------
    UserError
        Something is wrong: the number of checks that ended so.
    """
    content = read_configs(configs)
    if slides_dir is not None:
        content["slides_dir"] = str(slides_dir)
    found = []
    for finding in itertools.chain(check_machine(), check_cohort(content, str(configs[-1]))):
        sys.stdout.write(f"{finding}\n")
        sys.stdout.flush()
        found.append(finding)
    wrong = [finding for finding in found if finding.level == WRONG]
    if wrong:
        raise UserError(f"{len(wrong)} of {len(found)} checks found something wrong")
    return found
