"""The words of the data flow: what each stage hands to the next, and what a run folder holds.

Everything here is frozen, is stored as JSON in the run folder, and knows neither board nor
labgrid: ``judge`` and ``report`` work from these alone, at any later time.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

RUN_SCHEMA_VERSION = 1


class Frozen(BaseModel):
    """Immutable, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(StrEnum):
    """What was judged: FAIL blames the kernel, ERROR the bench, SKIP neither."""

    PASS = "PASS"
    FAIL = "FAIL"
    ERROR = "ERROR"
    SKIP = "SKIP"


class RegionKind(StrEnum):
    """How the kernel gets at a region's bytes."""

    BUFFER = "buffer"
    REGISTERS = "registers"
    CALLBACK = "callback"
    NOTE = "note"


class ManifestRegion(Frozen):
    """One registered region, as the live board listed it."""

    index: int
    name: str
    kind: RegionKind
    va: int = Field(description="0 where there is none before the panic")
    pa: int | None
    size_bytes: int = Field(description="the most, where the panic decides how much there is")
    width_bytes: int
    stride_bytes: int

    @property
    def decided_in_panic(self) -> bool:
        """Whether code that runs in the panic decides where it is or how much there is."""
        return self.kind in (RegionKind.CALLBACK, RegionKind.NOTE) or not self.va


class ManifestDevice(Frozen):
    """One registered device, as the live board listed it."""

    id: int
    name: str
    driver: str
    priority: int
    needed_bytes: int = Field(description="worst-case record size incl. the backend's overhead")
    regions: tuple[ManifestRegion, ...]


class OldRecord(Frozen):
    """A file that lay in pstorefs before the panic; ``sha256`` is empty but for panicdump's."""

    name: str
    size_bytes: int
    sha256: str


class Ramoops(Frozen):
    """The region that survives the reset, as the kernel reports its parameters."""

    mem_address: int
    mem_size_bytes: int
    record_size_bytes: int
    console_size_bytes: int
    pmsg_size_bytes: int
    ftrace_size_bytes: int
    panicdump_size_bytes: int
    ecc_size_bytes: int


class Manifest(Frozen):
    """What the farm read from the live board just before the panic: the expectation."""

    board: str
    scenario: str
    nonce: int | None = Field(
        description="64-bit, planted in the sample devices; None if there are none"
    )
    boot_id: str = Field(description="panicdump's identity of this boot, RFC 4122 text")
    next_boot: bool = Field(
        default=False,
        description="the panic came in the boot after this one, before any shell: its boot id and "
        "its addresses are others, its nonce is 0",
    )
    sequence: int = Field(description="panics counted in this boot before this one")
    enabled: bool
    format: str
    on_overflow: str
    area_bytes: int
    capacity_bytes: int
    needed_bytes: int
    backend: str
    kernel_release: str
    build_id: str | None
    cmdline: str
    ramoops: Ramoops | None
    devices: tuple[ManifestDevice, ...]
    old_records: tuple[OldRecord, ...] = ()


class Capture(Frozen):
    """Raw bytes from one channel, stored before anything was decoded.

    ``path`` is relative to the cycle's folder and made by the farm; ``board_name`` is what the
    board called it and is never used as a path.
    """

    channel: str
    board_name: str
    path: str
    size_bytes: int
    sha256: str
    complete: bool = True
    note: str = ""
    paddr: int | None = None
    ground_truth: bool = Field(
        default=False, description="memory at registered addresses, to hold records against"
    )


class ChannelRead(Frozen):
    """What reading one channel cost: bytes wanted, bytes over the wire, seconds."""

    channel: str
    wanted_bytes: int
    received_bytes: int
    seconds: float


class FindingKind(StrEnum):
    """Everything that can be said of a device, a zone or a board."""

    INTACT = "intact"
    MEMORY_EQUAL = "memory equal"
    MEMORY_DIFFERS = "memory differs"
    CORRUPT = "corrupt"
    TORN = "torn"
    TRUNCATED = "truncated"
    NEVER_REGISTERED = "never registered"
    NOT_REACHED = "not reached"
    OVERFLOW = "overflow"
    CALLBACK_FAILED = "callback failed"
    REGION_FAULT = "region fault"
    WRITE_FAILED = "write failed"
    RECORD_LOST = "record lost"
    MISSING = "missing"
    STALE = "stale"
    OVER_BUDGET = "over budget"
    UNEXPECTED = "unexpected"
    WRONG_IDENTITY = "wrong identity"
    HEADER_LOST = "header lost"
    ECC_CORRECTED = "ecc corrected"
    ECC_UNCORRECTABLE = "ecc uncorrectable"
    NO_PANIC = "no panic"
    WRONG_KERNEL = "wrong kernel"
    COLD_RESET = "cold reset"
    HUNG = "hung"
    BOOT_LOOP = "boot loop"
    IN_CRASH_MODE = "in crash mode"
    SERIAL_SILENT = "serial silent"
    BENCH_LOST = "bench lost"
    CAPTURE_INCOMPLETE = "capture incomplete"
    UNSUPPORTED = "unsupported"
    CHANNELS_DISAGREE = "channels disagree"
    CHANNELS_AGREE = "channels agree"


