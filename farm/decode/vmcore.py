"""Writes a dump as an ELF core that drgn, crash and gdb open.

Source: fs/proc/vmcore.c and kernel/vmcore_info.c of Linux 6.12 for what such a file has;
struct elf_prstatus of arm64, 392 bytes.
Left out: registers of processors that nothing has saved.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from farm.decode.kernel import Kernel
from farm.decode.landmarks import CHUNK_BYTES, pieces, whole_pages
from farm.decode.memory import Memory, Segment
from farm.errors import UsageError

__all__ = ["NT_PRSTATUS", "PRSTATUS_BYTES", "crash_option", "prstatus_of_cpu", "write_vmcore"]

Progress = Callable[[int, int], None]

PRSTATUS_BYTES = 392
_PR_PID_AT = 32
NT_PRSTATUS = 1
_EM_AARCH64 = 183
# e_phnum has 16 bits, all of them set stands for more, and one is for the notes.
_MAX_LOADS = 0xFFFE - 1
_WORD = (1 << 64) - 1


def _note(name: bytes, kind: int, desc: bytes) -> bytes:
    name += b"\0"
    padded = name.ljust(-(-len(name) // 4) * 4, b"\0") + desc.ljust(-(-len(desc) // 4) * 4, b"\0")
    return struct.pack("<3I", len(name), len(desc), kind) + padded


def vmcoreinfo_text(kernel: Kernel) -> bytes:
    """The text for the note; lines that debuggers need and the kernel left out are added."""
    if kernel.vmcoreinfo is None:
        return b""
    text = kernel.vmcoreinfo.text
    if not text.endswith(b"\n"):
        text += b"\n"
    if kernel.voffset is not None and "NUMBER(kimage_voffset)" not in kernel.vmcoreinfo.values:
        text += f"NUMBER(kimage_voffset)={kernel.voffset:#x}\n".encode()
    if kernel.moved is not None and "KERNELOFFSET" not in kernel.vmcoreinfo.values:
        text += f"KERNELOFFSET={kernel.moved:x}\n".encode()
    return text


def _linear(kernel: Kernel, paddr: int) -> int:
    """Virtual address of memory in the kernel's linear map; 0 if that is not known."""
    info = kernel.vmcoreinfo
    if info is None:
        return 0
    offset, bits = info.number("PHYS_OFFSET"), info.number("VA_BITS")
    if offset is None or bits is None or not 36 <= bits <= 52:
        return 0
    return (paddr - offset) & _WORD | _WORD & -(1 << bits)


def crash_option(kernel: Kernel) -> str:
    """The option that crash 8.0 wants beside the file; nothing if it wants none.

    A kernel that was built for more bits of address than the processor has gives its PHYS_OFFSET
    for the former, while crash takes it for the latter.
    """
    info = kernel.vmcoreinfo
    offset = info.number("PHYS_OFFSET") if info else None
    built, unused = (info.number("VA_BITS"), info.number("TCR_EL1_T1SZ")) if info else (None, None)
    if offset is None or built is None or unused is None or not 0 < 64 - unused < built <= 52:
        return ""
    moved = (1 << built) - (1 << 64 - unused)
    return f"--machdep phys_offset={offset + moved & _WORD:#x}"


def prstatus_of_cpu(saved: bytes, cpu: int) -> bytes:
    """NT_PRSTATUS as a dump of a machine has it: `pr_pid` is the number of the CPU and one.

    By that drgn finds it, as in what QEMU's dump-guest-memory writes.
    """
    return saved[:_PR_PID_AT] + struct.pack("<i", cpu + 1) + saved[_PR_PID_AT + 4 :]


def write_vmcore(
    memory: Memory,
    kernel: Kernel,
    out: Path,
    registers: list[bytes],
    progress: Progress | None = None,
    *,
    then: Sequence[tuple[int, bytes]] = (),
) -> int:
    """Write the core file; returns its size in bytes.

    `registers` are NT_PRSTATUS by processor, from 0 on, zeros where nothing has saved them.  `then`
    is (physical address, bytes) of what was so when they were saved, such as stacks: the kernel
    went on from there, and what memory holds now no longer fits them.  Pages of zeros become holes.
    Raises UsageError when the file exists already or cannot be written.
    """
    notes = b"".join(_note(b"CORE", NT_PRSTATUS, one) for one in registers)
    if text := vmcoreinfo_text(kernel):
        notes += _note(b"VMCOREINFO", 0, text)
    loads = _loads(memory.located)
    headers = 64 + 56 * (len(loads) + 1)
    at = whole_pages(headers + len(notes))
    head = bytearray(b"\x7fELF\2\1\1" + bytes(9))
    head += struct.pack(
        "<2HI3QI6H", 4, _EM_AARCH64, 1, 0, 64, 0, 0, 64, 56, len(loads) + 1, 0, 0, 0
    )
    head += struct.pack("<2I6Q", 4, 0, headers, 0, 0, len(notes), len(notes), 4)
    placed: dict[Segment, int] = {}
    for load in loads:
        paddr = load[0].paddr or 0
        size = load[-1].end - paddr
        vaddr = load[0].vaddr & _WORD or _linear(kernel, paddr)
        # No alignment, as in /proc/vmcore: by that crash knows such a file from a netdump.
        head += struct.pack("<2I6Q", 1, 7, at, vaddr, paddr, size, size, 0)
        placed |= {one: at + (one.paddr or 0) - paddr for one in load}
        at += whole_pages(size)
    try:
        file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}") from error
    try:
        os.pwrite(file, head + notes, 0)
        os.ftruncate(file, at)
        _copy(placed, file, progress)
        for paddr, data in then:
            for start, size, segment in memory.spans(paddr, len(data)):
                if segment is not None:
                    offset = placed[segment] + start - (segment.paddr or 0)
                    os.pwrite(file, data[start - paddr :][:size], offset)
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}") from error
    finally:
        os.close(file)
    return at


def _loads(segments: Sequence[Segment]) -> list[list[Segment]]:
    """What each PT_LOAD holds: one segment, or neighbours with the gaps between them.

    A dump without its free pages can be of more pieces than an ELF file counts. Then the smallest
    gaps are closed; they read as zeros.
    """

    def cost(index: int) -> tuple[bool, int]:
        before, after = segments[index - 1], segments[index]
        gap = (after.paddr or 0) - (before.paddr or 0)
        return after.vaddr - before.vaddr not in (0, gap), gap - before.size_bytes

    by_cost = sorted(range(1, len(segments)), key=cost)
    closed = set(by_cost[: max(0, len(segments) - _MAX_LOADS)])
    loads: list[list[Segment]] = []
    for index, segment in enumerate(segments):
        if index in closed:
            loads[-1].append(segment)
        else:
            loads.append([segment])
    return loads


def _copy(placed: dict[Segment, int], file: int, progress: Progress | None) -> None:
    buffer = mmap.mmap(-1, CHUNK_BYTES)
    zeros = bytes(CHUNK_BYTES)
    done, size_bytes = 0, sum(segment.size_bytes for segment in placed)
    for segment, at in placed.items():
        for offset, size in pieces(segment, buffer):
            view = memoryview(buffer)[:size]
            if view != zeros[:size]:
                os.pwrite(file, view, at + offset)
            if progress is not None:
                progress(done + offset + size, size_bytes)
        done += segment.size_bytes
