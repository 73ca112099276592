"""Build the wheel of this checkout from a copy of the files that a build reads."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import setuptools.build_meta as backend; print(backend.build_wheel({!r}))"


def build_wheel(folder: Path) -> Path:
    """Build in `folder` and return the wheel. A warning of setuptools is an error."""
    tree, out = folder / "tree", folder / "dist"
    tree.mkdir()
    out.mkdir()
    links = ("recorder", "replay", "handlers")  # under src/retold, for type checkers only; not in a source distribution
    for name in (*links, "src"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", *(links if name == "src" else ()))
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / file, tree)
    command = [sys.executable, "-W", "error::setuptools.SetuptoolsDeprecationWarning", "-c", BUILD.format(str(out))]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "would be ignored" not in done.stdout + done.stderr
    return out / done.stdout.splitlines()[-1]
