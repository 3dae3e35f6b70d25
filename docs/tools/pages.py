"""Make the pages of the site that are not files in docs/, and the links between both kinds.

mkdocs calls the functions whose names begin with `on_` (`hooks` in mkdocs.yml). Links in Markdown
files are relative paths in the repository, so that they work there, too.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from reference import command_line, configuration

ROOT = Path(__file__).parents[2]

# Files of the repository that are pages of the site.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "licence.md",
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "profiling/README.md": "profiling.md",
}
# In the place of `<!-- made: configuration -->` stands what the function returns.
MADE = {"configuration": configuration, "command line": command_line}
MARK = re.compile("<!-- made: ([a-z ]+) -->")
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")


def page_of(path: str) -> str | None:
    """Return the place on the site of a file of the repository, or None where it has none."""
    if path in PAGES:
        return PAGES[path]
    folder, _, name = path.partition("/")
    return name if folder == "docs" and (ROOT / path).is_file() else None


def with_links_of_the_site(text: str, path: str, page: str) -> str:
    """Return Markdown whose links lead to pages of the site.

    path : of the file in the repository, which links are relative to
    page : its place on the site
    """

    def replaced(match: re.Match) -> str:
        linked = page_of(posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1])))
        if linked is None:
            return match[1]
        return posixpath.relpath(linked, posixpath.dirname(page) or ".")

    return LINK.sub(replaced, text)


def content_of(path: str) -> str:
    """Return the Markdown of a file of the repository; the licence is a block of plain text."""
    text = (ROOT / path).read_text(encoding="utf8")
    return f"# Licence\n\n```text\n{text}```\n" if path == "LICENSE" else text


def on_files(files: Any, config: Any) -> Any:
    """Add the files of the repository that are pages of the site."""
    from mkdocs.structure.files import File

    for path, page in PAGES.items():
        if not (ROOT / "docs" / page).is_file():
            text = with_links_of_the_site(content_of(path), path, page)
            files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Give the pages of docs/ the links of the site, and fill in what is made from the package."""
    uri = page.file.src_uri
    if not (ROOT / "docs" / uri).is_file():
        return markdown
    markdown = with_links_of_the_site(markdown, f"docs/{uri}", uri)
    return MARK.sub(lambda match: MADE[match[1]](), markdown)
