"""Passwords of power switches and databases are in no report, log or run.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.errors import BenchError, masked
from farm.export import write_run_exports
from farm.model import Policy
from farm.report.files import write_reports
from farm.run.progress import RunProgress
from farm.run.session import Plan, execute
from farm.scenarios import select
from tests.bench.conftest import FakeBoard


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://admin:hunter2@pdu/1", "http://admin:***@pdu/1"),
        ("http://admin:hun@ter2@pdu/1", "http://admin:***@pdu/1"),
        ("postgresql://u:hunter2@h:5432/x?sslmode=a", "postgresql://u:***@h:5432/x?sslmode=a"),
        ("url: /relay?user=x&password=hunter2&on=1", "url: /relay?user=x&password=***&on=1"),
        ("host=h PASSWORD=hunter2 x", "host=h PASSWORD=*** x"),
        ("?api_key=hunter2", "?api_key=***"),
        ("ssh://user@host:22/a and http://h:80/b@c", "ssh://user@host:22/a and http://h:80/b@c"),
        ("root@virtual:~# echo passed=1", "root@virtual:~# echo passed=1"),
    ],
)
def test_a_password_is_masked_and_nothing_else(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert BenchError(text, part="power", next_step=text).next_step == shown


def test_no_file_of_a_run_has_the_power_switchs_password(
    board: FakeBoard, lg_env: Path, tmp_path: Path
) -> None:
    text = lg_env.read_text()
    address = f"http://localhost:{board.power_port}/power/"
    assert address in text
    # Nobody listens there.
    secret = "http://admin:hunter2@localhost:1/"
    lg_env.write_text(text.replace(f"{address}{{index}}/{{value}}", f"{secret}?token=hunter3"))
    plan = Plan(
        lg_env=lg_env,
        scenarios=select(["sysrq-c"]),
        repeat=1,
        out=tmp_path / "reports",
        policy=Policy(),
        before_panic=None,
        keep_records=False,
        command=("farm", "run", "--history", "postgresql://farm:hunter2@db/farm"),
    )
    with RunProgress(1, quiet=True) as progress:
        account = execute(plan, progress)
    folder = plan.out / account.run_id
    write_reports(folder, account)
    write_run_exports(folder, account)
    assert account.verdict == "ERROR"
    said = (folder / "run.json").read_text()
    assert "token=***" in said
    assert "farm:***@db" in said
    written = [file for file in folder.rglob("*") if file.is_file()]
    assert len(written) > 5
    found = [file for file in written if b"hunter" in file.read_bytes()]
    assert found == []
