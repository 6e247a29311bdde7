from __future__ import annotations

from typing import Any

import pytest

from farm.bench.features import missing_bench, parse_features, probe_script
from farm.bench.options import parse_options
from farm.scenarios import CATALOGUE, scenario_named

NEEDS = (
    "sysctl kernel/sysrq",
    "parameter panicdump.format",
    "LKDTM type BUG",
    "LKDTM point DIRECT",
    "config KPROBES",
    "command taskset",
    "file /dev/watchdog",
    "cpus 2",
)


def options(**more: Any) -> Any:
    raw = {"board": "b", "prompt": "#", **more}
    return parse_options(raw, ["sysrq", "break", "lkdtm", "sahara"], "x.yaml")


def test_what_the_board_says_is_there_is_there() -> None:
    said = "\n".join(
        [
            "sysctl kernel/sysrq",
            "LKDTM type BUG",
            "online 0-1,3",
            "config known",
            "CONFIG_KPROBES=y",
        ]
    )
    found = parse_features(said, NEEDS)
    assert found == {"sysctl kernel/sysrq", "LKDTM type BUG", "config KPROBES", "cpus 2"}
    assert "config KPROBES" not in parse_features("config known", NEEDS)
    assert "cpus 2" not in parse_features("online 0", NEEDS)


def test_without_its_configuration_a_kernel_is_given_the_benefit_of_the_doubt() -> None:
    assert "config KPROBES" in parse_features("online 0", NEEDS)


def test_the_question_is_one_script_for_the_whole_catalogue() -> None:
    needs = {need for one in CATALOGUE for need in one.kernel_needs}
    script = probe_script(needs)
    assert "zcat /proc/config.gz" in script
    assert "/proc/sys/kernel/panic_on_warn" in script
    assert "/sys/module/panicdump/parameters/format" in script
    assert all(len(line) < 2000 for line in script.split("\n"))


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("sysrq-c", ()),
        ("devices-1", ("hook boot_with",)),
        ("ecc-on", ("hook boot_with", "hook boot_with {ecc}")),
        ("kdump", ("hook boot_with", "command crash-kernel")),
        ("callback-hangs", ("hook boot_with", "hook reset")),
    ],
)
def test_a_bench_without_a_hook_is_told_its_name(name: str, missing: tuple[str, ...]) -> None:
    got = missing_bench(scenario_named(name), options())
    assert tuple(one for one in got if one != "sysrq") == missing


def test_a_hook_that_cannot_set_ecc_is_told_so() -> None:
    some = options(boot_with=["grub-reboot", "{cmdline}"])
    assert missing_bench(scenario_named("devices-1"), some) == ()
    assert missing_bench(scenario_named("ecc-on"), some) == ("hook boot_with {ecc}",)


def test_a_slow_kernel_gets_more_time() -> None:
    slow = options(deadlines_s={"boot": 10, "factor": 3})
    assert (slow.deadlines_s.boot, slow.deadlines_s.factor) == (30, 3)
