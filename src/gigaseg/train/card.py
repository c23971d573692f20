"""The checkpoint of a run and its metadata card."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

import gigaseg
from gigaseg.sam.checkpoints import write_delta, write_state
from gigaseg.train.config import LoopConfig
from gigaseg.train.method import Method
from gigaseg.train.state import Progress


def write_checkpoint(
    path: Path,
    values: Mapping[str, Tensor],
    method: Method,
    config: LoopConfig,
    progress: Progress,
    about: Mapping[str, Any],
) -> None:
    """Write weights (float16) with a card: data, licence, split, figures, seed, commit, configuration.

    A method with a `base` gets a checkpoint of what changed over it. A ``threshold`` among the figures is also the
    card's own: it is what a segmenter applies.
    """
    figures = {name: round(value, 5) for name, value in progress.figures.items() if math.isfinite(value)}
    card = {
        "method": method.name,
        **method.card(),
        "loop": asdict(config),
        "seed": config.seed,
        "step": progress.step,
        "minutes": round(progress.seconds / 60, 1),
        "figures": figures,
        **{name: value for name, value in figures.items() if name == "threshold"},
        "package": gigaseg.__version__,
        "commit": commit(),
        **about,
    }
    if method.base is None:
        write_state(path, method.exported(values), card, half=True)
    else:
        write_delta(path, method.exported(values), method.base, card, half=True)


def history(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the card of a checkpoint that training goes on from tells of how it came about, the first stage first."""
    told = ("name", "data", "split", "licence", "images", "step", "minutes", "seed")
    return [*card.get("before", []), {name: card[name] for name in told if name in card}]


def commit() -> str:
    """Commit of the source tree this package runs from, with "+" when it has changes; "unknown" outside git."""
    folder = Path(gigaseg.__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", str(folder)) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
