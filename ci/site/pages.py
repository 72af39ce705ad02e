"""Writes the sources of the documentation's site: `pages.py OUT`.

They are the Markdown files of the project: README.md, the pages beside this script, CHANGELOG.md and the documents of
stress/. The API reference comes from the types and docstrings of the package. mkdocs.yml has the navigation, and the
build fails if a page is missing there.

Links follow their target to its page. No address of a repository is known here, so each other file of the project
that a link names gets a page with its text. A link without a target is an error, which names file and line.
"""

import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import yaml
from pymdownx.slugs import slugify
from stubs import with_implementations

ROOT = Path(__file__).resolve().parents[2]

# The paths in the site of the documents that are not in ci/site.
DOCUMENTS = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "stress/README.md": "stress.md",
    "stress/LOG.md": "log.md",
    "stress/bench/README.md": "benchmarks.md",
}

API = """# API reference

These are the names that the package exports, with their types and docstrings. `_K` and `_V` stand for the types of keys
and values. A `_Duration` is a number of seconds or a `timedelta`. A `_Policy` is `"tiny_lfu"` or `"lru"`. A `_Cause` is
`"expired"`, `"explicit"`, `"replaced"` or `"size"`. `_KeysAndGetItem` is any mapping. In near caches `V` stands for the
type of values, a `Key` is a str, bytes or int, a `Duration` is a number of seconds or a `timedelta`, and the default of
`ttl` is the ttl of the near cache.

"""
DOCUMENTED = (
    "Moka",
    "cached",
    "cached_functions",
    "Stats",
    "CachedFunction",
    "CachedMethod",
    "CacheInfo",
    "VERSION",
    "testing.ManualClock",
    "near.NearCache",
    "near.NearCachedFunction",
    "near.NearStats",
    "near.Serializer",
)

FENCE = re.compile(r" *(```+|~~~+)")
HEADING = re.compile(r"(#+) +(.*?) *#*$")
CODE_SPAN = re.compile(r"(`+)(?:(?!`).)+?\1")
# `[text](target)`, `[name]: target`, and HTML.
LINK = re.compile(r'(?P<before>\]\(|^\[[^\]^]+\]: +|\b(?:src|href|srcset)=")(?P<target>[^\s)"]+)')
LIST_ITEM = re.compile(r"( *)(?:[-*+]|\d+[.)]) ")
# The form of a link to another site. Whether its target exists is not checked.
ELSEWHERE = re.compile(r'https://[\w-]+(\.[\w-]+)+(:\d+)?(/[^\s<>"]*)?|mailto:[^@\s]+@[\w.-]+')

LANGUAGES = {".py": "python", ".pyi": "python", ".rs": "rust", ".toml": "toml", ".json": "json", ".md": "markdown"}
IMAGES = {".svg", ".png", ".jpg", ".jpeg", ".gif", ".webp"}


class BrokenLink(Exception):
    """A link whose target does not exist."""


@dataclass
class Page:
    """A page of the site and the Markdown file that it shows."""

    path: str
    source: str
    # Each line with its number, and whether it is code.
    lines: list[tuple[int, str, bool]] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = lines_of(self.source)


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return slugify(case="lower")(text, "-")


def lines_of(source: str) -> list[tuple[int, str, bool]]:
    """Return the lines of a Markdown file, each with its number and whether it is code."""
    lines, fence = [], None
    for number, line in enumerate((ROOT / source).read_text(encoding="utf-8").splitlines(), 1):
        mark = FENCE.match(line)
        lines.append((number, line, fence is not None or mark is not None))
        if mark and fence is None:
            fence = mark[1]
        elif fence is not None and line.strip() == fence:
            fence = None
    return lines


def pages() -> list[Page]:
    """Return the pages of the site."""
    site = ROOT / "ci/site"
    found = sorted(site.rglob("*.md"))
    listed = {path.relative_to(ROOT).as_posix(): path.relative_to(site).as_posix() for path in found}
    return [Page(path, source) for source, path in (DOCUMENTS | listed).items()]


