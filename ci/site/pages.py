"""Makes the sources of the documentation's site: `pages.py OUT`.

They come from what the project has anyway, so that nothing is told twice: README.md, a page for each `## ` section
(the first two stand on the first page), CHANGELOG.md, stress/README.md, and the types and docstrings of the package.
Links follow their target to its page. A file of the project that a link names gets a page with its text, since no
address of a repository is known here. A link without a target is an error, which names file and line.
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
SECTIONS_OF_FIRST_PAGE = 2

API = """# API reference

What the package exports, from its own types and docstrings. `_K` and `_V` stand for the types of keys and values, a
`_Duration` is a number of seconds or a `timedelta`, a `_Policy` is `"tiny_lfu"` or `"lru"`, a `_Cause` is `"expired"`,
`"explicit"`, `"replaced"` or `"size"`, and `_KeysAndGetItem` is any mapping.

"""
DOCUMENTED = ("Moka", "cached", "Stats", "CachedFunction", "CachedMethod", "CacheInfo", "VERSION")

FENCE = re.compile(r" *(```+|~~~+)")
HEADING = re.compile(r"(#+) +(.*?) *#*$")
CODE_SPAN = re.compile(r"(`+)(?:(?!`).)+?\1")
# `[text](target)`, `[name]: target`, and HTML.
LINK = re.compile(r'(?P<before>\]\(|^\[[^\]^]+\]: +|\b(?:src|href|srcset)=")(?P<target>[^\s)"]+)')
LIST_ITEM = re.compile(r"( *)(?:[-*+]|\d+[.)]) ")
# What a link elsewhere looks like. Nobody asks whether it is there.
ELSEWHERE = re.compile(r'https://[\w-]+(\.[\w-]+)+(:\d+)?(/[^\s<>"]*)?|mailto:[^@\s]+@[\w.-]+')

LANGUAGES = {".py": "python", ".pyi": "python", ".rs": "rust", ".toml": "toml", ".json": "json", ".md": "markdown"}
IMAGES = {".svg", ".png", ".jpg", ".jpeg", ".gif", ".webp"}


class BrokenLink(Exception):
    """What a link names is not there."""


@dataclass
class Page:
    """A page to be, with the part of a Markdown file that it shows."""

    path: str
    title: str
    source: str
    # Each with its number in the source, and whether it is code.
    lines: list[tuple[int, str, bool]] = field(default_factory=list)


def anchor_of(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return slugify(case="lower")(text, "-")


def lines_of(source: str) -> list[tuple[int, str, bool]]:
    """The numbered lines of a Markdown file."""
    lines, fence = [], None
    for number, line in enumerate((ROOT / source).read_text(encoding="utf-8").splitlines(), 1):
        mark = FENCE.match(line)
        lines.append((number, line, fence is not None or mark is not None))
        if mark and fence is None:
            fence = mark[1]
        elif fence is not None and line.strip() == fence:
            fence = None
    return lines


def split(source: str) -> list[Page]:
    """The pages of README.md. The headings of a section's own page are one level higher than in the whole."""
    pages = [Page("index.md", "Start", source)]
    sections = 0
    for number, line, is_code in lines_of(source):
        heading = None if is_code else HEADING.match(line)
        if heading and len(heading[1]) == 2:
            sections += 1
            if sections > SECTIONS_OF_FIRST_PAGE:
                pages.append(Page(f"{anchor_of(heading[2])}.md", heading[2].replace("`", ""), source))
        if heading and len(pages) > 1:
            line = line.removeprefix("#")
        pages[-1].lines.append((number, line, is_code))
    return pages


