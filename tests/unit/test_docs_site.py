"""The site of docs/ (`make docs`): links that leave docs/ get pages, and nothing is loaded from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from documentation import repository_pages, self_contained

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("docs/slo.md", "slo.md"),
        ("docs/decisions", "decisions/README.md"),
        ("README.md", "repository/README.md"),
        ("examples", "repository/examples/README.md"),
        ("Dockerfile", "repository/Dockerfile.md"),
        ("schemas/avro/Settlements.avsc", "repository/schemas/avro/Settlements.avsc.md"),
    ],
)
def test_each_path_of_the_repository_has_one_page(path: str, page: str) -> None:
    assert repository_pages.page_of(path) == page


@pytest.mark.parametrize(
    ("page", "written", "read"),
    [
        ("deploy.md", "[a](../Dockerfile)", "[a](repository/Dockerfile.md)"),
        ("deploy.md", "[a](settings.md#kafka)", "[a](settings.md#kafka)"),
        ("runbooks/README.md", "[a](../../SECURITY.md#x)", "[a](../repository/SECURITY.md#x)"),
        ("repository/README.md", "[a](docs/slo.md)", "[a](../slo.md)"),
        ("repository/README.md", "[a](docs/decisions/)", "[a](../decisions/README.md)"),
        ("deploy.md", "[a](https://example.com/x) [b](#here)", "[a](https://example.com/x) [b](#here)"),
    ],
)
def test_links_lead_to_the_pages_of_the_site(page: str, written: str, read: str) -> None:
    assert repository_pages.with_links_of_the_site(page, written) == read


def test_a_link_to_nowhere_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"docs/deploy\.md links to \.\./none, which is not there"):
        list(repository_pages.linked_paths("deploy.md", "[a](../none)"))


def test_a_file_is_shown_whole_whatever_it_holds() -> None:
    shown = repository_pages.shown("CONTRIBUTING.md")
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert f"\n````md\n{text}\n````\n" in shown, "its own fences have three"
    assert "exclude: true" in shown
    assert "- `Settlements.avsc`\n" in repository_pages.shown("schemas/avro")


@pytest.mark.parametrize(
    ("html", "loads"),
    [
        ('<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', ["//fonts.example/x.css"]),
        ('<img src="http://example.com/x.png">', ["http://example.com/x.png"]),
        ('<p style="background: url(https://example.com/x)">', ["https://example.com/x"]),
        ('<a href="https://example.com">by a click</a><link rel="canonical" href="https://example.com">', []),
        ('<script src="assets/x.js"></script><img src="../x.png">', []),
    ],
)
def test_everything_that_a_page_loads_from_elsewhere_is_found(html: str, loads: list[str]) -> None:
    assert self_contained.loaded_by_page(html) == loads


def test_everything_that_a_style_loads_from_elsewhere_is_found() -> None:
    css = '@import "https://fonts.example/a.css"; a { background: url("//example.com/b") } b { color: url(c.svg) }'
    assert self_contained.loaded_by_style(css) == ["https://fonts.example/a.css", "//example.com/b"]
