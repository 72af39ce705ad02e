"""The Python blocks of the integrations' pages run, and the programs for web frameworks serve real clients."""

import asyncio
import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from documents import blocks, run_block
from helpers import ROOT
from integrations.servers import asgi_server

PAGES = ROOT / "ci/site/integrations"
# The modules that a page needs. The blocks of the other ones are of the frameworks that their headings name.
NEEDED = {
    "django": ["django"],
    "dogpile": ["dogpile.cache"],
    "flask_caching": ["flask_caching"],
    "opentelemetry": ["opentelemetry.sdk"],
    "prometheus": ["prometheus_client"],
    "sqlalchemy": ["sqlalchemy", "dogpile.cache"],
}
WEB_FRAMEWORKS = {heading: code for code, _, heading in blocks(PAGES / "web_frameworks.md")}
WAIT_SECONDS = 60


def need(*modules):
    for module in modules:
        pytest.importorskip(module, reason=f"{module} is not installed")


def test_each_page_has_a_block():
    assert {page.stem for page in PAGES.glob("*.md")} == NEEDED.keys() | {"web_frameworks"}
    assert all(list(blocks(PAGES / f"{name}.md")) for name in NEEDED)
    assert set(WEB_FRAMEWORKS) == {"FastAPI", "Starlette", "Litestar"}


@pytest.mark.parametrize(
    ("name", "code", "line"),
    [
        pytest.param(name, code, line, id=f"{name}:{line}")
        for name in NEEDED
        for code, line, _ in blocks(PAGES / f"{name}.md")
    ],
)
def test_block_runs(tmp_path, name, code, line):
    need(*NEEDED[name])
    result = run_block(tmp_path, code, line)
    assert result.returncode == 0, result.stderr
    assert not result.stderr


@pytest.fixture(params=list(WEB_FRAMEWORKS))
def program(request, tmp_path, monkeypatch):
    """The module of a program of the page."""
    need(request.param.lower(), "uvicorn", "httpx")
    path = tmp_path / "program.py"
    path.write_text(WEB_FRAMEWORKS[request.param], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("program", path)
    program = importlib.util.module_from_spec(spec)
    # Litestar looks for the module there.
    monkeypatch.setitem(sys.modules, "program", program)
    spec.loader.exec_module(program)
    return program


def test_program_serves_from_its_caches(program):
    import httpx

    with asgi_server(program.app) as address, httpx.Client(base_url=address, timeout=WAIT_SECONDS) as client:
        assert [client.get("/price/tea").json() for _ in range(3)] == [3, 3, 3]
        assert [client.get("/visits/ada").json() for _ in range(3)] == [1, 2, 3]
        assert client.get("/visits/bob").json() == 1
    assert program.price.cache_info()[:2] == (2, 1)


def test_each_start_of_a_program_begins_with_a_new_cache_of_its_lifespan(program):
    import httpx

    for _ in range(2):
        with asgi_server(program.app) as address:
            assert httpx.get(f"{address}/visits/ada", timeout=WAIT_SECONDS).json() == 1


def test_requests_at_the_same_time_share_one_run(program):
    import httpx

    runs, arrived = [], []

    async def query(item):
        runs.append(item)
        async with asyncio.timeout(WAIT_SECONDS):
            while len(arrived) < 2:
                await asyncio.sleep(0.001)
        # The other request is on its way through the framework, which takes a few turns of the event loop.
        for _ in range(100):
            await asyncio.sleep(0)
        return len(item)

    async def application(scope, receive, send):
        if scope["type"] == "http":
            arrived.append(scope["path"])
        await program.app(scope, receive, send)

    program.query = query
    with asgi_server(application) as address, ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: httpx.get(f"{address}/price/tea", timeout=WAIT_SECONDS).json(), range(2)))
    assert (answers, runs) == ([3, 3], ["tea"])
