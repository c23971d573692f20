"""The training loop that every method shares.

Random numbers follow from (seed, step, process), the data from the step's number, so a state of weights, optimiser and
counters is all that an exact resume needs. Several processes (torchrun) share one global batch.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gigaseg.files import digest
from gigaseg.progress import Progress as Shown
from gigaseg.train.batches import Batch, Feed
from gigaseg.train.config import LoopConfig
from gigaseg.train.data import Sample
from gigaseg.train.distributed import Group
from gigaseg.train.method import Method
from gigaseg.train.optimise import optimisers
from gigaseg.train.records import Board, Table
from gigaseg.train.schedule import factor
from gigaseg.train.state import Average, Progress, read_state, write_state

log = logging.getLogger(__name__)


def run(
    method: Method,
    config: LoopConfig,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    out: Path,
    *,
    about: Mapping[str, Any] | None = None,
    stop_after: int | None = None,
) -> Progress:
    """Train a method, going on from ``out/state.pt`` when it exists.

    Parameters
    ----------
    method : what is trained.
    config : the loop's configuration.
    training, validation : the samples; without validation samples the last weights count as the best.
    out : folder of all outputs: ``state.pt``, ``train.csv``, ``validation.csv``, ``events/`` and ``best.safetensors``.
    about : facts on data, licence and split for the checkpoint's card.
    stop_after : return after this step, the schedule untouched (a planned interruption).

    Raises
    ------
    FormatError
        ``state.pt`` is damaged or belongs to another configuration.
    """
    return _Run(method, config, training, validation, out, dict(about or {})).go(stop_after)


class _Objective(nn.Module):
    """The losses as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, method: Method, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._method = method

    def forward(self, batch: Batch, rng: np.random.Generator) -> dict[str, Tensor]:
        return self._method.losses(self.model, batch, rng)


