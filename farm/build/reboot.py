"""The board's ``reboot [MODE]``: busybox's own knows no mode, and Android's is no static binary.

The mode reaches the kernel's reboot-mode drivers: ``reboot bootloader``, ``reboot edl``. Source:
Linux 6.12, kernel/reboot.c (LINUX_REBOOT_CMD_RESTART and _RESTART2). An option, as in
``reboot -f``, is taken for none.
"""

from __future__ import annotations

from farm.build import assembly

SOURCE = """\
	.text
	.global	_start
_start:
	ldr	x9, [sp]
	mov	x3, #0
	ldr	x2, =0x01234567
	cmp	x9, #2
	b.lt	1f
	ldr	x10, [sp, #16]
	ldrb	w11, [x10]
	cmp	w11, #'-'
	b.eq	1f
	mov	x3, x10
	ldr	x2, =0xa1b2c3d4
1:	ldr	x0, =0xfee1dead
	ldr	x1, =672274793
	mov	x8, #142
	svc	#0
	mov	x0, #1
	mov	x8, #93
	svc	#0
"""


def program() -> bytes:
    """Return the program, a static ELF binary; raises BuildError with the assembler's words."""
    return assembly.program("reboot", SOURCE, "the board's reboot program")