class Blame(StrEnum):
    """Who has to act on a finding."""

    KERNEL = "kernel"
    BENCH = "bench"
    POLICY = "policy"
    UNSUPPORTED = "unsupported"


class Subject(StrEnum):
    """What a finding is about."""

    DEVICE = "device"
    ZONE = "zone"
    BOARD = "board"


class Evidence(Frozen):
    """Where to look for oneself; ``file`` is relative to the cycle's folder."""

    file: str | None = None
    offset: int | None = Field(default=None, description="bytes from the start of the file")
    region: str | None = None
    region_offset: int | None = Field(default=None, description="bytes from the region's start")
    wrong_bytes: int | None = Field(default=None, description="or missing from the offset on")
    expected: str | None = Field(default=None, description="hex or text, short")
    got: str | None = None
    console_lines: tuple[str, ...] = ()


class Finding(Frozen):
    """One specific thing that was found, with its weight in ``verdict``."""

    subject: Subject
    kind: FindingKind
    verdict: Verdict
    message: str
    device: str | None = None
    driver: str | None = None
    evidence: Evidence | None = None
    blame: Blame | None = Field(default=None, description="None where nothing is wrong")


class DeviceVerdict(Frozen):
    """One line of the table: a device, what arrived of it, and why the verdict."""

    device: str
    driver: str
    record_bytes: int = Field(description="size of the record as it lies in pstore; 0 if none")
    data_bytes: int = Field(description="region bytes in it")
    budget_bytes: int | None
    verdict: Verdict
    why: str
    capture: str | None = None
    required: bool = False


class Policy(Frozen):
    """What must be there and what it may cost.

    ``required`` holds driver or device names (shell patterns allowed); ``budget_bytes`` maps such
    patterns to the largest record allowed; ``total_budget_bytes`` bounds all records together.
    ``static`` names those whose memory nobody writes after the dump: where a channel reads it, it
    must equal the record.
    """

    required: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    budget_bytes: dict[str, int] = {}
    total_budget_bytes: int | None = None


class Expect(StrEnum):
    """Which records must follow a scenario; partial: all but its exceptions."""

    ALL = "all"
    NONE = "none"
    PARTIAL = "partial"


class ExpectedFault(Frozen):
    """Devices that must not arrive intact in a scenario.

    ``device`` is a pattern over device and driver names, ``contents`` the contents record;
    each device that it matches must show at least one of ``kinds``, and nothing else.
    """

    device: str = Field(min_length=1)
    kinds: tuple[FindingKind, ...] = Field(min_length=1)


class PanicAccount(Frozen):
    """The console's account of the panic and of how the board came back."""

    trigger: str
    panic_line: str | None = None
    signature_found: bool = False
    from_kept_log: bool = Field(
        default=False, description="the console lost it; the log that pstore kept shows it"
    )
    panic_console_lines: tuple[str, ...] = ()
    reset: str = Field(default="unknown", description="warm, cold, none, unknown")
    boot_id_after: str | None = None
    release_after: str | None = None
    build_id_after: str | None = None
    panic_to_reset_s: float | None = None
    reset_to_shell_s: float | None = None


class RecoveryStep(Frozen):
    """One step that was taken to get a board back: what, why, what came of it, what it cost."""

    step: str = Field(description="break, warm reset, power cycle, edl, power off")
    reason: str
    outcome: str
    succeeded: bool
    seconds: float


class Recovery(Frozen):
    """How a board that a cycle had left behind was brought back, step by step."""

    cycle: int
    steps: tuple[RecoveryStep, ...]


class BenchFault(Frozen):
    """A bench failure that ended a cycle early."""

    part: str
    stage: str
    message: str
    next_step: str = ""
    silent: bool = Field(default=False, description="not one byte came over the serial line")
    place: str = Field(default="", description="where the board was found then, see `farm where`")


class CycleInput(Frozen):
    """All that judging one cycle needs, beside the capture files themselves."""

    board: str
    virtual: bool
    scenario: str
    expect: Expect = Expect.ALL
    exceptions: tuple[ExpectedFault, ...] = Field(
        default=(), description="with `partial`: whose records must not be intact"
    )
    repeat: int
    manifest: Manifest | None
    panic: PanicAccount | None
    captures: tuple[Capture, ...]
    channels: tuple[ChannelRead, ...] = ()
    policy: Policy
    fault: BenchFault | None = None
    unsupported: tuple[str, ...] = Field(
        default=(), description="features that the scenario needs and the board has not"
    )