class _Run:
    def __init__(
        self,
        method: Method,
        config: LoopConfig,
        training: Sequence[Sample],
        validation: Sequence[Sample],
        out: Path,
        about: dict[str, Any],
    ) -> None:
        self.method, self.config, self.out, self.about = method, config, out, about
        self.validation = validation
        if config.threads:
            torch.set_num_threads(config.threads)
        self.group = Group.join(config.device)
        self.device = self.group.device
        self.digest = digest(
            {
                "loop": {k: v for k, v in asdict(config).items() if k not in _FREE},
                "method": method.name,
                "card": method.card(),
                "training": [sample.name for sample in training],
                "world": self.group.world,
            }
        )
        torch.manual_seed(config.seed)
        self.model = method.build().to(self.device).train()
        self.optimisers = optimisers(method.groups(self.model), config)
        self.average = Average(self.model, config.ema) if config.ema else None
        self.progress = Progress()
        self._resume()
        self.objective = self.group.wrap(_Objective(method, self.model))
        self.feed = Feed(
            training,
            method.prepare,
            method.collate,
            config.batch,
            config.seed,
            config.balance,
            self.group.rank,
            self.group.world,
        )

    def _resume(self) -> None:
        path = self.out / "state.pt"
        if not path.is_file():
            return
        content = read_state(path, self.digest)
        self.model.load_state_dict(content["model"])
        for optimiser, saved in zip(self.optimisers, content["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        if self.average is not None:
            self.average.values = {name: value.to(self.device) for name, value in content["average"].items()}
        self.progress = Progress(**content["progress"])
        log.info("going on after step %d of %d", self.progress.step, self.config.steps)

    def go(self, stop_after: int | None) -> Progress:
        config, progress = self.config, self.progress
        self.train_rows = Table(self.out / "train.csv", progress.step) if self.group.first else None
        self.validation_rows = Table(self.out / "validation.csv", progress.step) if self.group.first else None
        self.board = Board(self.out / "events", progress.step) if self.group.first else None
        batches = self.feed.batches(progress.step * config.accumulate, config.workers)
        steps = config.steps if self.group.first else 0
        try:
            with Shown("train", "steps", steps, done=progress.step) as shown:
                while not self._finished() and (stop_after is None or progress.step < stop_after):
                    at = time.perf_counter()
                    row = self._step([next(batches) for _ in range(config.accumulate)])
                    progress.step += 1
                    progress.seconds += self.group.longest(time.perf_counter() - at)
                    for name, value in row.items():
                        progress.sums[name] = progress.sums.get(name, 0.0) + value
                    note = None
                    if progress.step % config.log_every == 0:
                        note = self._log({name: value / config.log_every for name, value in progress.sums.items()})
                        progress.sums = {}
                    # the budget of minutes may end before the steps do
                    shown.at(progress.step, left=progress.seconds * (1 / self._share() - 1), note=note)
                    ended = self._finished()
                    if progress.step % config.validate_every == 0 or ended:
                        self._validate()
                    if progress.step % config.save_every == 0 or ended or progress.stopped:
                        self._save()
        finally:
            batches.close()
            if self.board is not None:
                self.board.close()
            self.group.leave()
        return progress

    def _finished(self) -> bool:
        return self.progress.stopped or self._share() >= 1

    def _share(self) -> float:
        """How much of the budget is spent, 0..1."""
        share = self.progress.step / self.config.steps
        if self.config.minutes is not None:
            share = max(share, self.progress.seconds / (60 * self.config.minutes))
        return min(share, 1.0)

    def _step(self, batches: Sequence[Batch]) -> dict[str, float]:
        config, step = self.config, self.progress.step
        rate = config.rate * factor(config, step, self._share(), self.method.drops)
        for group in (group for optimiser in self.optimisers for group in optimiser.param_groups):
            group["lr"] = rate * group["scale"]
        sums: dict[str, Tensor] = {}
        for micro, batch in enumerate(batches):
            seeds = [config.seed, 4, step, micro, self.group.rank]
            rng = np.random.default_rng(seeds)
            torch.manual_seed(int(rng.integers(2**62)))  # dropout and the like
            last = micro + 1 == len(batches)
            with self.group.together(self.objective, last):
                with self._autocast():
                    losses = self.objective(batch.to(self.device), rng)
                (losses["loss"] / len(batches)).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value.detach() / len(batches)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip if config.clip else math.inf)
        if bool(torch.isfinite(norm)):
            for optimiser in self.optimisers:
                optimiser.step()
        else:
            log.warning("step %d: the gradient is not finite; the step is left out", step + 1)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model, step + 1)
        row = {name: float(value) for name, value in self.group.mean(sums).items()}
        return {**row, "rate": rate, "gradient": float(norm)}

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _log(self, row: Mapping[str, float]) -> str:
        """Put down the means of some steps; returns them in words."""
        if self.train_rows is None or self.board is None:
            return ""
        step = self.progress.step
        self.train_rows.add({"step": step, **row})
        self.board.add("train", row, step)
        return ", ".join(f"{name} {value:.4g}" for name, value in row.items())

    def _validate(self) -> None:
        """Figures of the averaged weights; keep them when they are the best so far."""
        progress = self.progress
        figures: dict[str, float] = {}
        if self.group.first:
            own = {name: value.clone() for name, value in self.model.state_dict().items()}
            if self.average is not None:
                self.model.load_state_dict(self.average.values)
            self.model.eval()
            with self._autocast():
                figures = dict(self.method.validate(self.model, self.validation)) if self.validation else {}
            self.model.train()
            self.model.load_state_dict(own)
        figures = self.group.share(figures)
        score = figures.get("score", float(progress.step))
        better = score > progress.best
        progress.stale = 0 if better else progress.stale + 1
        if better:
            progress.best, progress.best_step, progress.figures = score, progress.step, figures
        patient = progress.step < self.config.patience_after or not self.config.patience
        if not patient and progress.stale >= self.config.patience:
            progress.stopped = True
            log.info("no better score in %d validations: stopping early", progress.stale)
        if self.validation_rows is not None and self.board is not None and figures:
            self.validation_rows.add({"step": progress.step, **figures})
            self.board.add("validation", figures, progress.step)
            text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            log.info("validation after step %d: %s", progress.step, text)
        if better and self.group.first:
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        from gigaseg.train.card import write_checkpoint

        values = self.average.values if self.average is not None else self.model.state_dict()
        write_checkpoint(self.out / "best.safetensors", values, self.method, self.config, self.progress, self.about)

    def _save(self) -> None:
        if self.group.first:
            average = None if self.average is None else self.average.values
            write_state(self.out / "state.pt", self.digest, self.progress, self.model, self.optimisers, average)


_FREE = (
    *("steps", "minutes", "device", "threads", "workers", "log_every", "save_every", "validate_every"),
    *("patience", "patience_after"),
)
"""Keys that may change between starts of one run: they do not decide what is learnt."""
