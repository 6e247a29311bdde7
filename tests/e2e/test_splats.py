from __future__ import annotations

import pytest

from tests.e2e.splats import beside_the_scenario, splats

PROMPT = "root@virtual:~# "


@pytest.mark.parametrize(
    "line",
    [
        "[    1.0] BUG: KASAN: slab-use-after-free in f+0x8/0x10",
        "[    1.0] WARNING: possible circular locking dependency detected",
        "[    1.0] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x8/0x10",
        "[    1.0] WARNING: suspicious RCU usage",
        "[    1.0] BUG: sleeping function called from invalid context at mm/x.c:1",
        "[    1.0] BUG: scheduling while atomic: sh/1/0x00000002",
        "[    1.0] [ BUG: Invalid wait context ]",
        "[    1.0] INFO: possible recursive locking detected",
        "[    1.0] BUG kmalloc-64 (Not tainted): Redzone overwritten",
    ],
)
def test_a_splat_is_found(line: str) -> None:
    assert splats(f"before\n{line}\nafter") == [line]


def test_an_ordinary_panic_is_none() -> None:
    text = (
        "[    0.0] rcu: RCU lockdep checking is enabled.\n"
        "[    0.0] Running RCU self tests\n"
        "[    1.0] Internal error: Oops - BUG: 00000000f2000800 [#1] PREEMPT SMP\n"
        "[    1.0] Kernel panic - not syncing: Oops - BUG: Fatal exception\n"
    )
    assert splats(text) == []


def test_what_the_scenario_does_is_left_out_and_nothing_else() -> None:
    text = "\n".join(
        [
            "[ 1.0] WARNING: before",
            f"{PROMPT}",
            f"{PROMPT}[ 2.0] lkdtm: Performing direct entry",
            "[ 2.1] BUG: KASAN: on purpose",
            "[ 2.2] Kernel panic - not syncing: KASAN",
            "[ 2.3] WARNING: in the panic path",
            "[ 0.0] WARNING: in the next boot",
        ]
    )
    assert splats(beside_the_scenario(text, PROMPT)) == [
        "[ 1.0] WARNING: before",
        "[ 2.3] WARNING: in the panic path",
        "[ 0.0] WARNING: in the next boot",
    ]


def test_a_console_without_a_panic_is_looked_at_whole() -> None:
    assert splats(beside_the_scenario(f"{PROMPT}\nWARNING: x", PROMPT)) == ["WARNING: x"]


NMI_LOCK = """[    1.0] WARNING: inconsistent lock state
[    1.0] inconsistent {INITIAL USE} -> {IN-NMI} usage.
[    1.0] ffff3a9c8298f700 (&prz->buffer_lock){-...}-{2:2}, at: buffer_size_add+0x174/0x1f4
[    1.0]  ramoops_pstore_write+0x250/0x620
[    1.0]  pstore_dump+0x2f4/0x624"""


def test_the_lock_of_the_dmesg_zone_in_an_nmi_is_not_the_series() -> None:
    assert splats(NMI_LOCK) == []
    by_us = NMI_LOCK.replace("pstore_dump", "panicdump_panic")
    assert splats(by_us) == ["[    1.0] WARNING: inconsistent lock state"]
    another = NMI_LOCK.replace("prz->buffer_lock", "psinfo->buf_lock")
    assert splats(another) == ["[    1.0] WARNING: inconsistent lock state"]


LKDTM_LOCK = """[   18.0] [ BUG: Invalid wait context ]
[   18.0] swapper/0/0 is trying to lock:
[   18.0] ffffa2fd614f3ad8 (crash_count_lock){....}-{3:3}, at: lkdtm_kprobe_handler+0x3c/0x130
[   18.0]  lkdtm_kprobe_handler+0x3c/0x130
[   18.0]  kprobe_brk_handler+0x364/0x54c"""


def test_the_lock_of_lkdtm_in_an_interrupt_is_not_the_series() -> None:
    assert splats(LKDTM_LOCK) == []
    for by_us in (
        LKDTM_LOCK.replace("kprobe_brk_handler", "panicdump_panic"),
        LKDTM_LOCK.replace("crash_count_lock", "panicdump_core.lock"),
    ):
        assert splats(by_us) == ["[   18.0] [ BUG: Invalid wait context ]"]
