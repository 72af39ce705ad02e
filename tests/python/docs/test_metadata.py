"""The URLs in the metadata are those of the repository that publishes."""

import sys
import tomllib

from helpers import ROOT


def test_release_adds_the_urls_of_its_repository_and_changes_nothing_else(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "ci")
    monkeypatch.delitem(sys.modules, "release", raising=False)
    import release

    monkeypatch.setenv("GITHUB_SERVER_URL", "https://git.example")
    monkeypatch.setenv("GITHUB_REPOSITORY", "some/project")
    # During a release the file already has the URLs.
    before = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("\n[project.urls]")[0]
    after = tomllib.loads(release.with_urls(before, release.address()))
    urls = after["project"].pop("urls")
    assert after == tomllib.loads(before)
    assert urls["Repository"] == "https://git.example/some/project"
    assert len(urls) == 4 and all(url.startswith(urls["Repository"]) for url in urls.values())
    monkeypatch.delenv("GITHUB_REPOSITORY")
    assert release.address() is None
