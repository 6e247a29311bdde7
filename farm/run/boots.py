"""Which boot the board is in: its own, or one that a scenario wanted different."""

from __future__ import annotations

from farm.bench.environment import Bench
from farm.bench.features import Features
from farm.bench.strategy import Status
from farm.scenarios import Boot


class Boots:
    """Keeps a scenario's boot options from reaching the next scenario."""

    def __init__(self) -> None:
        self._special = False
        self._features: Features | None = None

    def be_plain(self, bench: Bench) -> None:
        """Have the board at a shell, in a boot of its own; raises BenchError."""
        if self._special:
            self._special = False
            bench.boot_with(None)
            bench.power_cycle()
        else:
            bench.ensure_shell()

    def be_special(self, bench: Bench, boot: Boot) -> None:
        """Have the board at a shell, booted as ``boot`` says; raises BenchError."""
        self._special = True
        bench.boot_with(boot)
        bench.strategy.transition(Status.off)
        bench.strategy.transition(Status.shell)

    def came_back(self, boot: Boot | None, reset: str) -> None:
        """Say how a cycle ended: a reset uses a single special boot up.

        A board that survived is not as it was: what was prepared, and what the trigger did, is
        still there.
        """
        self._special = reset == "none" or (boot is not None and boot.boots > 1)

    def drop(self, bench: Bench) -> None:
        """Call off what was wanted of the next boots; the one that runs may still be special."""
        if self._special:
            bench.boot_with(None)

    def leave(self, bench: Bench) -> None:
        """Leave no special boot behind."""
        if self._special:
            self._special = False
            bench.boot_with(None)

    def features(self, bench: Bench) -> Features:
        """What the board's kernel has, asked once; raises BenchError."""
        if self._features is None:
            self._features = Features(bench.shell, bench.options.deadlines_s.script)
        return self._features
