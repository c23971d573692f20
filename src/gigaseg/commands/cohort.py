"""The steps of a cohort: its tables, report and gate. Each is imported when it runs."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from gigaseg.commands.base import Command, add_path, written
from gigaseg.config import ReportConfig
from gigaseg.options import add_options, from_options


def _cohort_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "--sheet", "slides.tsv")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of results (default: results)")
    parser.add_argument("--presets", nargs="+", default=["nuclei"], help="names of the presets, the default one first")


def _aggregate_arguments(parser: ArgumentParser) -> None:
    _cohort_arguments(parser)
    add_path(parser, "--out", "cohort.tsv to write")
    add_path(parser, "--table", "cohort.parquet to write")
    parser.add_argument("--pooled", type=Path, help="cohort_measurements.tsv to write (default: none)")


def _aggregate(args: Namespace) -> None:
    from gigaseg.measure.aggregate import aggregate
    from gigaseg.sheet import read_sheet

    rows, bad = read_sheet(args.sheet, args.presets)
    aggregate(
        [(row.slide, args.results / row.slide / "summary.json") for row in rows],
        args.out,
        args.table,
        labels={row.slide: {"preset": row.preset, "group": row.group or ""} for row in rows},
        pooled=args.pooled,
        bad_rows=[(row.slide, row.reason) for row in bad],
        digest=args.digest,
    )


def _report_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "cohort", "cohort.tsv")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of results (default: results)")
    parser.add_argument("--config-json", default="{}", metavar="JSON", help="configuration to show in the report")
    add_path(parser, "--out", "report.html to write")
    add_options(parser, ReportConfig, ("title",))


def _report(args: Namespace) -> None:
    from gigaseg.configfiles import parse_config
    from gigaseg.measure.aggregate import read_cohort
    from gigaseg.report.cohort import report
    from gigaseg.report.runs import find_records

    slides = [args.results / row["slide"] for row in read_cohort(args.cohort) if row["step"] != "sheet"]
    slides = list(dict.fromkeys(slides))  # regions have rows of their own
    report(
        args.cohort,
        [folder / "summary.json" for folder in slides],
        [folder / "overview.png" for folder in slides],
        [record for folder in slides for record in find_records(folder)],
        parse_config(args.config_json),
        args.out,
        title=from_options(ReportConfig, args).title,
        pooled=args.cohort.with_name("cohort_measurements.tsv"),
    )


def _gate_arguments(parser: ArgumentParser) -> None:
    add_path(parser, "cohort", "cohort.tsv")


def _gate(args: Namespace) -> None:
    from gigaseg.measure.aggregate import gate

    gate(args.cohort)


def _status_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="its folder (default: results)")
    parser.add_argument("--json", action="store_true", help="the same as JSON, for programs")


def _status(args: Namespace) -> None:
    import json

    from gigaseg.status.look import status
    from gigaseg.status.states import as_text

    found = status(args.results)
    sys.stdout.write(json.dumps(found.as_json(), indent=2, ensure_ascii=False) + "\n" if args.json else as_text(found))


COHORT: dict[str, Command] = {
    "aggregate": Command("one row a slide", _aggregate_arguments, _aggregate, lambda args: [args.out, args.table]),
    "report": Command("report of the cohort", _report_arguments, _report, written),
    "gate": Command("fail when a slide of the cohort failed", _gate_arguments, _gate, None),
    "status": Command("where each slide of a cohort is, also while a run is at work", _status_arguments, _status, None),
}
