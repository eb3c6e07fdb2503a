"""A machine without a network: the server starts, becomes ready and answers; vendors give a clean error."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import ROOT, environment

NAMESPACE = ("unshare", "--map-root-user", "--net")
READY_S = 10.0  # 1.5 s on a machine that does nothing else
REFUSED_S = READY_S + 2 + 4 + 8  # four attempts, and the ceilings of the back-offs between them
IDLE_MB = 125


def has_namespaces() -> bool:
    if shutil.which(NAMESPACE[0]) is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not has_namespaces(), reason="the system gives this user no network namespace (unshare)")
def test_it_starts_and_answers_with_the_network_cut(tmp_path: Path) -> None:
    """All vendors' keys are set, so that every request to vendors at startup would happen here."""
    command = [*NAMESPACE, sys.executable, "-m", "tests.faults.offline", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (status, error, took_s), (local_status, answer, local_s) = found["vendor"], found["local"]
    print(f"\n  no route ({found['unreachable']}): ready after {found['ready_s']:.2f} s", end=" ")
    print(f"({found['ready_cpu_s']:.2f} s of CPU), {found['idle_mb']:.0f} MB idle;", end=" ")
    print(f"a vendor's model {status} after {took_s:.2f} s, the embedded one {local_status} after {local_s:.2f} s")
    assert found["unreachable"] != ""
    assert (found["ready"], found["ready_s"] < READY_S) == (200, True)
    assert found["idle_mb"] <= IDLE_MB
    assert (status, error["error"]["code"], took_s < REFUSED_S) == (503, "upstream_unavailable", True)
    assert (local_status, answer["model"]) == (200, "local/smollm2-135m")
    assert found["exit"] == 0
