"""Hook of MkDocs: what pages link to outside docs/ comes into the site, under its path in the repository.

On the repository's own pages `../benchmarks/results/stitch.md` leads somewhere; a site of docs/ alone would lack it.
Markdown becomes a page, everything else is there to be fetched. Nothing is copied in the working tree.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
"""The path of a Markdown link within the repository."""

MERMAID = re.compile(r"^```mermaid\n.*?^```\n", re.MULTILINE | re.DOTALL)
"""A diagram, for which the theme would fetch a library from another host; it is drawn on the repository's page."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md and what its and all other pages' links lead to, and so on."""
    ahead = [file for file in files if file.is_documentation_page()]
    known = {_repository(file.src_uri) for file in files}
    while ahead:
        page = ahead.pop()
        found = [_target(link, page.src_uri) for link in LINK.findall(page.content_string)]
        for path in dict.fromkeys(["README.md", *found]):
            if path in known or not (ROOT / path).is_file():
                continue
            known.add(path)
            file = File.generated(
                config, _site(path), abs_src_path=str(ROOT / path), inclusion=InclusionLevel.NOT_IN_NAV
            )
            if path == "README.md":  # index.html is that of docs/index.md
                file.dest_uri, file.inclusion = "README.html", InclusionLevel.INCLUDED
            files.append(file)
            if file.is_documentation_page():
                ahead.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links from paths in the repository to those in the site."""
    here = posixpath.dirname(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        return posixpath.relpath(_site(_target(match[1], page.file.src_uri)), here or ".")

    return LINK.sub(moved, MERMAID.sub("", markdown))


def _target(link: str, page: str) -> str:
    """Path in the repository that a link of the page `page` of the site leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(_repository(page)), link))


def _repository(page: str) -> str:
    """Path in the repository of a file of the site."""
    return f"docs/{page}" if (ROOT / "docs" / page).exists() else page


def _site(path: str) -> str:
    """Path in the site of a file of the repository."""
    return path.removeprefix("docs/")
