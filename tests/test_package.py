"""The tests check the wheel that users get: it has every file of the packages, and works outside the source tree."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_architecture import HOMES, PROJECT
from tests.wheel import build_wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Return the wheel, built from a copy of the files that a build reads."""
    with zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("wheel"))) as shipped:
        yield shipped


def test_every_file_of_the_packages_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """A module, template, style or script missing from the wheel would be missing for every user who did not clone."""
    expected = set()
    for package, home in HOMES.items():
        for folder, inner, files in os.walk(home):
            inner[:] = [name for name in inner if name != "__pycache__"]
            at = Path(*package.split("."), Path(folder).relative_to(home))
            expected |= {str(at / file) for file in files if not file.endswith((".pyc", ".pyo"))}
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == expected


def test_the_wheel_has_its_metadata(wheel: zipfile.ZipFile) -> None:
    """An installation has the command, the pytest plugin, the licence and the README."""
    (info,) = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("retold", PROJECT["project"]["version"])
    assert metadata["License-Expression"] == "MIT"
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text("utf-8").strip()
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    entries = wheel.read(f"{info}/entry_points.txt").decode().split("\n")
    assert {"retold = retold.cli:main", "retold = retold.testing.pytest_plugin"} <= set(entries)
    # A user needs no test and no tool of this repository.
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert [line for line in needed if line.startswith(("pytest", "vcrpy", "mypy", "ruff"))] == []


def test_the_wheel_works_outside_the_source_tree(wheel: zipfile.ZipFile, environment: dict[str, str]) -> None:
    """Installed into an empty folder, it runs a workflow and contains the files that pages are made of."""
    wheel.extractall("site")
    shutil.copytree(ROOT / "cassettes", "cassettes")
    shutil.copytree(ROOT / "examples", "examples")

    def retold(*args: str) -> str:
        environ = environment | {"PYTHONPATH": str(Path("site").absolute())}
        command = [sys.executable, "-m", "retold", *args]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert retold("--version") == f"retold {PROJECT['project']['version']}\n"
    assert retold("run", "examples/clean_streaming_numbers.yaml").startswith("=== clean_streaming_numbers: count ===\n")
    page = retold("export", "last", "--format", "html")
    assert page.startswith("<!doctype html>")
    assert (ROOT / "src" / "retold" / "pages" / "static" / "run.js").read_text("utf-8")[:200] in page
    traced = subprocess.run(
        [sys.executable, "-c", "import retold, retold.recorder; print(retold.__file__, retold.recorder.__file__)"],
        env=environment | {"PYTHONPATH": str(Path("site").absolute())}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert all(path.startswith(str(Path("site").absolute())) for path in traced.stdout.split())
