from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from farm.errors import UsageError
from farm.model import Expect
from farm.scenarios import CATALOGUE, ResetPath, Trigger, read_catalogue, scenario_named, select

# Tried one by one on Linux 6.12: these types end in a panic, WRITE_AFTER_FREE with poisoning only.
_TYPES = """
PANIC PANIC_STOP_IRQOFF BUG WARNING WARNING_MESSAGE EXCEPTION EXHAUST_STACK CORRUPT_STACK
CORRUPT_STACK_STRONG SOFTLOCKUP HARDLOCKUP SMP_CALL_LOCKUP HUNG_TASK CORRUPT_LIST_ADD
CORRUPT_LIST_DEL STACK_GUARD_PAGE_LEADING STACK_GUARD_PAGE_TRAILING VMALLOC_LINEAR_OVERFLOW
SLAB_FREE_DOUBLE WRITE_RO WRITE_RO_AFTER_INIT WRITE_KERN EXEC_DATA EXEC_STACK EXEC_KMALLOC
EXEC_VMALLOC EXEC_RODATA EXEC_USERSPACE EXEC_NULL ACCESS_NULL REFCOUNT_INC_OVERFLOW
REFCOUNT_ADD_OVERFLOW REFCOUNT_INC_NOT_ZERO_OVERFLOW REFCOUNT_ADD_NOT_ZERO_OVERFLOW
REFCOUNT_DEC_ZERO REFCOUNT_DEC_NEGATIVE REFCOUNT_DEC_AND_TEST_NEGATIVE
REFCOUNT_SUB_AND_TEST_NEGATIVE REFCOUNT_SUB_AND_TEST_ZERO REFCOUNT_INC_ZERO REFCOUNT_ADD_ZERO
REFCOUNT_INC_SATURATED REFCOUNT_DEC_SATURATED REFCOUNT_ADD_SATURATED
REFCOUNT_INC_NOT_ZERO_SATURATED REFCOUNT_ADD_NOT_ZERO_SATURATED REFCOUNT_DEC_AND_TEST_SATURATED
REFCOUNT_SUB_AND_TEST_SATURATED USERCOPY_SLAB_SIZE_TO USERCOPY_SLAB_SIZE_FROM
USERCOPY_SLAB_WHITELIST_TO USERCOPY_SLAB_WHITELIST_FROM USERCOPY_STACK_FRAME_TO
USERCOPY_STACK_FRAME_FROM USERCOPY_STACK_BEYOND USERCOPY_VMALLOC USERCOPY_FOLIO USERCOPY_KERNEL
"""
LKDTM_TYPES = _TYPES.split()


def test_every_crash_type_that_ends_in_a_panic_is_there() -> None:
    assert len(LKDTM_TYPES) == 58
    direct = {kind for one in CATALOGUE for point, kind in one.lkdtm if point == "DIRECT"}
    assert direct >= {*LKDTM_TYPES, "SPINLOCKUP", "WRITE_AFTER_FREE"}
    assert len(CATALOGUE) >= 90


def test_every_way_to_die_and_to_come_back_is_there() -> None:
    assert {one.trigger for one in CATALOGUE} == set(Trigger)
    assert {one.reset for one in CATALOGUE} == set(ResetPath)
    assert {one.expect for one in CATALOGUE} == set(Expect)


@pytest.mark.parametrize("scenario", CATALOGUE, ids=lambda one: one.name)
def test_a_signature_is_of_its_own_panic(scenario: object) -> None:
    one = scenario_named(str(scenario.name))  # type: ignore[attr-defined]
    assert not one.panics or not re.search(one.signature, "Kernel panic - not syncing: another")
    assert one.expect is Expect.ALL or one.why


def test_the_quick_subset_has_something_of_every_group() -> None:
    quick = select(["quick"])
    assert 10 <= len(quick) <= 20
    missing = {one.group for one in CATALOGUE} - {one.group for one in quick}
    assert missing == {"crash-kernel"}


def test_scenarios_are_named_by_pattern_and_group() -> None:
    assert [one.name for one in select(["cpu-?", "sysrq-c", "cpu-0"])] == [
        *("cpu-0", "cpu-1", "sysrq-c")
    ]
    assert {one.group for one in select(["refcount"])} == {"refcount"}
    assert select(["all"]) == CATALOGUE
    with pytest.raises(UsageError, match="there is no scenario 'cpu-9'"):
        select(["cpu-9"])


GOOD = """
- group: g
  defaults: {trigger: sysrq-shell, signature: x, summary: s}
  scenarios:
    - {name: one, argument: c%s}
"""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (", signatur: y", "scenario one: signatur: Extra inputs"),
        (", signature: '('", "signature"),
        (", expect: none", "`why` belongs"),
        (", expect: partial, why: so", "`exceptions` belong"),
        (", trigger: boot", "needs `boot`"),
        (", reset: orderly reboot", "`panics` does not go"),
        (", trigger: magic", "trigger"),
        ("}\n    - {name: one, argument: c", "there twice: one"),
    ],
)
def test_a_mistake_names_file_scenario_and_field(tmp_path: Path, more: str, said: str) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(GOOD % "")
    assert read_catalogue(path)[0].name == "one"
    path.write_text(GOOD % more)
    with pytest.raises(UsageError) as caught:
        read_catalogue(path)
    assert said in caught.value.message
    assert str(path) in caught.value.message


def test_the_list_says_what_each_needs() -> None:
    farm = Path(sys.executable).with_name("farm")
    command = [str(farm), "scenarios", "--json", "softirq"]
    (one,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert "parameter workqueue.panic_on_stall" in one["kernel_needs"]
    assert one["bench_needs"] == ["lkdtm"]
