"""A few rounds of the driver that runs the C core without Python; `make sanitize` runs more, under the sanitisers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).resolve().parents[1] / "driver"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.skipif(not (DRIVER.parents[1] / "setup.py").exists(), reason="needs the sources")
def test_driver(tmp_path: Path) -> None:
    subprocess.run([sys.executable, DRIVER / "build.py", tmp_path / "driver"], check=True)
    done = subprocess.run([tmp_path / "driver", "4", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("24 problems, ")
