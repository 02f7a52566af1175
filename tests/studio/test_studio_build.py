"""The page that is committed is what its sources build, it is small, and no wheel is made without it."""

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "src" / "sfumato" / "server" / "web"
FRONTEND = ROOT / "frontend"


def test_the_page_weighs_less_than_300_kilobytes_as_it_travels() -> None:
    files = [path for path in WEB.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".html", ".js", ".css", ".svg"}
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < 300_000


def test_the_page_asks_no_other_site_for_anything() -> None:
    for path in WEB.rglob("*.html"):
        assert "//" not in path.read_text(encoding="utf-8").replace("<!doctype", "")
    for path in WEB.rglob("*.css"):
        assert "url(" not in path.read_text(encoding="utf-8") and "@import" not in path.read_text(encoding="utf-8")


def test_the_lock_of_the_sources_names_no_host() -> None:
    assert '"resolved"' not in (FRONTEND / "package-lock.json").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the page's sources with what they are built with."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs Node.js and npm, and this machine has none")
    copied = tmp_path_factory.mktemp("sources") / "frontend"
    shutil.copytree(FRONTEND, copied, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"], cwd=copied, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"npm could not install what the page is built with: {done.stderr.strip().splitlines()[-1:]}")
    return copied


def test_a_fresh_build_is_the_page_that_is_committed(sources: Path) -> None:
    built = sources / "built"
    command = ["npx", "vite", "build", "--outDir", str(built), "--logLevel", "error"]
    subprocess.run(command, cwd=sources, check=True)
    fresh, kept = (
        {path.relative_to(at): path.read_bytes() for path in at.rglob("*") if path.is_file()} for at in (built, WEB)
    )
    assert fresh.keys() == kept.keys(), "run `npm ci && npm run build` in frontend/ and commit src/sfumato/server/web"
    assert [str(path) for path in fresh if fresh[path] != kept[path]] == []


@pytest.mark.slow
def test_the_sources_have_no_error_of_types_and_no_warning(sources: Path) -> None:
    done = subprocess.run(["npm", "run", "--silent", "check"], cwd=sources, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_wheel_is_made_without_the_page(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the build backend of requirements.lock is not installed here")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    package = tmp_path / "src" / "sfumato"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "index.html is missing" in done.stderr + done.stdout
    page = package / "server" / "web"
    page.mkdir(parents=True)
    shutil.copy(WEB / "index.html", page)
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
