"""Hooks of mkdocs: pages of what lies beside docs/, and docstrings as paragraphs and code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
TOP_PAGES: Final = {"CHANGELOG": "changes.md", "SECURITY": "reporting.md"}
LINK: Final = re.compile(
    r"\]\(\.\./((?:\.\./)*)(?:examples/(?P<example>\w+)[.]py|(?P<page>CHANGELOG|SECURITY)[.]md)\)"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each example, and for what stands at the top of the repository."""
    for path in sorted((ROOT / "examples").glob("*.py")):
        content = f"# {path.name}\n\n```python\n{path.read_text('utf-8')}```\n"
        files.append(File.generated(config, f"examples/{path.stem}.md", content=content))
    for name, page in TOP_PAGES.items():
        content = (ROOT / f"{name}.md").read_text("utf-8")
        content = content.replace("](docs/", "](").replace("](CHANGELOG", "](changes")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs'
    """Let links to what lies beside docs/ lead to its pages."""

    def page_of(match: re.Match[str]) -> str:
        page = f"examples/{match['example']}.md" if match["example"] else TOP_PAGES[match["page"]]
        return f"]({match[1]}{page})"

    return LINK.sub(page_of, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs'
    """Take off the two colons by which docstrings announce code."""
    return html.replace(" ::</p>", "</p>").replace("::</p>", ":</p>")
