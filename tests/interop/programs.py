"""Programs and packages that others wrote. A test whose program is missing is skipped; where everything must be there
(`CI_INTEROP=required`), it fails."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

REQUIRED = os.environ.get("CI_INTEROP") == "required"
PATIENCE_S = 120.0  # no program takes nearly so long; a longer one hangs
BUILD_PATIENCE_S = 900.0  # half a minute where nothing else runs

_CRATE = Path(__file__).parent / "quinn_client"
_PACKAGED_CRATES = Path("/usr/share/cargo/registry")  # of Debian's librust-*-dev


def module(name: str) -> ModuleType:
    """A package of Python. At the top of a module of tests, its absence skips them all."""
    return importlib.import_module(name) if REQUIRED else pytest.importorskip(name)


def program(name: str) -> str:
    """The path of a program."""
    path = shutil.which(name)
    if path is None and not REQUIRED:
        pytest.skip(f"{name} is not installed")
    assert path is not None, f"{name} is not installed"
    return path


@cache
def quinn_client() -> Path:
    """The client in `quinn_client/`, built: of Debian's crates where they are installed, else of cargo's own."""
    cargo = program("cargo")
    offline = []
    if list(_PACKAGED_CRATES.glob("quinn-0.9.*")):
        offline = [
            "--offline",
            '--config=source.crates-io.replace-with="packaged"',
            f'--config=source.packaged.directory="{_PACKAGED_CRATES}"',
        ]
    built = subprocess.run(
        [cargo, "build", "--quiet", *offline],
        cwd=_CRATE,
        env=os.environ | {"CARGO_TARGET_DIR": str(_CRATE / "target")},
        capture_output=True,
        text=True,
        timeout=BUILD_PATIENCE_S,
    )
    assert built.returncode == 0, built.stderr
    return _CRATE / "target" / "debug" / "quinn-client"
