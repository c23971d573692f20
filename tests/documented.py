"""Commands of the README and of docs/, as they stand there, to look through and to run."""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

PAGES = {
    path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}

LANGUAGES = {"sh", "bash", "shell", "console", "python"}

PROGRAMS = r"(gigaseg|snakemake|python|pip|make|torchrun|pytest|docker|apptainer|curl|tmux|sbatch)"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    title: str
    text: str

    @property
    def holds_commands(self):
        """Whether a reader would run it; protocols are in blocks without a language."""
        begins = re.search(rf"^({PROGRAMS} |\w+=\")", self.text, re.MULTILINE)
        return self.language in LANGUAGES or (not self.language and begins is not None)


def blocks(page):
    """All fenced blocks of a page, in their order."""
    fences = re.findall(
        r'^( *)```(\w*)(?: title="([^"]+)")?\n(.*?)^\1```', PAGES[page].read_text(encoding="utf-8"), re.M | re.S
    )
    return [Block(page, language, title, text) for _, language, title, text in fences]


def lines(page):
    """Commands of a page's blocks, one a line, with what the shell puts in for the page's own variables."""
    text = "\n".join(block.text for block in blocks(page) if block.holds_commands and block.language != "python")
    for name, words in re.findall(r'^(\w+)="([^"]*)"', text, re.MULTILINE):
        text = text.replace(f"${name}", " ".join(words.split()))
    return commands(re.sub(r'^\w+="[^"]*"', "", text, flags=re.MULTILINE))


def spoken(page):
    """Commands within the text of a page, as `gigaseg doctor`."""
    text = re.sub(r"^( *)```.*?^\1```", "", PAGES[page].read_text(encoding="utf-8"), flags=re.M | re.S)
    return [" ".join(found.split()) for found in re.findall(rf"`({PROGRAMS}\s[^`]+)`", text) for found in found[:1]]


def commands(text):
    """Commands of a block, joined where they go on, without comments and usage that goes on by its indent."""
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"\n {4,}(?=\[|--)", " ", text)
    found = [line.split("  #")[0].split(" # ")[0].strip() for line in text.splitlines()]
    return [line for line in found if line and not line.startswith("#")]


def words(command):
    """Words of a command; `[--option value]` is there, of `a|b` the first is, and `…` stands for nothing."""
    command = re.sub(r"(\S+?)(\|\S+?)+(?=[\s\]]|$)", r"\1", command)
    command = command.replace("[", " ").replace("]", " ").replace("…", " ")
    return shlex.split(command)


def run(text, stand_ins=()):
    """Run a block's commands in the working directory: gigaseg's here, which spares its start, others by the shell."""
    from gigaseg.cli import main

    for command in commands(text):
        for ours, theirs in stand_ins:
            command = re.sub(ours, theirs, command)
        if command.startswith("gigaseg "):
            given = shlex.split(command)[1:]
            expanded = [
                path for word in given for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
            ]
            assert main(expanded) == 0, command
        else:
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=500, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
