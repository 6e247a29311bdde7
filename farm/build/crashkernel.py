"""The board's ``load-crash-kernel``: what kdump's user space does, with the smallest crash kernel.

Debian's kexec-tools are no static binaries, and a second Linux would have nothing to do here but
to reset the board. So the crash kernel is that one call: PSCI's SYSTEM_RESET. Source: Linux 6.12,
kernel/kexec.c (kexec_load), arch/arm64/kernel/machine_kexec.c (entered at its start, with the MMU
off); Arm DEN 0022, section 5.9.
"""

from __future__ import annotations

from farm.build import assembly

# The argument is where the memory set aside by crashkernel= begins, in hexadecimal digits.
SOURCE = """\
	.text
	.global	_start
_start:
	ldr	x9, [sp]
	cmp	x9, #2
	b.lt	fail
	ldr	x10, [sp, #16]
	mov	x11, #0
1:	ldrb	w12, [x10], #1
	cbz	w12, 3f
	sub	w13, w12, #'0'
	cmp	w13, #9
	b.ls	2f
	orr	w12, w12, #0x20
	sub	w13, w12, #('a' - 10)
	cmp	w13, #15
	b.hi	fail
2:	add	x11, x13, x11, lsl #4
	b	1b
3:	ldr	x14, =segment
	adr	x15, crash_kernel
	str	x15, [x14]
	str	x11, [x14, #16]
	mov	x0, x11
	mov	x1, #1
	mov	x2, x14
	ldr	x3, =0x00b70001
	mov	x8, #104
	svc	#0
	cbnz	x0, fail
	mov	x8, #93
	svc	#0
fail:	mov	x0, #1
	mov	x8, #93
	svc	#0
	.ltorg
	.balign	8
crash_kernel:
	ldr	w0, =0x84000009
	hvc	#0
4:	wfe
	b	4b
	.ltorg
	.balign	8
crash_kernel_end:
	.data
	.balign	8
segment:
	.quad	0
	.quad	crash_kernel_end - crash_kernel
	.quad	0
	.quad	0x1000
"""

SCRIPT = """\
#!/bin/sh
# Loads a crash kernel into what crashkernel= has set aside.
span=$(grep 'Crash kernel' /proc/iomem) || { echo 'boot with crashkernel=16M'; exit 1; }
span=${span%%-*}
kexec-load ${span##* } || { echo 'kexec_load failed'; exit 1; }
read -r loaded < /sys/kernel/kexec_crash_loaded
[ "$loaded" = 1 ]
"""


def program() -> bytes:
    """Return ``kexec-load``, a static ELF binary; raises BuildError with the assembler's words."""
    return assembly.program("kexec-load", SOURCE, "the board's crash kernel")
