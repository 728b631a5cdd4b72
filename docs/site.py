"""Hook of MkDocs: README, CONTRIBUTING and CHANGELOG become pages, and so does every source file that a page links to.

The pages in docs/ are written to be read in the repository too, where they lead to files outside docs/. Here such links lead
to the generated pages. Anything else that is linked and is not there ends the build (`mkdocs build --strict`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
TEXTS = ("LICENSE", "NOTICE", "CITATION.cff")
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages, and leaves out what is no page."""
    for file in [file for file in files if file.src_uri.endswith(".py")]:
        files.remove(file)
    found = {name: (ROOT / name).read_text() for name in PAGES}
    found |= {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    sources = {target for name, text in found.items() for target in _linked(name, text)} - found.keys()
    for name in sorted(sources):
        if name.startswith("docs/") or not (ROOT / name).is_file():
            continue
        kind = "python" if name.endswith(".py") else "text"
        text = f"# {name}\n\n```{kind}\n{(ROOT / name).read_text()}\n```\n"
        files.append(File.generated(config, f"source/{name}.md", content=text))
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=found[name]))
    return files


def on_page_markdown(markdown: str, page: object, config: MkDocsConfig, files: Files) -> str:
    """Links of a page as they are in the site."""
    here = page.file.src_uri  # type: ignore[attr-defined]
    name = next((name for name, target in PAGES.items() if target == here), f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        target = _resolved(name, link[2])
        if target is None:
            return link[0]
        there = _place(target)
        return f"{link[1]}{os.path.relpath(there, Path(here).parent)}{link[3] or ''}{link[4]}"

    return LINK.sub(moved, markdown)


def _linked(name: str, text: str) -> set[str]:
    """Files of the repository to which a page leads."""
    return {target for link in LINK.finditer(text) if (target := _resolved(name, link[2]))}


def _resolved(name: str, link: str) -> str | None:
    """The file of the repository that a link of the page `name` means; None for one elsewhere."""
    if re.match(r"[a-z]+:|/", link):
        return None
    return os.path.normpath(Path(name).parent / link)


def _place(target: str) -> str:
    """Where a file of the repository is in the site's sources."""
    if target in PAGES:
        return PAGES[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"source/{target}.md"
