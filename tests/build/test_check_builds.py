"""What is compiled again from patch to patch, and that nothing that was said gets lost by it.

A tree of one C file and a Makefile stands for the kernel; compiler and make are real.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from farm.build import pipeline, series, source
from farm.build.check import builds
from farm.build.check.ledger import Ledger, Result, Step
from farm.build.check.workshop import Workshop
from farm.build.kernel import Architecture, KernelBuild
from farm.build.progress import BuildProgress

MAKEFILE = """\
O ?= .
CC ?= cc
allnoconfig:
	@cp $(KCONFIG_ALLCONFIG) $(O)/.config
modules: vmlinux
vmlinux: $(O)/vmlinux
$(O)/vmlinux: $(O)/fs/one.o
	@$(CC) -nostdlib -shared -Wl,--build-id -o $@ $<
	@mkdir -p $(O)/include/config && echo 6.12 >$(O)/include/config/kernel.release
$(O)/fs/one.o: fs/one.c
	@mkdir -p $(O)/fs && echo "  CC      fs/one.o"
	@$(CC) -Wall -fPIC -c -o $@ $<
"""
GOOD = "int one(void) { return 1; }\n"
BAD = "int one(void) { int unused; return 1; }\n"


@dataclass(frozen=True)
class TinyWorkshop(Workshop):
    """A tree of one file, which each patch writes anew."""

    def texts(self) -> list[str]:
        """Return what the file is in the base and after each patch."""
        return (self.store / "texts").read_text().split("\0")

    @property
    def tree(self) -> Path:
        """The source tree."""
        return self.store / "tree"

    @property
    def sources(self) -> tuple[str, ...]:
        """The only file."""
        return ("fs/one.c",)

    def go_to(self, count: int) -> None:
        """Write the file as the patch leaves it."""
        file = self.tree / "fs" / "one.c"
        if file.read_text() != self.texts()[count]:
            file.write_text(self.texts()[count])

    def build(self, architecture: Architecture, log: Path) -> KernelBuild:
        """Return a build without ccache, which is there for `make kernel-check` only."""
        return KernelBuild(
            self.tree, self.out(architecture.name), log, 1, architecture=architecture
        )

    def kconfig(self) -> dict[str, str]:
        """Return no Kconfig file."""
        return {}


@pytest.fixture
def work(tmp_path: Path) -> TinyWorkshop:
    project = Path(__file__).resolve().parents[2]
    request = pipeline.Request(
        board="virtual", base="6.12", jobs=1, force=False, project=project, cache=tmp_path
    )
    (tmp_path / "tree" / "fs").mkdir(parents=True)
    (tmp_path / "tree" / "Makefile").write_text(MAKEFILE)
    (tmp_path / "tree" / "fs" / "one.c").write_text(GOOD)
    patches = series.read(request.patches)[:2]
    return TinyWorkshop(request, source.find("6.12"), tmp_path, patches, BuildProgress())


def texts(work: TinyWorkshop, *after: str) -> None:
    """Set what the file is in the base and after each patch."""
    (work.store / "texts").write_text("\0".join(after))


def take(work: TinyWorkshop, step: Step) -> Result:
    return ledger(work).take(step, work.progress)


def ledger(work: TinyWorkshop) -> Ledger:
    return Ledger(work.store / "passed", work.store / "logs")


def compiled(result: Result) -> bool:
    return "  CC      fs/one.o" in Path(result.log).read_text()


@pytest.fixture(autouse=True)
def incomplete_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.build.kconfig.check", lambda *_: None)


def test_what_a_patch_does_not_touch_is_not_compiled_again(work: TinyWorkshop) -> None:
    texts(work, GOOD, GOOD, GOOD + "/* more */\n")
    assert compiled(take(work, builds.base_build(work)))
    first, second = [take(work, step) for step in builds.each_patch(work, ledger(work))]
    assert (first.passed, compiled(first)) == (True, False)
    assert (second.passed, compiled(second)) == (True, True)


def test_a_warning_is_said_again_until_it_is_gone(work: TinyWorkshop) -> None:
    texts(work, GOOD, BAD, BAD)
    take(work, builds.base_build(work))
    for _ in range(2):
        for step in builds.each_patch(work, ledger(work)):
            result = take(work, step)
            assert not result.passed
            assert "unused" in result.faults[0]
    texts(work, GOOD, GOOD, GOOD)
    assert all(take(work, step).passed for step in builds.each_patch(work, ledger(work)))


def test_a_warning_of_the_base_source_is_no_reason_to_compile_again(work: TinyWorkshop) -> None:
    texts(work, BAD, BAD, BAD + "/* more */\n")
    (work.tree / "fs" / "one.c").write_text(BAD)
    take(work, builds.base_build(work))
    first, second = [take(work, step) for step in builds.each_patch(work, ledger(work))]
    assert (first.passed, compiled(first)) == (True, False)
    assert (second.passed, compiled(second)) == (True, True)


def test_a_build_that_did_not_end_is_done_anew(work: TinyWorkshop) -> None:
    texts(work, GOOD, "int one(void) { return }\n", GOOD)
    take(work, builds.base_build(work))
    broken, _ = builds.each_patch(work, ledger(work))
    assert not take(work, broken).passed
    texts(work, GOOD, GOOD, GOOD)
    mended, _ = builds.each_patch(work, ledger(work))
    result = take(work, mended)
    assert (result.passed, compiled(result)) == (True, True)
