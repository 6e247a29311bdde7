"""The agent's own folders: kept while their agent lives, whoever it is, and no longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from farm.bench import usb_agent

# What is sent to other hosts has no types.
AGENT: Any = usb_agent

HOLD = """
import os, sys
from farm.bench import usb_agent
folder, _ = usb_agent._new_folder()
print(folder, flush=True)
sys.stdin.read()
"""


def agent(folder: Path, *before: str) -> tuple[subprocess.Popen[str], Path]:
    """An agent that is at work in a folder of its own."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


# In a container the agent's process id is one that is not there outside, or somebody else's.
@pytest.mark.parametrize("before", [(), ("unshare", "--user", "--pid", "--fork", "--kill-child")])
def test_another_agents_folder_is_swept_when_it_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: tuple[str, ...]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    process, folder = agent(tmp_path, *before)
    (folder / ".output").write_text("x")
    AGENT._sweep()
    assert (folder / ".output").is_file()
    process.kill()
    process.communicate()
    AGENT._sweep()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_gone_behind_its_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def use() -> None:
        with AGENT._tool_folder() as folder:
            AGENT._sweep()
            assert folder.is_dir()
            raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        use()
    assert list(tmp_path.iterdir()) == []