class CycleVerdict(Frozen):
    """The verdict of one cycle: one scenario, once, on one board."""

    verdict: Verdict
    why: str
    devices: tuple[DeviceVerdict, ...]
    findings: tuple[Finding, ...]
    blame: Blame | None = Field(default=None, description="None for a PASS")
    corrected_symbols: int = 0
    used_bytes: int = 0
    capacity_bytes: int = 0


class Cycle(Frozen):
    """One entry of run.json: a cycle's verdict, its cost and where its evidence lies."""

    number: int
    scenario: str
    repeat: int
    folder: str = Field(description="relative to the run's folder")
    started: str = Field(description="RFC 3339")
    stages_s: dict[str, float] = Field(description="seconds spent per stage of the data flow")
    wall_s: float
    board_s: float = Field(description="the board's own time: reset to shell plus panic to reset")
    input: CycleInput
    result: CycleVerdict


class Run(Frozen):
    """The whole of ``run.json``."""

    schema_version: int = RUN_SCHEMA_VERSION
    run_id: str
    farm_version: str
    started: str
    finished: str | None = None
    board: str
    virtual: bool
    lg_env: str
    kernel_release: str | None = None
    build_id: str | None = None
    command: tuple[str, ...]
    wall_s: float
    board_s: float
    wall_to_board: float | None
    verdict: Verdict
    totals: dict[str, int]
    planned_cycles: int = Field(description="what was asked for; fewer ran if the run ended early")
    ended_early: str = Field(default="", description="why the run ended before its last cycle")
    interrupted: bool = False
    recoveries: tuple[Recovery, ...] = ()
    cycles: tuple[Cycle, ...]


NIGHT_SCHEMA_VERSION = 1


class Purpose(StrEnum):
    """Why a cycle was run: for the plan, or to show that a board set aside can be trusted again."""

    PLAN = "plan"
    TRAINING = "training"


class NightCell(Frozen):
    """What the plan asks for once: a hole in the matrix if no cycle of it counts."""

    kernel: str = Field(description="the plan's name for it")
    board: str
    scenario: str
    channels: tuple[str, ...]
    repeat: int = Field(description="from 1")


class NightKernel(Frozen):
    """A kernel of the plan, and by what it is known again."""

    name: str
    release: str | None = None
    build_id: str | None = None
    sha256: dict[str, str] = Field(
        default={}, description="of what it was made from and what came out: config, series, image"
    )


class NightBoard(Frozen):
    """A board of the plan, or places with one description that share its cells.

    ``set_aside`` says why it, or every one of them, was not to be trusted; empty if it was.
    """

    name: str
    lg_env: str
    virtual: bool
    set_aside: str = ""


class NightPlace(Frozen):
    """A place of a labgrid coordinator, for a board's cells; ``told`` is what became of it."""

    name: str
    board: str = Field(description="whose cells are run there")
    set_aside: str = ""
    told: tuple[str, ...] = Field(
        default=(), description="when (UTC) it was taken by whom, lost, left out"
    )


class NightCycle(Frozen):
    """One cycle that was run: which cell, where its evidence lies, what came of it.

    ``run`` is the run's folder relative to the night's, ``number`` the cycle's in its run.json.
    A cell's last attempt counts; those before it were retried after an ERROR and are kept.
    """

    cell: NightCell
    place: str = Field(default="", description="where it was run, if places share the cells")
    attempt: int = Field(description="from 1")
    purpose: Purpose = Purpose.PLAN
    counts: bool
    run: str
    number: int
    started: str = Field(description="RFC 3339")
    wall_s: float
    verdict: Verdict
    blame: Blame | None
    why: str

    @property
    def seat(self) -> str:
        """Where it was run: the place, or the board that has its cells to itself."""
        return self.place or self.cell.board


class NightHole(Frozen):
    """A cell of the plan without a cycle that counts, and why."""

    cell: NightCell
    reason: str


class Night(Frozen):
    """The whole of ``night.json``; the runs that it names lie in the folder beside it."""

    schema_version: int = NIGHT_SCHEMA_VERSION
    night_id: str
    plan: str = Field(description="the plan's own name; nights of one plan are compared")
    plan_sha256: str
    farm_version: str
    started: str
    finished: str | None = None
    wall_s: float
    verdict: Verdict
    totals: dict[str, int]
    kernels: tuple[NightKernel, ...]
    boards: tuple[NightBoard, ...]
    places: tuple[NightPlace, ...] = ()
    runs: tuple[str, ...] = Field(description="run folders, relative to the night's")
    cycles: tuple[NightCycle, ...]
    holes: tuple[NightHole, ...] = ()
    ended_early: str = ""
    interrupted: bool = False
