"""What the pages name is there, their commands are understood, and each is run by a test; they make a site."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from documented import PAGES, ROOT, blocks, lines, spoken, words
from documented_by import PROTOCOLS, RUNS, Not

PLACEHOLDERS = {
    "METHOD": "sac", "STEP": "inspect", "NAME": "watershed", "FORMAT": "csv",
    **dict.fromkeys(["N", "X", "Y", "W", "H", "PX"], "1"),
}  # fmt: skip
"""Words of the pages that stand for one of several."""

BLOCKS = [block for page in PAGES for block in blocks(page) if block.holds_commands]

COMMANDS = [(page, command) for page in PAGES for command in [*lines(page), *spoken(page)]]


def exists(test):
    path, _, name = test.partition("::")
    return (ROOT / path).exists() and (not name or f"def {name}(" in (ROOT / path).read_text())


def test_every_test_that_the_page_on_reliability_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", (ROOT / "docs" / "reliability.md").read_text())
    assert len(named) > 40
    assert [test for test in named if not exists(test)] == []


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_links_between_the_pages_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)", page.read_text())
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_each_block_of_commands_is_run_by_a_test_or_says_why_not(page):
    if page in PROTOCOLS:
        assert exists(PROTOCOLS[page])
        return
    known, met = RUNS.get(page, {}), []
    for block in BLOCKS:
        if block.page == page:
            found = [part for part in known if part in block.text]
            assert len(found) == 1, (
                f"{page}: in tests/documented_by.py {len(found)} entries fit the block\n{block.text}"
            )
            met += found
    assert sorted(met) == sorted(known), "an entry without a block, or for two"
    tests = [entry for entry in known.values() if not isinstance(entry, Not)]
    named = {test for entry in tests for test in ([entry] if isinstance(entry, str) else entry)}
    assert [test for test in named if not exists(test)] == []


@pytest.fixture(scope="module")
def parser():
    from gigaseg.cli import make_parser

    return make_parser()


def test_gigaseg_understands_every_command_of_the_pages(parser, capsys):
    wrong, parsed = [], 0
    for page, command in COMMANDS:
        if command.startswith("gigaseg ") and not names_only(command):
            given = words(command)[1:]
            if given[0] == "train" and "…" in command:
                given += ["--data", "DATA", "--out", "RUN"]
            try:
                parser.parse_args([PLACEHOLDERS.get(word, word) for word in given])
            except SystemExit as end:
                if end.code:
                    wrong.append(f"{page}: {command}: {capsys.readouterr().err.splitlines()[-1]}")
            parsed += 1
    assert wrong == []
    assert parsed > 120


def names_only(command):
    """Whether the text names a sub-command, or an option of it, without what it works on."""
    given = words(command)[1:]
    return not given[1:] or given[:2] == ["stitch", "--regularise"] or (given[0] == "train" and not given[2:])


def test_snakemake_understands_every_command_of_the_pages(capsys):
    import yaml
    from snakemake.cli import parse_args

    rules = "\n".join(path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")])
    targets = set(re.findall(r"^ *rule (\w+):", rules, re.MULTILINE))
    keys = set(yaml.safe_load((ROOT / "config.yaml").read_text()))
    wrong, parsed = [], 0
    for page, command in COMMANDS:
        if not command.startswith("snakemake ") or "kubernetes" in command:  # whose plugin is not installed
            continue
        given = words(command)[1:]
        profiles = [given.pop(given.index("--workflow-profile") + 1) for _ in range(given.count("--workflow-profile"))]
        given = [word for word in given if word != "--workflow-profile"]  # parse_args reads it from the command line
        try:
            _, args = parse_args(given)
        except SystemExit:
            wrong.append(f"{page}: {command}: {capsys.readouterr().err.splitlines()[-1]}")
            continue
        wrong += [
            f"{page}: {command}: no target {name}" for name in args.targets if "/" not in name and name not in targets
        ]
        wrong += [f"{page}: {command}: no key {key}" for key in args.config or [] if key.partition("=")[0] not in keys]
        wrong += [f"{page}: {command}: no profile {name}" for name in profiles if not (ROOT / name).is_dir()]
        parsed += 1
    assert wrong == []
    assert parsed > 20


def test_scripts_that_the_pages_name_are_there_with_their_options(parser, capsys):
    wrong, looked = [], 0
    for page, command in COMMANDS:
        if re.match(r"python (benchmarks|docs)/", command):
            script, *given = words(command)[1:]
            source = with_imports(ROOT / script)
            if "import ablation" in source:  # whose other options are those of training
                with pytest.raises(SystemExit):
                    parser.parse_args(["train", Path(script).name.partition("_")[0], "--help"])
                source += re.sub(r"(--[\w-]+)", r'"\1"', capsys.readouterr().out)
            lacking = [word for word in given if word.startswith("--") and f'"{word}"' not in source]
            if not source or [word for word in lacking if word != "--help"]:
                wrong.append(f"{page}: {command}: {lacking or 'no such script'}")
            looked += 1
    assert wrong == []
    assert looked > 40


def with_imports(script):
    """Text of a script and of those beside it that it imports; empty where there is none."""
    if not script.exists():
        return ""
    text = script.read_text()
    beside = [script.with_name(f"{name}.py") for name in re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)]
    return text + "".join(path.read_text() for path in beside if path.exists())


class Page(HTMLParser):
    """What a page of the site loads, and what it links to."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.links = [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag in ("script", "img", "iframe", "source", "video") and values.get("src"):
            self.loads.append(values["src"])
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(values["href"])
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])


def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path):
    """Seconds; links and anchors that lead nowhere are warnings, which `--strict` makes errors."""
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 50
    for path, page in pages.items():
        assert page.loads
        for loaded in page.loads:
            assert not re.match(r"(https?:)?//", loaded), f"{path}: {loaded}"
            assert (path.parent / loaded.partition("?")[0]).exists(), f"{path}: {loaded}"
        local = [link.partition("#")[0] for link in page.links if not re.match(r"(\w+:|//|#)", link)]
        assert [link for link in local if not (path.parent / link).exists()] == [], path
        assert "mermaid" not in path.read_text(), "its library would come from another host"
    assert (site / "benchmarks" / "results" / "whole_slide.html") in pages
    assert (site / "workflow" / "profiles" / "slurm" / "profile.yaml").exists()
    assert not list(site.rglob("*.py"))


def test_every_page_is_in_the_navigation():
    navigation = Path(ROOT / "mkdocs.yml").read_text()
    assert [name for name in PAGES if f": {name.removeprefix('docs/')}\n" not in navigation] == []
