"""A plan that somebody else has written: what it may not name, for it would run on this host.

Environments name Python modules and commands, and a kernel's patches reach its makefiles: whoever
writes those decides what the controller runs. The rest of a plan chooses among what is there.
"""

from __future__ import annotations

import re
from pathlib import Path

from farm.errors import UsageError
from farm.nightly.plan import Build, NightPlan

__all__ = ["check_foreign"]

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|")
_NEXT = "Read the plan; as one of your own, without --only-below, it may."


def check_foreign(plan: NightPlan, folder: Path) -> None:
    """Raise UsageError unless all that runs or is read is below ``folder`` already."""
    allowed = folder.resolve()

    def check(path: Path, what: str) -> None:
        # Links are followed: it is the file that counts.
        if not path.resolve().is_relative_to(allowed):
            raise UsageError(f"{what} {path} is not below {folder}", _NEXT)

    for board in plan.boards:
        if isinstance(board, Path):
            check(board, "the environment")
    for kernel in plan.kernels:
        if isinstance(kernel, Build):
            if kernel.patches:
                raise UsageError(
                    f"kernel {kernel.name}: its patches would run here while it is built", _NEXT
                )
            for name in (kernel.base, kernel.variant):
                if not _WORD.fullmatch(name):
                    raise UsageError(f"kernel {kernel.name}: {name!r} is no name", _NEXT)
        else:
            check(kernel.boot_image, f"kernel {kernel.name}: the boot image")
            check(kernel.vmlinux, f"kernel {kernel.name}: the vmlinux")
