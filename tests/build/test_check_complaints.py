"""Planted faults, in the words of the tools themselves, are found and named.

The texts are what gcc 12.2, sparse 0.6.4, and kernel-doc and checkpatch.pl of Linux 6.12 said of
files with these faults, and what kbuild and modpost are known to say.
"""

from __future__ import annotations

import pytest

from farm.build.check import complaints, kunit, papers
from farm.build.check.complaints import Complaint

TREE = "/cache/source/linux"

COMPILER = """\
  CC      fs/pstore/ram.o
/cache/source/linux/fs/pstore/ram.c: In function 'planted_sum':
/cache/source/linux/fs/pstore/ram.c:8:13: warning: unused variable 'unused' [-Wunused-variable]
    8 |         int unused;
      |             ^~~~~~
"""
SPARSE = """\
  CHECK   ../fs/pstore/ram.c
../fs/pstore/ram.c:6:5: warning: symbol 'planted_sum' was not declared. Should it be static?
../fs/pstore/ram.c:14:16: warning: Using plain integer as NULL pointer
"""
KERNEL_DOC = """\
fs/pstore/ram.c:7: warning: Function parameter or struct member 'b' not described in 'planted_sum'
fs/pstore/ram.c:7: warning: No description found for return value of 'planted_sum'
"""
CHECKPATCH = """\
ERROR:OPEN_BRACE: open brace '{' following function definitions go on the next line
#19: FILE: kernel/panic.c:2:
+int planted(void) {

WARNING:LEADING_SPACE: please, no spaces at the start of a line
#20: FILE: kernel/panic.c:3:
+        return  (0);$

CHECK:LINE_SPACING: Please don't use multiple blank lines
#21: FILE: kernel/panic.c:4:
+

total: 1 errors, 1 warnings, 1 checks, 7 lines checked

/tmp/plant/planted.patch has style problems, please review.
"""


def read(text: str, *files: str) -> list[str]:
    return [str(one) for one in complaints.read(text.splitlines(), TREE, files or None)]


@pytest.mark.parametrize(
    ("text", "count", "named"),
    [
        (COMPILER, 1, "fs/pstore/ram.c:8: unused variable 'unused'"),
        (SPARSE, 2, "fs/pstore/ram.c:6: symbol 'planted_sum' was not declared"),
        (KERNEL_DOC, 2, "fs/pstore/ram.c:7: Function parameter or struct member 'b'"),
    ],
)
def test_a_fault_is_named_by_file_and_line(text: str, count: int, named: str) -> None:
    found = read(text, "fs/pstore/ram.c")
    assert len(found) == count
    assert found[0].startswith(named)


@pytest.mark.parametrize("text", [COMPILER, SPARSE, KERNEL_DOC])
def test_a_file_that_is_not_asked_for_does_not_count(text: str) -> None:
    assert read(text, "fs/pstore/zone.c") == []


def test_a_header_is_complained_of_once() -> None:
    line = "../include/linux/pstore.h:3:5: warning: 'f' defined but not used\n"
    assert len(read(line * 5, "include/linux/pstore.h")) == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "WARNING: unmet direct dependencies detected for PSTORE_PANICDUMP",
            "unmet direct dependencies detected for PSTORE_PANICDUMP",
        ),
        (
            "WARNING: modpost: missing MODULE_DESCRIPTION() in samples/x.o",
            "modpost: missing MODULE_DESCRIPTION() in samples/x.o",
        ),
        (
            "WARNING: modpost: vmlinux: section mismatch in reference: f+0x1c (section: .text)",
            "modpost: vmlinux: section mismatch in reference: f (section: .text)",
        ),
        (
            "vmlinux.o: warning: objtool: f+0x12: unreachable instruction",
            "vmlinux.o:0: objtool: f: unreachable instruction",
        ),
        (
            "fs/pstore/ram.o: warning: objtool: f()+0x1: return with modified stack frame",
            "fs/pstore/ram.c:0: objtool: f(): return with modified stack frame",
        ),
        (
            "fs/pstore/Kconfig:12:warning: config symbol defined without type",
            "fs/pstore/Kconfig:12: config symbol defined without type",
        ),
        ("fs/x.c:1:2: fatal error: y.h: No such file", "fs/x.c:1: y.h: No such file"),
    ],
)
def test_what_kbuild_and_its_helpers_say_counts(line: str, told: str) -> None:
    assert read(line, "fs/pstore/ram.c", "fs/pstore/Kconfig", "fs/x.c") == [told]


