"""Hooks of mkdocs: each example and the changelog are pages, and docstrings become paragraphs and code."""

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
LINK: Final = re.compile(r"\]\(\.\./((?:\.\./)*)(?:examples/(?P<example>\w+)[.]py|CHANGELOG[.]md)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each example, and one for the changelog."""
    for path in sorted((ROOT / "examples").glob("*.py")):
        content = f"# {path.name}\n\n```python\n{path.read_text('utf-8')}```\n"
        files.append(File.generated(config, f"examples/{path.stem}.md", content=content))
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    files.append(File.generated(config, "changes.md", content=changelog))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs'
    """Let links to examples and to the changelog, which lie beside docs/, lead to their pages."""

    def page_of(match: re.Match[str]) -> str:
        example = match["example"]
        return f"]({match[1]}examples/{example}.md)" if example else f"]({match[1]}changes.md)"

    return LINK.sub(page_of, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs'
    """Take off the two colons by which docstrings announce code."""
    return html.replace(" ::</p>", "</p>").replace("::</p>", ":</p>")
