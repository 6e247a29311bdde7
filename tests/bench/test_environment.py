from __future__ import annotations

import gc
import json
import socket
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from labgrid import Environment

from farm.bench import hooks
from farm.bench.environment import Bench, bench_from_target, open_bench, read_options
from farm.bench.environment_file import schema
from farm.bench.power import Power
from farm.errors import BenchError, DeadlineError, UsageError
from farm.model import Policy
from farm.yaml_file import read_yaml

DEVICES = Path(__file__).resolve().parents[2] / "devices"


def with_options(lg_env: Path, extra: str) -> Path:
    text = lg_env.read_text()
    lg_env.write_text(text.replace("      board: fake\n", f"      board: fake\n{extra}"))
    return lg_env


@pytest.mark.parametrize("file", sorted(DEVICES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_environments_that_come_with_the_farm_are_valid(file: Path) -> None:
    options = read_options(file)
    assert options.board == file.stem
    assert options.virtual == file.stem.startswith("virtual")
    assert {"sysrq", "break"} <= options.features
    assert options.policy.required


def test_options_are_read(lg_env: Path) -> None:
    with_options(lg_env, "      policy: {required: [a], budget_bytes: {'a*': 10}}\n")
    options = read_options(lg_env)
    assert options.policy == Policy(required=("a",), budget_bytes={"a*": 10})
    assert options.features == {"sysrq", "break"}
    assert options.deadlines_s.boot == 10
    assert options.deadlines_s.reset == 60


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ("      bord: x\n", "options.bord"),
        ("      policy: {budget: {}}\n", "options.policy.budget"),
        ("      bench: {stat: [a]}\n", "options.bench.stat"),
        ("      virtual: maybe\n", "options.virtual"),
        ("      features: [x]\n", "options.features"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(lg_env: Path, extra: str, named: str) -> None:
    text = lg_env.read_text().replace("      virtual: true\n", "")
    lg_env.write_text(text)
    with_options(lg_env, extra)
    with pytest.raises(UsageError) as caught:
        read_options(lg_env)
    assert named in caught.value.message
    assert str(lg_env) in caught.value.message


@pytest.mark.parametrize(
    "text",
    ["", "[]", "a: b: c", "targets: {}", "targets: {main: {}}", "targets: {main: [1]}", "\x00"],
)
def test_a_file_that_is_no_environment(tmp_path: Path, text: str) -> None:
    path = tmp_path / "env.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"env\.yaml"):
        read_options(path)
    with pytest.raises(UsageError, match=r"absent\.yaml"):
        read_options(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("PanicFarmStrategy: {}", "PanicFarmStrategy: {nonsense: 1}"),
        ("RecordedConsole: {}", "RecordedConsole: {nonsense: 1}"),
        ("PanicFarmStrategy: {}", "NoSuchDriver: {}"),
        ("      PanicFarmStrategy: {}\n", ""),
        ("imports: [farm.bench.strategy]", "imports: [farm.no.such.module]"),
        ("speed: 115200", "speed: fast"),
    ],
)
def test_a_wrong_driver_is_the_user_s_fault(lg_env: Path, old: str, new: str) -> None:
    lg_env.write_text(lg_env.read_text().replace(old, new))
    with pytest.raises(UsageError, match=r"env\.yaml"), open_bench(lg_env):
        pass


def test_a_bench_of_a_target_that_labgrid_has(board: Any, lg_env: Path) -> None:
    target = Environment(str(lg_env)).get_target("main")
    bench = bench_from_target(target)
    bench.ensure_shell()
    assert bench.options.board == "fake"
    assert bench.shell.run_script("echo hi", 5) == "hi"
    bench.close()
    assert board.is_on


def test_states_can_be_reached_after_any_error(board: Any, bench: Bench) -> None:
    board.dies_silently = True
    bench.strategy.boot_deadline_s = 0.3
    with pytest.raises(DeadlineError, match="prompt after power-on"):
        bench.ensure_shell()
    assert bench.strategy.status.value == "unknown"
    board.dies_silently = False
    board._stop_shell()
    bench.strategy.boot_deadline_s = 10
    bench.ensure_shell()
    assert bench.strategy.status.value == "shell"


def test_a_shell_that_answers_costs_no_power_cycle(board: Any, shell_bench: Bench) -> None:
    assert board.power_log.count("1") == 1
    shell_bench.ensure_shell()
    assert board.power_log.count("1") == 1
    shell_bench.power_cycle()
    assert board.power_log.count("1") == 2


def test_the_safe_state_is_off_and_never_raises(board: Any, shell_bench: Bench) -> None:
    assert shell_bench.safe_state() is None
    assert not board.is_on
    board._power.shutdown()
    board._power.server_close()
    error = shell_bench.safe_state()
    assert isinstance(error, BenchError)
    assert error.part == "power"
    with pytest.raises(BenchError) as caught:
        shell_bench.ensure_shell()
    assert caught.value.part == "power"


def test_a_state_that_a_board_has_not(bench: Bench) -> None:
    with pytest.raises(UsageError, match="only to off, edl, crash, fastboot, shell"):
        bench.strategy.transition("barebox")


def test_a_power_server_that_never_answers_has_a_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        class Hanging:
            def on(self) -> None:
                with socket.create_connection(listener.getsockname()) as connection:
                    connection.recv(1)

        with pytest.raises(DeadlineError, match="power: switching the power on") as caught:
            Power(Hanging(), deadline_s=0.1).on()
    assert caught.value.part == "power"
    assert Power(Hanging()).is_on() is None


def script(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.py"
    path.write_text(
        f"import pathlib, sys\nlog = pathlib.Path({str(folder)!r}) / 'log'\n"
        f"log.open('a').write({name + ' '!r})\n{text}"
    )
    return f"[{sys.executable}, {path}]"


def hooked(lg_env: Path, status: str, start: str = "") -> Path:
    folder = lg_env.parent
    parts = [
        f"status: {script(folder, 'status', status)}",
        f"start: {script(folder, 'start', start)}",
        f"stop: {script(folder, 'stop', '')}",
    ]
    return with_options(lg_env, f"      bench: {{{', '.join(parts)}}}\n")


def log_of(lg_env: Path) -> str:
    return (lg_env.parent / "log").read_text()


def test_a_bench_that_is_up_is_left_as_it_is(lg_env: Path) -> None:
    with open_bench(hooked(lg_env, "sys.exit(0)")):
        pass
    assert log_of(lg_env) == "status "


def test_nothing_keeps_a_bench_that_was_closed(lg_env: Path) -> None:
    with open_bench(hooked(lg_env, "sys.exit(0)")) as bench:
        target = weakref.ref(bench.target)
    del bench
    gc.collect()
    assert target() is None


def test_a_bench_that_is_down_is_started_and_stopped(lg_env: Path) -> None:
    with open_bench(hooked(lg_env, "sys.exit(1)")):
        assert log_of(lg_env) == "status start "
    assert log_of(lg_env) == "status start stop "


def test_a_bench_started_here_is_stopped_after_an_error(lg_env: Path) -> None:
    hooked(lg_env, "sys.exit(1)")
    with pytest.raises(KeyboardInterrupt), open_bench(lg_env):
        raise KeyboardInterrupt
    assert log_of(lg_env) == "status start stop "


def test_an_interruption_while_the_bench_starts_stops_it(lg_env: Path) -> None:
    start = (
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGINT)\n"
        "time.sleep(0.6)\nlog.open('a').write('up ')\n"
    )
    hooked(lg_env, "sys.exit(1)", start)
    with pytest.raises(KeyboardInterrupt), open_bench(lg_env):
        pass
    assert log_of(lg_env) == "status start up stop "


def test_a_start_that_takes_too_long_is_ended_and_stopped(
    lg_env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_START_DEADLINE_S", 0.5)
    hooked(lg_env, "sys.exit(1)", "import time\ntime.sleep(60)\n")
    with pytest.raises(DeadlineError, match=r"start\.py"), open_bench(lg_env):
        pass
    assert log_of(lg_env) == "status start stop "


def test_a_lost_bench_is_said_to_be_lost(lg_env: Path) -> None:
    hooked(lg_env, "print('qemu died'); sys.exit(3)")
    with pytest.raises(BenchError, match="fake is lost: qemu died") as caught, open_bench(lg_env):
        pass
    assert caught.value.part == "board"


@pytest.mark.parametrize(
    ("status", "start", "words"),
    [
        ("sys.exit(1)", "sys.exit('no images')", "did not start: .*no images"),
        ("sys.exit(9)", "", "ended with 9"),
    ],
)
def test_a_bench_that_does_not_start(lg_env: Path, status: str, start: str, words: str) -> None:
    hooked(lg_env, status, start)
    with pytest.raises(BenchError, match=words), open_bench(lg_env):
        pass


def test_farm_is_the_farm_that_runs() -> None:
    line = hooks.command_line(["farm", "virtual", "status"])
    assert line[-2:] == ["virtual", "status"]
    assert line[0].startswith(str(Path(sys.executable).parent))
    with pytest.raises(UsageError, match="no-such-command"):
        hooks.bring_up("x", ["no-such-command"], [])


def test_stopping_does_not_wait_for_long() -> None:
    began = time.monotonic()
    hooks.take_down([sys.executable, "-c", "import sys; sys.stdin.close(); input()"])
    hooks.take_down(["no-such-command"])
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("      prompt:", "      promt:", ":13: targets.main.options.promt: there is no such key"),
        ("CrashMode: {}", "CrashMode: {colour: red}", ":46: targets.main.drivers.CrashMode.colour"),
        ("reader: lk2nd", "reader: lk3", ":50: targets.main.drivers.Fastboot.reader: Input should"),
        ("panic: 15", "panic: soon", ":18: targets.main.options.deadlines_s.panic: Input should"),
        (
            "    features: [",
            "    features: sysrq # [",
            ":8: targets.main.features: Input should",
        ),
        ("    options:", "    option:", ":9: targets.main.option: there is no such key; did you"),
        ("host: localhost", "host: a: b", ":29:16: this is not YAML: mapping values"),
    ],
)
def test_an_error_names_line_field_and_what_was_expected(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "board.yaml"
    path.write_text((DEVICES / "virtual.yaml").read_text().replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        read_options(path)
    assert f"{path}{said}" in caught.value.message


def test_the_published_schema_is_that_of_the_code_and_the_environments_keep_it() -> None:
    file = DEVICES / "environment.schema.json"
    assert json.loads(file.read_text()) == schema(), f"run: farm schema > {file}"
    for path in DEVICES.glob("*.yaml"):
        assert f"$schema={file.name}" in path.read_text().splitlines()[0]


def test_a_yaml_file_of_another_kind_is_checked_in_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("required: [a]\n\nbudget_bytes:\n  a: many\n")
    with pytest.raises(UsageError, match=r"policy\.yaml:4: budget_bytes\.a: Input should be a"):
        read_yaml(path, Policy)
    path.write_text("required: [a]\nbudget_bytes: {a: 10}\n")
    assert read_yaml(path, Policy) == Policy(required=("a",), budget_bytes={"a": 10})
