"""Run the core of the suite on the lowest versions that pyproject.toml allows, and its SDK tests on a later SDK too.

    python -m tests.lowest [pytest options]     # `make test-lowest`

uv resolves the direct dependencies to their lowest versions (`--resolution lowest-direct`). The SDK is the lowest version, and
then one of the 1.x line. retold does not depend on click, but the lowest typer needs a click of the same age.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PINNED = ("click==8.1.7", "markdown-it-py==2.2.0", "httpx==0.27.2")
"""rich allows newer versions of the first two, and the SDK a newer httpx than the oldest one that retold supports."""

RUNNERS = ("pytest", "pytest-asyncio", "pytest-xdist", "hypothesis", "jsonschema", "pexpect", "packaging", "time-machine", "trio")

CORE = (
    "cassette_damaged", "cli_schema_doctor", "examples", "handler_contract", "handler_file", "run_live", "run_mock",
    "run_prompts", "serve", "use_cassette", "use_cassette_endings", "use_cassette_kept", "use_cassette_misses",
    "use_cassette_options", "view",
)  # fmt: skip
"""The files of the suite that use one SDK, the log, cassettes, workflows and the command line."""

OF_SDK = ("run_live", "run_prompts", "use_cassette", "use_cassette_endings", "use_cassette_misses", "use_cassette_options")
"""The files among them that send with the SDK. Only they can have another result with another SDK."""

SDKS = {"anthropic==0.48.0": CORE, "anthropic==1.0.0": OF_SDK}
"""The lowest SDK, and one of the 1.x line, each with its files. `make test` runs the whole suite on the newest."""


def main(options: list[str]) -> int:
    """Create one environment per SDK and run the core in it. Return 1 if a run failed, or 2 if uv is missing."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        print("tests/lowest.py needs uv, which is among the packages of the extra `test`: make test-lowest", file=sys.stderr)
        return 2
    failed = False
    for sdk, names in SDKS.items():
        with tempfile.TemporaryDirectory() as folder:
            failed |= run(uv, sdk, names, Path(folder) / "venv", options) != 0
    return int(failed)


def run(uv: str, sdk: str, names: tuple[str, ...], venv: Path, options: list[str]) -> int:
    """Install the lowest versions beside one SDK, run files of the suite and return pytest's exit code."""
    python = venv / "bin" / "python"
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)], check=True)
    subprocess.run([*install, "--resolution", "lowest-direct", "-e", f"{ROOT}[view]", *PINNED], check=True)
    subprocess.run([*install, "--upgrade-package", "anthropic", sdk], check=True)
    subprocess.run([*install, *RUNNERS], check=True)
    version = "import importlib.metadata as m; print(m.version('anthropic'))"
    print(f"== anthropic {subprocess.check_output([python, '-c', version], text=True).strip()}, floors elsewhere", flush=True)
    files = [str(ROOT / "tests" / f"test_{name}.py") for name in names]
    environment = os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    # Old libraries warn on new Pythons. `make test` covers the warnings of retold itself, as errors.
    quiet = ["-q", "-W", "default", "-n", "2", "--dist=worksteal"]
    command = [str(python), "-m", "pytest", *quiet, *options, *files]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
