"""The kernel's own selftests of pstore give the same results with the series and without it.

The scripts are those of the base source, run by the board's shell before and after a crash. What
fails on the distribution's kernel, too, is no fault of the series. `make stock-kernel` runs this.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.build import cache, newc, source
from farm.virtual.options import default_image_dir
from tests.e2e.conftest import FARM
from tests.virtual.bench import PROMPT, Console

pytestmark = pytest.mark.stock_kernel

SCRIPTS = ("common_tests", "pstore_tests", "pstore_crash_test", "pstore_post_reboot_tests")
PLACE = "tools/testing/selftests/pstore"
BOOT_S = 120.0
# What differs from run to run: the test's own identity, and the kernel's arguments.
_CHANGING = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\tcmdline=.*|-ramoops-\d+")


def scripts() -> dict[str, bytes]:
    """The base source's scripts, whatever the series makes of them."""
    store = cache.root() / "source" / source.find("6.12").folder
    found = {}
    for name in SCRIPTS:
        places = [store / tree / PLACE / name for tree in ("pristine", "linux")]
        found[name] = next(path for path in places if path.is_file()).read_bytes()
    return found


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    root = tempfile.mkdtemp(prefix="farm-stock-")
    variables = {**os.environ, "PANIC_FARM_STATE": f"{root}/state"}
    yield variables
    subprocess.run([FARM, "virtual", "down", "--all"], env=variables, check=False, timeout=60)
    shutil.rmtree(root, ignore_errors=True)


def results(variant: str, environment: dict[str, str], folder: Path) -> list[str]:
    """What the scripts print on the kernel ``variant``, one line each."""
    extra = [
        newc.directory("st"),
        *(newc.regular(f"st/{n}", b, 0o755) for n, b in scripts().items()),
    ]
    initrd = folder / f"{variant or 'default'}.cpio.gz"
    own = (default_image_dir(variant=variant) / "initramfs.cpio.gz").read_bytes()
    # The kernel unpacks one archive after the other.
    initrd.write_bytes(own + gzip.compress(newc.archive(extra)))
    up = [FARM, "virtual", "up", "--name", f"st-{variant or 'default'}", "--initrd", str(initrd)]
    up += ["--json", *(["--variant", variant] if variant else [])]
    told = subprocess.run(up, env=environment, capture_output=True, text=True, check=True)
    console = Console(json.loads(told.stdout)["serial_url"])
    subprocess.run([*up, "--on"], env=environment, capture_output=True, check=True)
    console.expect(PROMPT, BOOT_S)
    console.command("cd /st")
    said = console.command("sh ./pstore_tests; echo rc=$?")
    uuid = console.command("cat uuid")
    console.port.write(b"sh ./pstore_crash_test\n")
    console.expect(b"Kernel panic", BOOT_S)
    console.expect(PROMPT, BOOT_S)
    console.command("cd /st")
    console.command(f"echo {uuid} >prev_uuid; touch reboot_flag")
    said += "\n" + console.command("sh ./pstore_post_reboot_tests; echo rc=$?")
    return [_CHANGING.sub("", line).strip() for line in said.splitlines() if line.strip()]


def test_the_selftests_give_the_same_results_with_the_series_and_without(
    environment: dict[str, str], tmp_path: Path
) -> None:
    without = results("stock", environment, tmp_path)
    assert sum(line.endswith("ok") for line in without) >= 5, without
    patched = results("", environment, tmp_path)
    # It crashed with panicdump's files there, which the scripts remove like all others.
    ours = [line for line in patched if line.startswith("panicdump")]
    assert ours
    assert set(ours) == {"panicdump ... ok"}
    assert [line for line in patched if line not in ours] == without
