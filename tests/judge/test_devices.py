"""One rule, one test: what is said of a device."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.formats.encode import NewRegion
from farm.judge import judge
from farm.model import (
    Expect,
    FindingKind,
    ManifestDevice,
    ManifestRegion,
    OldRecord,
    Policy,
    RegionKind,
    Subject,
    Verdict,
)

from .cycles import (
    BOOT,
    NONCE,
    NOTICE,
    OTHER_BOOT,
    SEQUENCE,
    Scene,
    device,
    findings,
    flipped,
    only,
    row,
)

SAMPLE = "panicdump-sample.1"


@pytest.fixture(params=["elf", "raw"])
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(form=request.param)


def test_everything_that_arrived_whole_passes(scene: Scene) -> None:
    result = scene.judge()
    assert result.verdict is Verdict.PASS, result.why
    assert [one.device for one in result.devices] == [one.name for one in scene.devices]
    assert all(one.verdict is Verdict.PASS for one in result.devices)
    assert len(findings(result, FindingKind.INTACT)) == 3
    assert row(result, SAMPLE).data_bytes == 256
    assert row(result, SAMPLE).record_bytes == len(scene.record(2))
    assert row(result, SAMPLE).capture == "captures/pstorefs/0002.bin"
    assert result.used_bytes == 0
    assert result.capacity_bytes == 131072


def test_where_nothing_was_planted_the_line_says_that_only_the_crc_was_checked(
    scene: Scene,
) -> None:
    result = scene.judge()
    assert row(result, "ae94000.dsi.0").why.endswith("by CRC only")
    assert row(result, SAMPLE).why.endswith("equal byte by byte")
    assert "1 of them checked by CRC only" in result.why
    scene.manifest["nonce"] = None
    assert all(one.why.endswith("by CRC only") for one in scene.judge().devices)


def test_a_wrong_byte_is_named_with_region_and_offsets(scene: Scene) -> None:
    good = scene.record(2)
    planted = scene.regions(2)[0].data
    at = good.index(planted)
    scene.records[2] = flipped(good, (at + 17) * 8 + 3)
    result = scene.judge()
    assert result.verdict is Verdict.FAIL
    found = only(result, FindingKind.CORRUPT)
    assert (found.device, found.driver) == (SAMPLE, "panicdump-sample")
    assert found.evidence is not None
    assert found.evidence.file == "captures/pstorefs/0002.bin"
    assert found.evidence.region == "buf0"
    assert (found.evidence.offset, found.evidence.region_offset) == (at + 17, 17)
    assert found.evidence.wrong_bytes == 1
    assert found.evidence.expected == planted[17:25].hex(" ")
    assert found.evidence.got == bytes([planted[17] ^ 8, *planted[18:25]]).hex(" ")
    assert SAMPLE in result.why
    assert f"{at + 17:#x}" in result.why
    assert row(result, "panicdump-sample.0").verdict is Verdict.PASS


def test_wrong_content_under_a_right_crc_is_corrupt_too(scene: Scene) -> None:
    (region,) = scene.regions(2)
    wrong = region.data[:100] + b"\xff\x00" * 20 + region.data[140:]
    scene.records[2] = scene.record(2, [dataclasses.replace(region, data=wrong)])
    result = scene.judge()
    found = only(result, FindingKind.CORRUPT)
    assert "it was saved like that" in found.message
    assert found.evidence is not None
    assert found.evidence.region_offset in (100, 101)


def test_the_dump_of_another_nonce_is_corrupt(scene: Scene) -> None:
    scene.manifest["nonce"] = NONCE + 1
    result = scene.judge()
    assert row(result, SAMPLE).verdict is Verdict.FAIL
    assert row(result, "ae94000.dsi.0").verdict is Verdict.PASS


def test_a_region_that_only_its_crc_protects_is_named(scene: Scene) -> None:
    good = scene.record(7)
    at = good.index(scene.regions(7)[1].data)
    scene.records[7] = flipped(good, at * 8)
    found = only(scene.judge(), FindingKind.CORRUPT)
    assert found.evidence is not None
    assert (found.evidence.region, found.evidence.offset) == ("reg1", at)


def test_damage_outside_of_the_regions_is_corrupt(scene: Scene) -> None:
    good = scene.record(2)
    at = good.index(b"PANICDMP") + 64
    scene.records[2] = flipped(good, at * 8)
    found = only(scene.judge(), FindingKind.CORRUPT)
    assert "outside of its regions" in found.message
    assert found.evidence is not None
    assert found.evidence.offset is not None


@pytest.mark.parametrize("missing_bytes", [1, 16, 100])
def test_a_record_without_its_end_is_torn(scene: Scene, missing_bytes: int) -> None:
    scene.records[2] = scene.record(2)[:-missing_bytes]
    result = scene.judge()
    found = only(result, FindingKind.TORN)
    assert found.device == SAMPLE
    assert row(result, SAMPLE).record_bytes == len(scene.record(2)) - missing_bytes


def test_a_cut_region_is_truncated(scene: Scene) -> None:
    (region,) = scene.regions(2)
    cut = dataclasses.replace(region, data=region.data[:200], size_bytes=256, flags=1)
    scene.records[2] = scene.record(2, [cut])
    scene.outcomes[2] = (1, 0)
    found = only(scene.judge(), FindingKind.TRUNCATED)
    assert "200 of 256" in found.message
    assert found.evidence is not None
    assert (found.evidence.region_offset, found.evidence.wrong_bytes) == (200, 56)
    assert found.evidence.offset is not None
    record = scene.records[2]
    assert record is not None
    assert record[: found.evidence.offset].endswith(cut.data)


def test_a_cut_region_without_its_flag_is_truncated_too(scene: Scene) -> None:
    (region,) = scene.regions(2)
    cut = dataclasses.replace(region, data=region.data[:200], size_bytes=256)
    scene.records[2] = scene.record(2, [cut])
    assert only(scene.judge(), FindingKind.TRUNCATED).device == SAMPLE


def test_a_sample_callback_produces_all_its_bytes(scene: Scene) -> None:
    *rest, callback = scene.regions(1)
    cut = dataclasses.replace(callback, data=callback.data[:99], size_bytes=100)
    scene.records[1] = scene.record(1, [*rest, cut])
    assert only(scene.judge(), FindingKind.TRUNCATED).device == "panicdump-sample.0"


def test_another_driver_may_produce_less_than_its_maximum() -> None:
    scene = Scene(devices=[device(1, "gpu.0", "gpu", "c100")])
    (callback,) = scene.regions(1)
    scene.records[1] = scene.record(
        1, [dataclasses.replace(callback, data=callback.data[:40], size_bytes=100)]
    )
    assert scene.judge().verdict is Verdict.PASS


def test_registers_with_gaps_between_them_are_packed() -> None:
    one = device(1, "gpu.0", "gpu", "r64")
    gapped = one.regions[0].model_copy(update={"stride_bytes": 16})
    scene = Scene(devices=[one.model_copy(update={"regions": (gapped,)})])
    (region,) = scene.regions(1)
    packed = dataclasses.replace(region, data=region.data[:16], size_bytes=64)
    scene.records[1] = scene.record(1, [packed])
    assert scene.judge().verdict is Verdict.PASS
    scene.records[1] = scene.record(1, [dataclasses.replace(packed, data=region.data[:12])])
    assert only(scene.judge(), FindingKind.TRUNCATED)


def test_a_region_that_could_not_be_read_is_a_fault(scene: Scene) -> None:
    (region,) = scene.regions(2)
    hole = dataclasses.replace(region, data=bytes(256), flags=2, error=-14)
    scene.records[2] = scene.record(2, [hole], error=-14)
    scene.outcomes[2] = (1, -14)
    result = scene.judge()
    assert "-14" in only(result, FindingKind.REGION_FAULT).message
    assert findings(result, FindingKind.CORRUPT) == []


def test_a_callback_that_failed(scene: Scene) -> None:
    *rest, callback = scene.regions(1)
    failed = dataclasses.replace(callback, data=b"", size_bytes=100, flags=4, error=-5)
    scene.records[1] = scene.record(1, [*rest, failed], error=-5)
    scene.outcomes[1] = (4, -5)
    assert "-5" in only(scene.judge(), FindingKind.CALLBACK_FAILED).message


def test_a_callback_that_never_returned(scene: Scene) -> None:
    scene.records[1] = None
    scene.outcomes[1] = (6, 0)
    assert "never returned" in only(scene.judge(), FindingKind.CALLBACK_FAILED).message


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (0, FindingKind.RECORD_LOST),
        (1, FindingKind.RECORD_LOST),
        (2, FindingKind.OVERFLOW),
        (3, FindingKind.NOT_REACHED),
        (4, FindingKind.CALLBACK_FAILED),
        (5, FindingKind.WRITE_FAILED),
        (99, FindingKind.MISSING),
    ],
)
def test_the_contents_record_tells_why_a_record_is_not_there(
    scene: Scene, outcome: int, kind: FindingKind
) -> None:
    scene.records[2] = None
    scene.outcomes[2] = (outcome, 0)
    result = scene.judge()
    assert result.verdict is Verdict.FAIL
    if kind is FindingKind.RECORD_LOST:
        assert only(result, kind).device == SAMPLE
    assert [one.kind for one in result.findings if one.device == SAMPLE] == [kind]
    assert row(result, SAMPLE).verdict is Verdict.FAIL
    assert row(result, SAMPLE).record_bytes == 0


def test_what_the_panic_decides_is_not_held_against_the_registration(scene: Scene) -> None:
    """A note's size, and a buffer's place, such as that of the stack."""

    def region(index: int, name: str, kind: RegionKind, size_bytes: int) -> ManifestRegion:
        return ManifestRegion(
            index=index, name=name, kind=kind, va=0, pa=None, size_bytes=size_bytes,
            width_bytes=0, stride_bytes=0,
        )  # fmt: skip

    processor = ManifestDevice(
        id=9,
        name="cpu",
        driver="panicdump-cpu",
        priority=0,
        needed_bytes=20000,
        regions=(
            region(0, "CORE", RegionKind.NOTE, 392),
            region(1, "stack", RegionKind.BUFFER, 16384),
        ),
    )
    scene.devices.append(processor)
    saved = [
        NewRegion(name="CORE", data=b"r" * 300, kind=4, note_type=1, size_bytes=392),
        NewRegion(name="stack", data=b"s" * 1000, va=0xFFFF_8000_0123_0000, pa=0x4123_0000),
    ]
    scene.records[9] = scene.record(9, saved)
    result = scene.judge()
    assert result.verdict is Verdict.PASS, result.why
    assert row(result, "cpu").why == "intact, 2 regions by CRC only"
    moved = dataclasses.replace(saved[1], kind=3)
    scene.records[9] = scene.record(9, [saved[0], moved])
    assert "has kind 3, registered with 1" in row(scene.judge(), "cpu").why


def test_a_dump_that_was_cut_short_fails_but_what_was_saved_after_counts(scene: Scene) -> None:
    scene.contents_options = {"walk": 1}
    scene.outcomes = {2: (3, 0), 7: (3, 0)}
    scene.records = {7: None}
    result = scene.judge()
    assert result.verdict is Verdict.FAIL
    assert row(result, "panicdump-sample.1").verdict is Verdict.PASS
    assert row(result, "ae94000.dsi.0").verdict is Verdict.FAIL
    kinds = [one.subject for one in findings(result, FindingKind.NOT_REACHED)]
    assert kinds == [Subject.ZONE, Subject.DEVICE]
    # The table's own count of bytes is older than the records.
    assert result.used_bytes == sum(map(len, scene.all_files().values()))


def test_a_complete_table_that_denies_a_record_fails(scene: Scene) -> None:
    scene.outcomes = {2: (3, 0)}
    result = scene.judge()
    assert row(result, "panicdump-sample.1").verdict is Verdict.FAIL


def test_the_device_that_did_not_fit_explains_those_not_reached(scene: Scene) -> None:
    scene.records.update({2: None, 7: None})
    scene.outcomes.update({2: (2, -28), 7: (3, 0)})
    result = scene.judge()
    assert result.why.startswith(f"{SAMPLE}: it did not fit")


def test_an_outcome_that_contradicts_an_intact_record_fails(scene: Scene) -> None:
    scene.outcomes[2] = (5, -5)
    assert "contents record says" in only(scene.judge(), FindingKind.WRITE_FAILED).message


def test_a_device_that_the_contents_record_does_not_list_is_missing(scene: Scene) -> None:
    scene.records[2] = None
    scene.unlisted.add(2)
    assert "does not list it" in only(scene.judge(), FindingKind.MISSING).message


def test_a_cut_contents_record_is_said_to_be_cut(scene: Scene) -> None:
    scene.records[7] = None
    scene.unlisted.add(7)
    scene.contents_options["nr_devices"] = 3
    result = scene.judge()
    assert "cut after 2 of 3" in only(result, FindingKind.MISSING).message
    assert only(result, FindingKind.TRUNCATED).verdict is Verdict.PASS


def test_a_cut_list_alone_fails_nothing(scene: Scene) -> None:
    scene.unlisted.add(7)
    scene.contents_options["nr_devices"] = 3
    assert scene.judge().verdict is Verdict.PASS


def test_without_contents_record_a_missing_record_has_no_reason(scene: Scene) -> None:
    scene.records[2] = None
    scene.without_contents = True
    result = scene.judge()
    assert "no usable contents record" in row(result, SAMPLE).why
    kinds = {one.subject for one in findings(result, FindingKind.MISSING)}
    assert kinds == {Subject.ZONE, Subject.DEVICE}


def test_a_missing_contents_record_fails_although_all_devices_arrived(scene: Scene) -> None:
    scene.without_contents = True
    result = scene.judge()
    assert result.verdict is Verdict.FAIL
    assert only(result, FindingKind.MISSING).subject is Subject.ZONE


def test_a_damaged_contents_record_fails_and_explains_nothing(scene: Scene) -> None:
    intact = scene.all_files()["panicdump-ramoops-0"]
    scene.contents = flipped(intact, (len(intact) // 2) * 8)
    assert only(scene.judge(), FindingKind.CORRUPT).subject is Subject.ZONE
    scene.contents = intact[:-20]
    assert only(scene.judge(), FindingKind.TORN).subject is Subject.ZONE


def test_nothing_at_all_arrived(scene: Scene) -> None:
    scene.records = {one.id: None for one in scene.devices}
    scene.without_contents = True
    result = scene.judge()
    assert result.verdict is Verdict.FAIL
    assert result.why.startswith("nothing arrived")
    assert len(findings(result, FindingKind.MISSING)) == 4


def test_the_dump_of_another_boot_is_stale(scene: Scene) -> None:
    for one in scene.devices:
        scene.records[one.id] = scene.record(one.id, boot_id=OTHER_BOOT)
    scene.contents = scene.contents_record([], boot_id=OTHER_BOOT)
    result = scene.judge()
    assert result.verdict is Verdict.FAIL
    assert all(one.why.startswith("stale") for one in result.devices)
    assert str(OTHER_BOOT) in row(result, SAMPLE).why
    assert len(findings(result, FindingKind.STALE)) == 4
    assert findings(result, FindingKind.INTACT) == []


def test_a_file_that_lay_there_before_is_stale_whatever_it_says(scene: Scene) -> None:
    data = scene.record(2)
    sha256 = hashlib.sha256(data).hexdigest()
    old = OldRecord(name="panicdump-ramoops-2", size_bytes=len(data), sha256=sha256)
    scene.manifest["old_records"] = (old,)
    result = scene.judge()
    assert "lay there before" in only(result, FindingKind.STALE).message
    assert row(result, SAMPLE).verdict is Verdict.FAIL


def test_the_dump_of_an_earlier_panic_of_this_boot_is_stale(scene: Scene) -> None:
    scene.records[2] = scene.record(2, sequence=SEQUENCE)
    assert f"panic {SEQUENCE}" in only(scene.judge(), FindingKind.STALE).message


def test_an_old_file_beside_the_new_one_does_not_hide_it(scene: Scene) -> None:
    scene.files["panicdump-ramoops-9"] = scene.record(2, boot_id=OTHER_BOOT)
    result = scene.judge()
    assert row(result, SAMPLE).verdict is Verdict.PASS
    assert only(result, FindingKind.STALE).verdict is Verdict.FAIL
    assert result.verdict is Verdict.FAIL


def test_a_later_panic_than_expected_has_the_wrong_identity(scene: Scene) -> None:
    scene.records[2] = scene.record(2, sequence=SEQUENCE + 2)
    result = scene.judge()
    assert f"panic {SEQUENCE + 2}" in only(result, FindingKind.WRONG_IDENTITY).message
    assert row(result, SAMPLE).verdict is Verdict.FAIL


@pytest.mark.parametrize("byte", [24, 39, 40, 48, 80, 112])
def test_damage_in_the_identity_is_damage_not_age(scene: Scene, byte: int) -> None:
    good = scene.record(2)
    scene.records[2] = flipped(good, (good.index(b"PANICDMP") + byte) * 8)
    result = scene.judge()
    assert only(result, FindingKind.CORRUPT).device == SAMPLE
    assert findings(result, FindingKind.STALE) == []


def test_a_record_under_another_name_has_the_wrong_identity(scene: Scene) -> None:
    scene.records[2] = scene.record(2, device="panicdump-sample.8")
    assert "sample.8" in only(scene.judge(), FindingKind.WRONG_IDENTITY).message


@pytest.mark.parametrize(
    "change", [{"va": 4096}, {"kind": 3}, {"size_bytes": 300}, {"name": "x"}, {"pa": 8}]
)
def test_a_region_that_is_not_the_registered_one(
    scene: Scene, change: dict[str, int | str]
) -> None:
    (region,) = scene.regions(2)
    scene.records[2] = scene.record(2, [dataclasses.replace(region, **change)])  # type: ignore[arg-type]
    found = only(scene.judge(), FindingKind.WRONG_IDENTITY)
    assert next(iter(change)).removesuffix("_bytes") in found.message


def test_a_region_too_few_is_no_pass(scene: Scene) -> None:
    scene.records[1] = scene.record(1, scene.regions(1)[:2])
    assert "2 regions" in only(scene.judge(), FindingKind.WRONG_IDENTITY).message


def test_long_names_are_compared_as_the_kernel_cuts_them() -> None:
    one = device(1, "d" * 80, "e" * 40, "b16")
    long = one.regions[0].model_copy(update={"name": "r" * 50})
    scene = Scene(devices=[one.model_copy(update={"regions": (long,)})])
    assert scene.judge().verdict is Verdict.PASS


def test_a_record_of_no_registered_device_is_unexpected(scene: Scene) -> None:
    stranger = scene.record(2, device_id=55, driver="usb", device="1-1")
    scene.files["panicdump-ramoops-9"] = stranger
    result = scene.judge()
    assert only(result, FindingKind.UNEXPECTED).device == "1-1"
    assert row(result, "1-1").verdict is Verdict.FAIL


def test_a_second_record_of_one_device_is_unexpected(scene: Scene) -> None:
    scene.files["panicdump-ramoops-9"] = scene.record(2, time_ns=1)
    assert scene.judge().verdict is Verdict.FAIL


def test_a_listed_device_that_was_not_registered_is_unexpected(scene: Scene) -> None:
    gone = scene.devices.pop()
    full = Scene(form=scene.form).all_files()["panicdump-ramoops-0"]
    scene.contents = full
    assert gone.name in only(scene.judge(), FindingKind.UNEXPECTED).message


def test_bytes_behind_a_record_are_unexpected(scene: Scene) -> None:
    scene.records[2] = scene.record(2) + b"xyz"
    found = only(scene.judge(), FindingKind.UNEXPECTED)
    assert "3 bytes follow" in found.message


def test_a_required_driver_that_nothing_answers_to_was_never_registered(scene: Scene) -> None:
    result = scene.judge(policy=Policy(required=("panel-*", "adreno-gpu")))
    assert result.verdict is Verdict.FAIL
    assert only(result, FindingKind.NEVER_REGISTERED).driver == "adreno-gpu"
    assert row(result, "adreno-gpu").required
    assert row(result, "ae94000.dsi.0").required
    assert not row(result, SAMPLE).required
    assert "adreno-gpu" in result.why


def test_patterns_are_exact_about_case(scene: Scene) -> None:
    assert scene.judge(policy=Policy(required=("PANEL-*",))).verdict is Verdict.FAIL


def test_the_smallest_budget_that_fits_a_device_counts(scene: Scene) -> None:
    size = len(scene.record(2))
    exact = Policy(budget_bytes={"panicdump-sample": 100_000, "*sample.1": size})
    result = scene.judge(policy=exact)
    assert result.verdict is Verdict.PASS
    assert row(result, SAMPLE).budget_bytes == size
    over = Policy(budget_bytes={"panicdump-sample": 100_000, "*sample.1": size - 1})
    result = scene.judge(policy=over)
    assert only(result, FindingKind.OVER_BUDGET).device == SAMPLE


def test_all_records_together_have_a_budget(scene: Scene) -> None:
    total = sum(map(len, scene.all_files().values()))
    assert scene.judge(policy=Policy(total_budget_bytes=total)).verdict is Verdict.PASS
    result = scene.judge(policy=Policy(total_budget_bytes=total - 1))
    assert only(result, FindingKind.OVER_BUDGET).subject is Subject.ZONE


def test_a_capacity_below_the_need_is_said_but_is_no_failure(scene: Scene) -> None:
    scene.manifest["needed_bytes"] = 200_000
    result = scene.judge()
    assert result.verdict is Verdict.PASS
    assert only(result, FindingKind.OVERFLOW).verdict is Verdict.PASS


def test_ecc_is_counted_once_per_zone_and_not_per_file(scene: Scene) -> None:
    scene.notice = NOTICE.format(7, 0)
    result = scene.judge()
    assert result.verdict is Verdict.PASS
    assert result.corrected_symbols == 7
    assert only(result, FindingKind.ECC_CORRECTED).verdict is Verdict.PASS
    assert row(result, SAMPLE).record_bytes == len(scene.record(2))


def test_a_bad_block_outside_of_the_records_is_no_failure(scene: Scene) -> None:
    scene.notice = NOTICE.format(0, 2)
    result = scene.judge()
    assert result.verdict is Verdict.PASS
    assert only(result, FindingKind.ECC_UNCORRECTABLE).verdict is Verdict.PASS


def test_a_bad_block_with_a_damaged_record_is_one(scene: Scene) -> None:
    scene.notice = NOTICE.format(0, 2)
    good = scene.record(2)
    scene.records[2] = flipped(good, good.index(scene.regions(2)[0].data) * 8)
    result = scene.judge()
    assert only(result, FindingKind.ECC_UNCORRECTABLE).verdict is Verdict.FAIL
    assert only(result, FindingKind.CORRUPT).device == SAMPLE


def test_devices_are_listed_as_the_kernel_walked_them(scene: Scene) -> None:
    listed = scene.all_files()["panicdump-ramoops-0"]
    scene.contents = listed
    scene.devices.reverse()
    result = Scene.judge(scene)
    walked = [one.name for one in reversed(scene.devices)]
    assert [one.device for one in result.devices] == walked


def test_a_scenario_that_must_leave_no_record(scene: Scene) -> None:
    scene.without_contents = True
    scene.records = {one.id: None for one in scene.devices}
    assert scene.judge(expect=Expect.NONE).verdict is Verdict.PASS
    del scene.records[2]
    result = scene.judge(expect=Expect.NONE)
    assert result.verdict is Verdict.FAIL
    assert only(result, FindingKind.UNEXPECTED).device == SAMPLE
    assert row(result, "ae94000.dsi.0").verdict is Verdict.PASS
    scene.records[2] = None
    scene.without_contents = False
    assert only(scene.judge(expect=Expect.NONE), FindingKind.UNEXPECTED).subject is Subject.ZONE


def test_the_same_record_read_over_two_channels_counts_once(scene: Scene) -> None:
    cycle, read = scene.prepared()
    twice = tuple(
        capture.model_copy(update={"channel": channel})
        for channel in ("pstorefs", "ramdump")
        for capture in cycle.captures
    )
    result = judge(cycle.model_copy(update={"captures": twice}), read)
    assert result.verdict is Verdict.PASS, result.why


def test_other_files_of_pstore_are_left_alone(scene: Scene) -> None:
    scene.files["dmesg-ramoops-0"] = b"Panic#1 Part1\n"
    assert scene.judge().verdict is Verdict.PASS


def test_a_file_that_is_no_record_fails(scene: Scene) -> None:
    scene.files["panicdump-ramoops-9"] = b"nothing of the kind" * 40
    assert "no panicdump record" in only(scene.judge(), FindingKind.CORRUPT).message


def test_hostile_names_come_out_printable(scene: Scene) -> None:
    hostile = "<script>[red]\x1b[2J\n../../x\u202e"
    scene.devices[1] = device(2, hostile, "d\x07", "b256")
    scene.records[2] = None
    result = scene.judge(policy=Policy(required=("\x1b[31m",)))
    texts = [result.why]
    texts += [one.message for one in result.findings]
    texts += [text for one in result.devices for text in (one.device, one.driver, one.why)]
    assert all(text.isascii() and text.isprintable() for text in texts), texts


FORMS = st.sampled_from(["elf", "raw"])


@settings(max_examples=300, deadline=None)
@given(form=FORMS, file=st.integers(0, 3), position=st.floats(0, 1, exclude_max=True))
def test_no_flipped_bit_of_a_record_ever_passes(form: str, file: int, position: float) -> None:
    scene = Scene(form=form)
    name = f"panicdump-ramoops-{file}"
    data = scene.all_files()[name]
    scene.files[name] = flipped(data, int(position * len(data) * 8))
    result = scene.judge()
    assert result.verdict is Verdict.FAIL
    if file:
        victim = scene.devices[file - 1].name
        assert all(one.verdict is Verdict.FAIL for one in result.devices if one.device == victim)


@settings(max_examples=60, deadline=None)
@given(form=FORMS, noise=st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_noise_never_passes_and_never_raises(form: str, noise: list[bytes]) -> None:
    scene = Scene(form=form)
    for index, data in enumerate(noise):
        scene.files[f"panicdump-ramoops-{index}"] = data
    assert scene.judge().verdict is Verdict.FAIL


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(4)), damage=st.integers(0, 3))
def test_the_verdict_is_the_same_each_time_and_in_any_order(order: list[int], damage: int) -> None:
    scene = Scene()
    name = f"panicdump-ramoops-{damage}"
    scene.files[name] = flipped(scene.all_files()[name], 8 * 300)
    cycle, read = scene.prepared()
    first = judge(cycle, read)
    assert judge(cycle, read) == first
    shuffled = cycle.model_copy(update={"captures": tuple(cycle.captures[i] for i in order)})
    other = judge(shuffled, read)
    assert (other.verdict, other.devices) == (first.verdict, first.devices)


def test_the_boot_of_the_tests_is_not_the_other_one() -> None:
    assert sum(a != b for a, b in zip(BOOT.bytes, OTHER_BOOT.bytes, strict=True)) > 8