def test_what_the_base_has_is_not_new_even_on_another_line() -> None:
    before = [Complaint("a.c", 3, "unused variable 'x'")]
    now = [Complaint("a.c", 9, "unused variable 'x'"), Complaint("b.c", 1, "unused variable 'x'")]
    assert complaints.new(now, before) == [now[1]]


def test_a_second_one_of_a_kind_is_new() -> None:
    one = Complaint("a.c", 3, "Using plain integer as NULL pointer")
    two = Complaint("a.c", 7, "Using plain integer as NULL pointer")
    assert complaints.new([one, two], [one]) == [two]


def test_each_fault_of_checkpatch_is_named_with_the_patchs_line() -> None:
    found = complaints.checkpatch(CHECKPATCH)
    assert [line.split(":")[:3] for line in found] == [
        ["line 19", " ERROR", "OPEN_BRACE"],
        ["line 20", " WARNING", "LEADING_SPACE"],
        ["line 21", " CHECK", "LINE_SPACING"],
    ]


def test_a_clean_patch_has_none() -> None:
    assert complaints.checkpatch("total: 0 errors, 0 warnings, 0 checks, 7 lines checked\n") == []


@pytest.mark.parametrize("text", ["", "Died\n", CHECKPATCH.replace("1 checks", "2 checks")])
def test_a_checkpatch_that_cannot_be_believed_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="checkpatch"):
        complaints.checkpatch(text)


BINDING = "Documentation/devicetree/bindings/reserved-memory/ramoops.yaml"
PROGRESS = [
    "  CHKDT   /cache/source/linux/Documentation/devicetree/bindings",
    "  DTEX    Documentation/devicetree/bindings/reserved-memory/ramoops.example.dts",
    "  DTC [C] Documentation/devicetree/bindings/reserved-memory/ramoops.example.dtb",
    "/cache/bindings/soc/fsl/fsl,qman.yaml: fsl,liodn: multiple incompatible types: uint32-array",
]


def test_the_progress_of_a_binding_check_is_no_fault() -> None:
    assert papers.binding_faults(PROGRESS, BINDING) == []


@pytest.mark.parametrize(
    "line",
    [
        "/t/reserved-memory/ramoops.yaml: properties:panicdump-size: 'typ' is not one of ['$ref']",
        "./reserved-memory/ramoops.yaml:72:5: [warning] wrong indentation (indentation)",
        "/o/ramoops.example.dtb: ramoops@bfdf0000: 'panicdump-siz' does not match any of the regex",
        "warning: python package 'yamllint' not installed, skipping",
        "ERROR: dtschema minimum version is v2023.9",
    ],
)
def test_a_fault_of_the_binding_is_found(line: str) -> None:
    assert papers.binding_faults([*PROGRESS, line], BINDING) == [line]


def test_a_fault_of_the_binding_is_told_to_its_end() -> None:
    # What dtschema 2026.9 said of a property with the keyword `typ`.
    said = [
        "/t/reserved-memory/ramoops.yaml: properties:panicdump-size: 'anyOf' conditional failed:",
        "\t'typ' is not one of ['$ref', 'additionalItems']",
        "\t'type' was expected",
    ]
    (fault,) = papers.binding_faults([*PROGRESS, *said], BINDING)
    assert fault.endswith(
        "failed: 'typ' is not one of ['$ref', 'additionalItems'] 'type' was expected"
    )


KUNIT = """\
[19:00:01] ================= panicdump (3 subtests) ==================
[19:00:01] [PASSED] panicdump_test_one
[19:00:01] \x1b[1;31m[FAILED]\x1b[0m panicdump_test_two
[19:00:01] \x1b[1;31m[FAILED]\x1b[0m panicdump
[19:00:01] Testing complete. Ran 3 tests: passed: 1, failed: 1, skipped: 1
"""


def test_a_failed_case_is_named() -> None:
    told = kunit.totals(KUNIT.splitlines())
    assert (told.ran, told.passed) == (3, 1)
    assert told.by_result["skipped"] == 1
    assert told.failed == ("panicdump_test_two", "panicdump")


def test_a_runner_without_totals_is_an_error() -> None:
    with pytest.raises(ValueError, match="totals"):
        kunit.totals(["[19:00:01] Starting KUnit Kernel (1/1)...", "qemu: no such machine"])
