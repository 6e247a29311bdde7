"""Boards of a test's own: own names, own ports, own state folder; all are down at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.virtual.bench import MakeBoard, TestBoard, farm_virtual


@pytest.fixture(scope="module")
def make_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeBoard]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANIC_FARM_STATE", str(tmp_path_factory.mktemp("state")))

        def make(name: str, *options: str) -> TestBoard:
            done = farm_virtual("up", "--name", name, "--json", *options)
            assert done.returncode == 0, done.stderr
            return TestBoard(name, json.loads(done.stdout))

        yield make
        done = farm_virtual("down", "--all")
        assert done.returncode == 0, done.stderr


@pytest.fixture
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PANIC_FARM_STATE", str(tmp_path / "state"))
    return tmp_path / "state"
