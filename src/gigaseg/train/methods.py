"""The trainable methods by name, with their options. Free of torch: methods are imported when they are made."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigaseg.errors import ConfigError, unknown
from gigaseg.options import add_options, from_options
from gigaseg.sam.config import CONFIGS
from gigaseg.train.centersam.config import CenterSamTraining
from gigaseg.train.cfrsam.config import CfrSamTraining
from gigaseg.train.cfrsam.points_config import CfrPointsTraining
from gigaseg.train.config import ColourConfig, PromptConfig, SamTraining
from gigaseg.train.densesam.config import DenseSamTraining
from gigaseg.train.persense.config import PersenseTraining
from gigaseg.train.sac.config import SacTraining

if TYPE_CHECKING:
    from gigaseg.metrics.report import Figure
    from gigaseg.train.data import Sample
    from gigaseg.train.method import Method


@dataclass(frozen=True)
class Measured:
    """What was measured of several images.

    Attributes
    ----------
    rows : the figures of each image.
    figures : over all images, by name: those that are no means over images, and any that take the place of such.
    """

    rows: list[dict[str, float]]
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Trainable:
    """A method that can be trained.

    Attributes
    ----------
    help : one line.
    arguments : adds the method's options to a parser.
    make : the method from parsed options.
    evaluate : from a checkpoint of the method, samples, device and precision ("bf16" or "fp32") the figures of each
        sample, NaN where one is undefined; or with them figures that are no means over images.
    """

    help: str
    arguments: Callable[[ArgumentParser], None]
    make: Callable[[Namespace], Method]
    evaluate: Callable[[Path, Sequence[Sample], str, str], list[dict[str, float]] | Measured]


_SAM_OWN = tuple(name for name in SamTraining.__dataclass_fields__ if name not in ("colour", "prompts"))


def _sam_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--config", default="small", help=f"model: {', '.join(CONFIGS)} (default: small)")
    parser.add_argument("--weights", help="checkpoint to go on from, by name or file (default: from scratch)")
    add_options(parser, SamTraining, _SAM_OWN)
    add_options(parser.add_argument_group("prompts"), PromptConfig)
    add_options(parser.add_argument_group("colours"), ColourConfig)


def _sam(args: Namespace) -> Method:
    from gigaseg.train.sam import SamMethod

    if args.config not in CONFIGS:
        raise ConfigError(unknown("config", args.config, CONFIGS))
    training = replace(
        from_options(SamTraining, args),
        colour=from_options(ColourConfig, args),
        prompts=from_options(PromptConfig, args),
    )
    config = CONFIGS[args.config]
    if training.crop % config.patch:
        raise ConfigError(f"--crop is {training.crop}, accepted with {config.name}: multiples of {config.patch}")
    if training.smallest > training.largest:
        raise ConfigError(f"--smallest is {training.smallest:g}, accepted: at most --largest ({training.largest:g})")
    return SamMethod(config, training, args.weights)


def _sam_figures(checkpoint: Path, samples: Sequence[Sample], device: str, precision: str) -> list[dict[str, float]]:
    from gigaseg.train.evaluate import checkpoint_figures

    return checkpoint_figures(checkpoint, samples, device, precision)


def _over_sam(
    help: str,
    options: type[CenterSamTraining]
    | type[SacTraining]
    | type[DenseSamTraining]
    | type[CfrSamTraining]
    | type[PersenseTraining],
    method: Callable[[Any, str | None], Method],
    evaluate: Callable[[Path, Sequence[Sample], str, str], list[dict[str, float]] | Measured],
) -> Trainable:
    """A method over a SAM model; `options` has `smallest`, `largest` and `colour`."""

    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument("--sam", help="SAM checkpoint by name or file (default: the one that ships)")
        add_options(parser, options, tuple(name for name in options.__dataclass_fields__ if name != "colour"))
        add_options(parser.add_argument_group("colours"), ColourConfig)

    def make(args: Namespace) -> Method:
        training = replace(from_options(options, args), colour=from_options(ColourConfig, args))
        low, high = training.smallest, training.largest
        if low > high:
            raise ConfigError(f"--smallest is {low:g}, accepted: at most --largest ({high:g})")
        return method(training, args.sam)

    return Trainable(help, arguments, make, evaluate)


def _centersam(training: CenterSamTraining, sam: str | None) -> Method:
    from gigaseg.train.centersam.method import CenterSamMethod

    return CenterSamMethod(training, sam)


def _centersam_figures(
    checkpoint: Path, samples: Sequence[Sample], device: str, precision: str
) -> list[dict[str, float]]:
    from gigaseg.train.centersam.evaluate import checkpoint_figures

    return checkpoint_figures(checkpoint, samples, device, precision)


def _sac(training: SacTraining, sam: str | None) -> Method:
    from gigaseg.train.sac.method import SacMethod

    return SacMethod(training, sam)


def _sac_figures(checkpoint: Path, samples: Sequence[Sample], device: str, precision: str) -> list[dict[str, float]]:
    from gigaseg.train.sac.evaluate import checkpoint_figures

    return checkpoint_figures(checkpoint, samples, device, precision)


def _densesam(training: DenseSamTraining, sam: str | None) -> Method:
    from gigaseg.train.densesam.method import DenseSamMethod

    return DenseSamMethod(training, sam)


def _densesam_figures(
    checkpoint: Path, samples: Sequence[Sample], device: str, precision: str
) -> list[dict[str, float]]:
    from gigaseg.train.densesam.evaluate import checkpoint_figures

    return checkpoint_figures(checkpoint, samples, device, precision)


def _persense(training: PersenseTraining, sam: str | None) -> Method:
    from gigaseg.train.persense.method import PersenseMethod

    return PersenseMethod(training, sam)


def _persense_figures(checkpoint: Path, samples: Sequence[Sample], device: str, precision: str) -> Measured:
    from gigaseg.train.persense.evaluate import checkpoint_figures

    return checkpoint_figures(checkpoint, samples, device, precision)


def _cfrsam(training: CfrSamTraining, sam: str | None) -> Method:
    from gigaseg.train.cfrsam.method import CfrSamMethod

    return CfrSamMethod(training, sam)


def _cfrsam_figures(checkpoint: Path, samples: Sequence[Sample], device: str, precision: str) -> Measured:
    from gigaseg.train.cfrsam.evaluate import checkpoint_figures

    return checkpoint_figures(checkpoint, samples, device, precision)


def _cfr_points_arguments(parser: ArgumentParser) -> None:
    add_options(parser, CfrPointsTraining, tuple(n for n in CfrPointsTraining.__dataclass_fields__ if n != "colour"))
    add_options(parser.add_argument_group("colours"), ColourConfig)


def _cfr_points(args: Namespace) -> Method:
    from gigaseg.train.cfrsam.points_method import CfrPointsMethod

    return CfrPointsMethod(replace(from_options(CfrPointsTraining, args), colour=from_options(ColourConfig, args)))


def _cfr_points_figures(
    checkpoint: Path, samples: Sequence[Sample], device: str, precision: str
) -> list[dict[str, float]]:
    from gigaseg.train.cfrsam.points_evaluate import checkpoint_figures

    return checkpoint_figures(checkpoint, samples, device, precision)


METHODS: dict[str, Trainable] = {
    "sam": Trainable("a promptable SAM model, with simulated prompts", _sam_arguments, _sam, _sam_figures),
    "centersam": _over_sam(
        "CenterSAM: a detector whose boxes prompt SAM", CenterSamTraining, _centersam, _centersam_figures
    ),
    "cfrsam": _over_sam(
        "CFR-SAM: adapters, fused levels and refined masks, prompted by points",
        CfrSamTraining,
        _cfrsam,
        _cfrsam_figures,
    ),
    "sac": _over_sam("SAC: LoRA, a U-Net that prompts, one mask of all objects", SacTraining, _sac, _sac_figures),
    "densesam": _over_sam(
        "DenseSAM: features of SAM's encoder instead of prompts, objects and boundaries",
        DenseSamTraining,
        _densesam,
        _densesam_figures,
    ),
    "persense": _over_sam(
        "PerSense: a regressor of the density of objects, beside SAM", PersenseTraining, _persense, _persense_figures
    ),
    "cfrsam-points": Trainable(
        "CFR-SAM's learner of points, one an object, which prompt it",
        _cfr_points_arguments,
        _cfr_points,
        _cfr_points_figures,
    ),
}
"""By name; a method's own module adds its entry here."""
