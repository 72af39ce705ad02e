"""Checks the built site: `check_links.py SITE`.

Each link within the site leads to a file that exists, and to an id in it. Links to other sites have the form of an
https address, and pages load nothing from other sites. Prints the wrong links and the numbers of pages and links.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# The elements and attributes by which a page loads a file.
LOADING = {("img", "src"), ("script", "src"), ("iframe", "src"), ("source", "src"), ("source", "srcset")}


class PageLinks(HTMLParser):
    """The ids of a page and its links, each with whether the page loads its target."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attributes}
        self.ids |= {has[name] for name in ("id", "name") if name in has}
        if tag == "link" and "href" in has:
            self.links.append((has["href"], has.get("rel") not in ("canonical", "prev", "next")))
        elif tag == "a" and "href" in has:
            self.links.append((has["href"], False))
        self.links += [(has[name], True) for element, name in LOADING if element == tag and name in has]


def problem_of(page: Path, link: str, loads: bool, pages: dict[Path, PageLinks], site: Path) -> str | None:
    """Return the problem of a link of a page, or None."""
    parts = urlsplit(link)
    if parts.scheme in ("http", "https") or parts.netloc:
        if loads:
            return "is loaded from another site"
        return None if parts.scheme == "https" and "." in parts.netloc else "is not of the form of an https link"
    if parts.scheme:
        return None if parts.scheme in ("mailto", "data") else f"has the scheme {parts.scheme}"
    if parts.path.startswith("/"):
        return "begins at the root of the server"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    target = target / "index.html" if target.is_dir() else target
    if not target.is_relative_to(site) or not target.is_file():
        return "leads to no file"
    if parts.fragment and not (target in pages and unquote(parts.fragment) in pages[target].ids):
        return "leads to no place in its page"
    return None


def main() -> None:
    site = Path(sys.argv[1]).resolve()
    # The page 404.html is served at any address, so its links begin at the root.
    files = [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]
    pages = {path: PageLinks(path.read_text(encoding="utf-8")) for path in files}
    wrong = {
        f"{page.relative_to(site)}: {link} {problem}"
        for page, found in pages.items()
        for link, loads in found.links
        if (problem := problem_of(page, link, loads, pages, site))
    }
    for line in sorted(wrong):
        print(line)
    print(f"{len(pages)} pages, {sum(len(found.links) for found in pages.values())} links, {len(wrong)} of them wrong")
    sys.exit(1 if wrong or not pages else 0)


if __name__ == "__main__":
    main()