class Site:
    """The pages, and where in them the targets of links are."""

    def __init__(self, docs: Path, pages: list[Page]) -> None:
        self.docs = docs
        self.pages = pages
        self.files: dict[str, str] = {}
        # (file, anchor) to (page, anchor); without an anchor the file's first page.
        self.places: dict[tuple[str, str], tuple[str, str]] = {}
        for page in pages:
            self.places.setdefault((page.source, ""), (page.path, ""))
            for _, line, is_code in page.lines:
                if not is_code and (heading := HEADING.match(line)):
                    anchor = anchor_of(heading[2])
                    self.places.setdefault((page.source, anchor), (page.path, anchor))

    def write(self) -> None:
        for page in self.pages:
            self.put(page.path, "\n".join(self.rendered(page)) + "\n")

    def put(self, path: str, content: str | Path) -> str:
        """Writes a text, or copies a file, to a path of the site, which it returns."""
        target = self.docs / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_text(content, encoding="utf-8")
        return path

    def rendered(self, page: Page) -> list[str]:
        """The lines of a page, in the dialect of MkDocs and with links that lead to pages."""
        lines: list[str] = []
        in_list = False
        for number, line, is_code in page.lines:
            if not is_code:
                item = LIST_ITEM.match(line)
                # There a list needs an empty line before it, and four spaces a level.
                if item and not in_list and lines and lines[-1].strip():
                    lines.append("")
                in_list = bool(item) or (in_list and (not line.strip() or line.startswith(" ")))
                if item:
                    line = item[1] + line
                try:
                    line = self.linked(page, line)
                except BrokenLink as error:
                    sys.exit(f"{page.source}:{number}: {error}")
            lines.append(line)
        return lines

    def linked(self, page: Page, line: str) -> str:
        """The line with its links led to pages; code spans stay as they are."""
        spans = list(CODE_SPAN.finditer(line))

        def lead(link: re.Match[str]) -> str:
            if any(span.start() <= link.start() < span.end() for span in spans):
                return link[0]
            return link["before"] + self.target(page, link["target"])

        return LINK.sub(lead, line)

    def target(self, page: Page, link: str) -> str:
        """Where a link on a page leads."""
        if re.match(r"[a-z][a-z0-9+.-]*:|//", link):
            if not ELSEWHERE.fullmatch(link):
                raise BrokenLink(f"{link} has not the form of an https link")
            return link
        name, _, anchor = link.partition("#")
        source = page.source
        if name:
            found = (ROOT / page.source).parent.joinpath(name).resolve()
            if not found.exists() or not found.is_relative_to(ROOT):
                raise BrokenLink(f"{link} leads to no file of the project")
            source = found.relative_to(ROOT).as_posix()
        if (source, anchor) in self.places:
            path, anchor = self.places[source, anchor]
        elif anchor:
            raise BrokenLink(f"{link} leads to no heading of {source}")
        else:
            path = self.file(source)
        up = "../" * (len(PurePosixPath(page.path).parts) - 1)
        return up + path + (f"#{anchor}" if anchor else "")

    def file(self, source: str) -> str:
        """The page of a file or folder of the project, or the image itself; made when the first link asks for it."""
        if source not in self.files:
            found = ROOT / source
            self.files[source] = f"files/{source}" if found.suffix in IMAGES else f"files/{source}.md"
            self.put(self.files[source], found if found.suffix in IMAGES else self.listing(found))
        return self.files[source]

    def listing(self, found: Path) -> str:
        """A page with the text of a file, or of the files of a folder."""
        files = [found] if found.is_file() else sorted(path for path in found.iterdir() if path.is_file())
        name = found.relative_to(ROOT).as_posix()
        parts = [f"# `{name}`"]
        for file in files:
            if found.is_dir():
                parts.append(f"## `{file.name}`")
            if file.suffix in IMAGES:
                up = "../" * name.count("/")
                image = self.file(file.relative_to(ROOT).as_posix()).removeprefix("files/")
                parts.append(f"![{file.name}]({up}{image})")
            else:
                language = LANGUAGES.get(file.suffix, "text")
                parts.append(f"````{language}\n{file.read_text(encoding='utf-8', errors='replace').rstrip()}\n````")
        return "\n\n".join(parts) + "\n"


def main() -> None:
    out = Path(sys.argv[1]).resolve()
    shutil.rmtree(out, ignore_errors=True)
    readme = split("README.md")
    changelog = Page("changelog.md", "Changelog", "CHANGELOG.md", lines_of("CHANGELOG.md"))
    stress = Page("stress.md", "Longer runs", "stress/README.md", lines_of("stress/README.md"))
    site = Site(out / "docs", [*readme, stress, changelog])
    site.write()
    site.put("api.md", API + "\n".join(f"::: moka_py.{name}\n" for name in DOCUMENTED))
    site.put("site.css", ROOT / "ci/site/site.css")
    # What is read is the text of the package, without an extension module that may lie beside it.
    package = out / "package/moka_py"
    package.mkdir(parents=True)
    for file in sorted((ROOT / "moka_py").glob("*.py*")):
        if file.suffix in (".py", ".pyi"):
            text = file.read_text(encoding="utf-8")
            (package / file.name).write_text(
                with_implementations(text) if file.suffix == ".pyi" else text, encoding="utf-8"
            )
    pages = [(page.title, page.path) for page in readme]
    pages += [("API reference", "api.md"), (stress.title, stress.path), (changelog.title, changelog.path)]
    config = {
        "INHERIT": str(ROOT / "ci/site/mkdocs.yml"),
        "docs_dir": str(site.docs),
        "site_dir": str(ROOT / "target/site"),
        "nav": [{title: path} for title, path in pages],
        "not_in_nav": "/files/",
        "plugins": {"mkdocstrings": {"handlers": {"python": {"paths": [str(package.parent)]}}}},
    }
    (out / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
