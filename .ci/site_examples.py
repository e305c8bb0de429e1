"""Hooks of mkdocs: each example is a page of the site, and docstrings become paragraphs and code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

EXAMPLES: Final = Path(__file__).parents[1] / "examples"
LINK: Final = re.compile(r"\]\(((?:\.\./)+)examples/(\w+)[.]py\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each example."""
    for path in sorted(EXAMPLES.glob("*.py")):
        content = f"# {path.name}\n\n```python\n{path.read_text('utf-8')}```\n"
        files.append(File.generated(config, f"examples/{path.stem}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs'
    """Let links to examples, which lie beside docs/, lead to their pages."""
    return LINK.sub(lambda match: f"]({match[1].removeprefix('../')}examples/{match[2]}.md)", markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs'
    """Take off the two colons by which docstrings announce code."""
    return html.replace(" ::</p>", "</p>").replace("::</p>", ":</p>")
