"""A kernel in QEMU that reads a ramoops region, or writes one: what decoders are held against.

The region lies in the machine's memory, which is a file. `read` boots with a region, and brings
back what pstorefs shows of it, byte by byte; `write` boots with an empty one, lets the kernel have
oopses until every zone is full and then a panic, and brings back the region.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import fdt

from farm.build import newc
from farm.build.initramfs import entries
from farm.formats.ramoops import RamoopsSizes

KERNEL_VARIABLE = "PANIC_FARM_PSTORE_KERNEL"
"""Names the image of a kernel other than the virtual board's, such as one without the series."""

RAM_PADDR = 0x4000_0000
RAM_MIB = 256
REGION_PADDR = 0x4E00_0000
OUTBOX_PADDR = 0x4C00_0000
OUTBOX_BYTES = 24 << 20
_DEADLINE_S = 120

_READ = f"""#!/bin/sh
export PATH=/bin
mount -a
mkdir /tmp/files
cp /sys/fs/pstore/* /tmp/files/
tar -cf /tmp/files.tar -C /tmp/files .
dd if=/tmp/files.tar of=/dev/mem bs=65536 seek={OUTBOX_PADDR // 65536} conv=notrunc
poweroff -f
"""
_WRITE = """#!/bin/sh
export PATH=/bin
mount -a
d=/sys/kernel/debug
echo 0 >/proc/sys/kernel/panic_on_oops
cat /bin/busybox | head -c 3000 >/dev/pmsg0
dmesg >/dev/pmsg0
for i in $(seq OOPSES); do
	echo "oops $i, line $i of $i" >/dev/kmsg
	for type in EXCEPTION BUG WRITE_RO; do (echo $type >$d/provoke-crash/DIRECT); done
done
[ -e $d/pstore/record_ftrace ] && echo 1 >$d/pstore/record_ftrace
taskset MASK sh -c 'echo c >/proc/sysrq-trigger'
"""


@dataclass(frozen=True)
class PstoreMachine:
    """A kernel image, the product of `farm build` that lends the rest, and a folder for files."""

    image: Path
    product: Path
    busybox: Path
    folder: Path

    def read(self, sizes: RamoopsSizes, region: bytes) -> dict[str, bytes]:
        """The files that this kernel shows with that region."""
        memory = self._run(sizes, region, _READ, "read")
        with memory.open("rb") as file:
            file.seek(OUTBOX_PADDR - RAM_PADDR)
            box = io.BytesIO(file.read(OUTBOX_BYTES))
        memory.unlink()
        files = {}
        with tarfile.open(fileobj=box) as archive:
            for member in archive.getmembers():
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    files[Path(member.name).name] = content.read()
        return files

    def write(self, sizes: RamoopsSizes, oopses: int = 3) -> bytes:
        """The region after three times as many oopses and a panic."""
        memory = self.panic(sizes, oopses)
        with memory.open("rb") as file:
            file.seek(REGION_PADDR - RAM_PADDR)
            region = file.read(sizes.mem_size_bytes)
        memory.unlink()
        return region

    def panic(
        self, sizes: RamoopsSizes, oopses: int = 0, arguments: str = "", cpu: int = 0
    ) -> Path:
        """The file that is all of the memory after a panic on `cpu`, the last one of the machine.

        Its first byte is at RAM_PADDR.
        """
        script = _WRITE.replace("OOPSES", str(oopses)).replace("MASK", f"{1 << cpu:x}")
        region = bytes(sizes.mem_size_bytes)
        return self._run(sizes, region, script, "write", arguments, cpus=cpu + 1)

    def _run(
        self,
        sizes: RamoopsSizes,
        region: bytes,
        script: str,
        what: str,
        arguments: str = "",
        cpus: int = 1,
    ) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        memory, initrd, dtb, log = (
            self.folder / f"{what}.{kind}" for kind in ("dram", "cpio.gz", "dtb", "log")
        )
        with memory.open("wb") as file:
            file.truncate(RAM_MIB << 20)
            file.seek(REGION_PADDR - RAM_PADDR)
            file.write(region)
        members = [one for one in entries(self.busybox.read_bytes()) if one.name != "init"]
        members.append(newc.regular("init", script.encode(), 0o755))
        initrd.write_bytes(gzip.compress(newc.archive(members), compresslevel=1))
        dtb.write_bytes(self._tree(sizes, arguments))
        log.unlink(missing_ok=True)
        command = [
            "qemu-system-aarch64",
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", "virt,gic-version=3,memory-backend=dram", "-cpu", "cortex-a57"),
            *("-smp", str(cpus), "-m", str(RAM_MIB)),
            "-object",
            f"memory-backend-file,id=dram,size={RAM_MIB}M,mem-path={memory},share=on",
            *("-kernel", str(self.image), "-initrd", str(initrd), "-dtb", str(dtb)),
            *("-serial", f"file:{log}"),
        ]
        done = subprocess.run(command, capture_output=True, timeout=_DEADLINE_S, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return memory

    def _tree(self, sizes: RamoopsSizes, arguments: str) -> bytes:
        tree = fdt.parse_dtb((self.product / "virtual.dtb").read_bytes())
        for node in list(tree.get_node("/reserved-memory").nodes):
            tree.remove_node(node.name, "/reserved-memory")
        tree.remove_node(next(n.name for n in tree.get_node("/").nodes if "sram@" in n.name))
        tree.set_property("reg", [0, RAM_PADDR, 0, RAM_MIB << 20], f"/memory@{RAM_PADDR:x}")
        ramoops = {
            "record-size": sizes.record_size_bytes,
            "panicdump-size": sizes.panicdump_size_bytes,
            "console-size": sizes.console_size_bytes,
            "pmsg-size": sizes.pmsg_size_bytes,
            "ftrace-size": sizes.ftrace_size_bytes,
            "ecc-size": sizes.ecc_size_bytes,
            "flags": int(sizes.ftrace_zones > 1),
        }
        path = f"/reserved-memory/ramoops@{REGION_PADDR:x}"
        tree.set_property("compatible", "ramoops", path)
        tree.set_property("reg", [0, REGION_PADDR, 0, sizes.mem_size_bytes], path)
        for name, value in ramoops.items():
            if value:
                tree.set_property(name, value, path)
        outbox = f"/reserved-memory/outbox@{OUTBOX_PADDR:x}"
        tree.set_property("reg", [0, OUTBOX_PADDR, 0, OUTBOX_BYTES], outbox)
        words = ["console=ttyAMA0 loglevel=1 panic=1 printk.devkmsg=on", arguments]
        tree.set_property("bootargs", " ".join(words).strip(), "/chosen")
        tree.set_property("kaslr-seed", [0x2468ACE0, 0x13579BDF], "/chosen")
        return bytes(tree.to_dtb(version=17))


def machine_of_this_build(folder: Path) -> PstoreMachine:
    """The machine with what `farm build` made last, or with the kernel that the variable names."""
    from farm.build import cache

    product = cache.root() / "virtual" / "current"
    image = Path(os.environ.get(KERNEL_VARIABLE) or product / "Image")
    return PstoreMachine(image, product, cache.root() / "busybox" / "busybox", folder)
