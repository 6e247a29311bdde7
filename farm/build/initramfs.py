"""The virtual board's user space: one static busybox and an ``/init`` that ends in a shell.

Boot time counts (every cycle pays for it), so ``/init`` starts as few processes as it can: one
``mount -a`` for all file systems, applet links made here and not at boot.
"""

from __future__ import annotations

import gzip
import re

from farm.build import crashkernel, newc, reboot
from farm.errors import BuildError

PROMPT = "root@virtual:~# "
"""The shell's prompt, the same in every directory, so that a bench can wait for it."""

_FSTAB = """\
proc /proc proc defaults 0 0
sysfs /sys sysfs defaults 0 0
devtmpfs /dev devtmpfs defaults 0 0
debugfs /sys/kernel/debug debugfs defaults 0 0
pstore /sys/fs/pstore pstore defaults 0 0
tmpfs /tmp tmpfs defaults 0 0
"""

# Without echo, busybox's shell reads whole lines and leaves its line editor alone, which would ask
# the terminal for the cursor's place before every command and fold long lines. The loop gives a
# new shell after "exit"; cttyhack makes the console the controlling terminal, for Ctrl-C.
_INIT = f"""\
#!/bin/sh
export PATH=/bin HOME=/root TERM=dumb USER=root PS1='{PROMPT}'
mount -a
echo virtual >/proc/sys/kernel/hostname
stty -echo
cd /root
while :; do setsid cttyhack sh; done
"""

# Applets that make no sense here, or would only be in the way of the ones above.
_LEFT_OUT = frozenset({"busybox", "linuxrc", "init", "reboot"})

# busybox keeps the names of its applets as one sorted table of C strings (applet_tables.h).
_APPLET_TABLE = re.compile(rb"\0(\[\0\[\[\0(?:[a-z0-9][a-z0-9_.-]*\0){50,})\0?")

_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "sys", "tmp")


def applets(busybox: bytes) -> tuple[str, ...]:
    """Return the applets a busybox binary holds, read from its table.

    The binary cannot run here (it is the board's), so ``busybox --list`` is no way to ask.
    Raises ``BuildError`` if there is no such table.
    """
    found = _APPLET_TABLE.search(busybox)
    if found is None:
        raise BuildError(
            "the busybox binary holds no table of applets",
            next_step="its layout has changed: see farm/build/initramfs.py",
        )
    return tuple(found[1].decode().rstrip("\0").split("\0"))


def entries(busybox: bytes) -> list[newc.Entry]:
    """Return the archive's members."""
    links = [
        newc.symlink(f"bin/{name}", "busybox") for name in applets(busybox) if name not in _LEFT_OUT
    ]
    return [
        *(newc.directory(name) for name in _DIRECTORIES),
        # The kernel opens it for /init before devtmpfs is there.
        newc.character_device("dev/console", 5, 1),
        newc.regular("bin/busybox", busybox, 0o755),
        newc.regular("bin/reboot", reboot.program(), 0o755),
        newc.regular("bin/kexec-load", crashkernel.program(), 0o755),
        newc.regular("bin/load-crash-kernel", crashkernel.SCRIPT.encode(), 0o755),
        *links,
        newc.regular("etc/fstab", _FSTAB.encode()),
        newc.regular("etc/passwd", b"root::0:0:root:/root:/bin/sh\n"),
        newc.regular("etc/group", b"root:x:0:\n"),
        newc.regular("init", _INIT.encode(), 0o755),
    ]


def recipe() -> str:
    """Return everything but the busybox binary that decides the archive's content."""
    made = (reboot.SOURCE, crashkernel.SOURCE, crashkernel.SCRIPT)
    return "\n".join((_FSTAB, _INIT, *made, *sorted(_LEFT_OUT), *_DIRECTORIES))


def image(busybox: bytes) -> bytes:
    """Return the initramfs: the archive, gzip-compressed, without a time stamp."""
    return gzip.compress(newc.archive(entries(busybox)), compresslevel=9, mtime=0)