class Site:
    """The pages, and the places in them that links lead to."""

    def __init__(self, docs: Path, pages: list[Page]) -> None:
        self.docs = docs
        self.pages = pages
        self.files: dict[str, str] = {}
        # The page of each file and each of its anchors. The empty anchor stands for the page itself.
        self.places: dict[tuple[str, str], str] = {}
        for page in pages:
            self.places[page.source, ""] = page.path
            for _, line, is_code in page.lines:
                if not is_code and (heading := HEADING.match(line)):
                    self.places[page.source, anchor_of(heading[2])] = page.path

    def write(self) -> None:
        for page in self.pages:
            self.write_file(page.path, "\n".join(self.render(page)) + "\n")

    def write_file(self, path: str, content: str | Path) -> str:
        """Write a text, or copy a file, to a path of the site, and return that path."""
        target = self.docs / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_text(content, encoding="utf-8")
        return path

    def render(self, page: Page) -> list[str]:
        """Return the lines of a page in the dialect of MkDocs, with links that lead to pages."""
        lines: list[str] = []
        in_list = False
        for number, line, is_code in page.lines:
            if not is_code:
                item = LIST_ITEM.match(line)
                # MkDocs wants an empty line before a list, and four spaces for each level.
                if item and not in_list and lines and lines[-1].strip():
                    lines.append("")
                in_list = bool(item) or (in_list and (not line.strip() or line.startswith(" ")))
                if item:
                    line = item[1] + line
                try:
                    line = self.resolve_links(page, line)
                except BrokenLink as error:
                    sys.exit(f"{page.source}:{number}: {error}")
            lines.append(line)
        return lines

    def resolve_links(self, page: Page, line: str) -> str:
        """Return the line with links that lead to pages. Code spans stay as they are."""
        spans = list(CODE_SPAN.finditer(line))

        def lead(link: re.Match[str]) -> str:
            if any(span.start() <= link.start() < span.end() for span in spans):
                return link[0]
            return link["before"] + self.resolve(page, link["target"])

        return LINK.sub(lead, line)

    def resolve(self, page: Page, link: str) -> str:
        """Return where a link on a page leads."""
        if re.match(r"[a-z][a-z0-9+.-]*:|//", link):
            if not ELSEWHERE.fullmatch(link):
                raise BrokenLink(f"{link} is not of the form of an https link")
            return link
        name, _, anchor = link.partition("#")
        source = page.source
        if name:
            found = (ROOT / page.source).parent.joinpath(name).resolve()
            if not found.exists() or not found.is_relative_to(ROOT):
                raise BrokenLink(f"{link} leads to no file of the project")
            source = found.relative_to(ROOT).as_posix()
        if (source, anchor) in self.places:
            path = self.places[source, anchor]
        elif anchor:
            raise BrokenLink(f"{link} leads to no heading of {source}")
        else:
            path = self.path_of(source)
        up = "../" * (len(PurePosixPath(page.path).parts) - 1)
        return up + path + (f"#{anchor}" if anchor else "")

    def path_of(self, source: str) -> str:
        """Return the page of a file or folder, or the path of an image. The first link to it makes it."""
        if source not in self.files:
            found = ROOT / source
            self.files[source] = f"files/{source}" if found.suffix in IMAGES else f"files/{source}.md"
            self.write_file(self.files[source], found if found.suffix in IMAGES else self.list_files(found))
        return self.files[source]

    def list_files(self, found: Path) -> str:
        """Return a page with the text of a file, or of the files of a folder."""
        files = [found] if found.is_file() else sorted(path for path in found.iterdir() if path.is_file())
        name = found.relative_to(ROOT).as_posix()
        parts = [f"# `{name}`"]
        for file in files:
            if found.is_dir():
                parts.append(f"## `{file.name}`")
            if file.suffix in IMAGES:
                up = "../" * name.count("/")
                image = self.path_of(file.relative_to(ROOT).as_posix()).removeprefix("files/")
                parts.append(f"![{file.name}]({up}{image})")
            else:
                language = LANGUAGES.get(file.suffix, "text")
                parts.append(f"````{language}\n{file.read_text(encoding='utf-8', errors='replace').rstrip()}\n````")
        return "\n\n".join(parts) + "\n"


def reference(name: str) -> str:
    """Return the entry of the API reference for a name of the package."""
    # The class of near caches has methods of classes that have no entry of their own.
    options = "    options:\n      inherited_members: true\n" if name == "near.NearCache" else ""
    return f"::: moka_py.{name}\n{options}"


def main() -> None:
    out = Path(sys.argv[1]).resolve()
    shutil.rmtree(out, ignore_errors=True)
    site = Site(out / "docs", pages())
    site.write()
    site.write_file("api.md", API + "\n".join(map(reference, DOCUMENTED)))
    site.write_file("site.css", ROOT / "ci/site/site.css")
    # A copy of the package's text, without an extension module that may lie beside it.
    package = out / "package"
    for file in sorted((ROOT / "moka_py").rglob("*.py*")):
        if file.suffix in (".py", ".pyi"):
            text = file.read_text(encoding="utf-8")
            target = package / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(with_implementations(text) if file.suffix == ".pyi" else text, encoding="utf-8")
    config = {
        "INHERIT": str(ROOT / "ci/site/mkdocs.yml"),
        "docs_dir": str(site.docs),
        "site_dir": str(ROOT / "target/site"),
        "not_in_nav": "/files/",
        "plugins": {"mkdocstrings": {"handlers": {"python": {"paths": [str(package)]}}}},
    }
    (out / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
