"""MkDocs's hooks: every link has its page, nothing of docs/ is left out, and nothing is loaded from elsewhere.

In: MkDocs's events. Out: pages of `repository_pages`, folders in the navigation written out, warnings that fail
`make docs`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

from documentation import repository_pages, self_contained

_log = logging.getLogger("mkdocs.hooks.documentation")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A folder in the navigation (`runbooks/`) stands for its pages, the README first."""
    config.nav = _written_out(config.nav, Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """A page for everything that a page links to outside docs/, and what those link to."""
    waiting = [file for file in files if file.is_documentation_page()]
    while waiting:
        file = waiting.pop()
        for path in repository_pages.linked_paths(file.src_uri, file.content_string):
            page = repository_pages.page_of(path)
            if files.get_file_from_path(page) is None and page.startswith(repository_pages.PREFIX):
                made = _page(page, path, config)
                files.append(made)
                waiting += [made] if repository_pages.is_written_here(page) else []
    return files


def on_nav(nav: Navigation, files: Files, config: MkDocsConfig) -> None:  # noqa: ARG001 (MkDocs gives it)
    """No page of docs/ is left out of the navigation."""
    there = {page.file.src_uri for page in nav.pages}
    for file in files.documentation_pages():
        if file.src_uri not in there and not file.src_uri.startswith(repository_pages.PREFIX):
            _log.warning("docs/%s is in no part of the navigation: add it to mkdocs.yml", file.src_uri)


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links lead to the pages that the site has."""
    written = page.file.src_uri
    if written.startswith(repository_pages.PREFIX) and not repository_pages.is_written_here(written):
        return markdown
    return repository_pages.with_links_of_the_site(written, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """No page loads anything from elsewhere."""
    readers = {"*.html": self_contained.loaded_by_page, "*.css": self_contained.loaded_by_style}
    for pattern, loaded_by in readers.items():
        for path in Path(config.site_dir).rglob(pattern):
            for address in loaded_by(path.read_text()):
                raise PluginError(f"{path.relative_to(config.site_dir)} loads {address}")


def _written_out(nav: object, docs: Path) -> object:
    match nav:
        case list():
            return [_written_out(each, docs) for each in nav]
        case dict():
            return {title: _written_out(each, docs) for title, each in nav.items()}
        case str() if nav.endswith("/"):
            pages = sorted((docs / nav).glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
            return [f"{nav}{path.name}" for path in pages]
        case _:
            return nav


def _page(page: str, path: str, config: MkDocsConfig) -> File:
    if repository_pages.is_written_here(page):
        return File.generated(config, page, content=repository_pages.text_of(page))
    return File.generated(config, page, content=repository_pages.shown(path))
