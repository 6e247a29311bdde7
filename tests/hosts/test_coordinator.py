"""Places that are kept, against labgrid's own coordinator and exporters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from labgrid.util.proxy import proxymanager
from labgrid.util.ssh import sshmanager

from farm.errors import BenchError, DeadlineError
from farm.hosts.coordinator import Coordinator, Hold, Kept
from tests.bench.ssh_host import ssh_host
from tests.hosts.labgrid_processes import DEADLINE_S, Lab, free_port, lab
from tests.waiting import wait_until

SERIAL = {"NetworkSerialPort": {"host": "127.0.0.1", "port": 4001, "speed": 115200}}


def made(shift_s: float = 0.0) -> Iterator[Lab]:
    with lab(shift_s) as one:
        for name in ("first", "second"):
            one.exports(f"host-{name}", {name: SERIAL}, shift_s=-shift_s)
            one.client("-p", name, "create")
            one.client("-p", name, "add-match", f"host-{name}/{name}/NetworkSerialPort")
            one.client("-p", name, "set-tags", "board=virtual", "soc=none")
        yield one


@pytest.fixture(scope="module")
def one_lab() -> Iterator[Lab]:
    yield from made()


@pytest.fixture
def two(one_lab: Lab) -> Iterator[Lab]:
    yield one_lab
    for name in ("first", "second"):
        one_lab.client("-p", name, "release", "--kick", check=False)


def held(kept: Kept) -> bool:
    return kept.standing.hold is Hold.HELD


def who(lab: Lab) -> dict[str, str]:
    """Who has which place, by labgrid's own client."""
    lines = [line.split() for line in lab.client("who").splitlines()[1:]]
    return {words[2]: f"{words[1]}/{words[0]}" for words in lines}


def test_places_and_resources_are_seen(two: Lab) -> None:
    with Coordinator(two.address) as coordinator:
        places = coordinator.places()
        assert list(places) == ["first", "second"]
        assert places["first"].tags == {"board": "virtual", "soc": "none"}
        assert places["first"].matches == ("host-first/first/NetworkSerialPort",)
        assert places["first"].acquired == places["first"].unmatched == ""
        found = {(one.exporter, one.group, one.cls) for one in coordinator.resources()}
        assert ("host-first", "first", "NetworkSerialPort") in found


def test_a_place_is_had_while_a_block_runs_and_released_whatever_ends_it(two: Lab) -> None:
    with Coordinator(two.address, mark="night-1") as coordinator:
        with coordinator.held("first", {"board": "virtual"}, wait_s=10) as kept:
            assert held(kept)
            assert who(two) == {"first": coordinator.holder}
            assert "state: acquired" in two.client("reservations")
        assert who(two) == {}
        with pytest.raises(ZeroDivisionError), coordinator.held("first", wait_s=10):
            1 / 0  # noqa: B018
        assert who(two) == {}
        coordinator.keep("second")
        wait_until(lambda: "second" in who(two), "second is had")
    assert who(two) == {}
    assert two.client("reservations").strip() == ""


def test_ctrl_c_releases(two: Lab) -> None:
    text = (
        "import sys, time\nfrom farm.hosts.coordinator import Coordinator\n"
        f"with Coordinator({two.address!r}) as one, one.held('first', wait_s=10):\n"
        "    print('had', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "had\n"
    assert "first" in who(two)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert who(two) == {}


def test_errors_say_whose_fault_it_is(two: Lab) -> None:
    with pytest.raises(BenchError, match="does not answer: nobody listens there") as caught:
        Coordinator(f"127.0.0.1:{free_port()}").__enter__()
    assert caught.value.part == "coordinator"
    with Coordinator(two.address) as coordinator:
        two.client("-p", "first", "acquire", user="bob")
        with (
            pytest.raises(DeadlineError, match="taken by bob-desk/bob"),
            coordinator.held("first", wait_s=0.5),
        ):
            pass
        assert who(two) == {"first": "bob-desk/bob"}
        with pytest.raises(DeadlineError, match="knows no place third"):
            coordinator.held("third", wait_s=0.5).__enter__()
        with pytest.raises(DeadlineError, match="it has not the tags board=other"):
            coordinator.held("second", {"board": "other"}, wait_s=0.5).__enter__()
        with pytest.raises(BenchError, match="Place third does not exist"):
            coordinator.call("SetPlaceTags", placename="third", tags={"board": "x"})
        assert "second" not in who(two)


def test_a_place_with_a_resource_that_is_refused_is_not_had(two: Lab) -> None:
    evil = {"NetworkSerialPort": {"host": "-oProxyCommand=touch /tmp/x", "port": 1}}
    exporter = two.exports("evil", {"evil": evil})
    two.client("-p", "evil", "create")
    try:
        two.client("-p", "evil", "add-match", "evil/evil/*")
        with Coordinator(two.address) as coordinator:
            kept = coordinator.keep("evil")
            wait_until(lambda: "is refused" in kept.standing.why, "it is said")
            assert who(two) == {}
    finally:
        exporter.kill()
        del two.exporters["evil"]
        two.client("-p", "evil", "delete")


def test_a_place_that_somebody_has_is_had_next(two: Lab) -> None:
    with Coordinator(two.address) as coordinator:
        two.client("-p", "first", "acquire", user="bob")
        kept = coordinator.keep("first")
        wait_until(lambda: kept.standing.taken_by == "bob-desk/bob", "bob is named")
        two.client("-p", "first", "release", user="bob")
        # It was reserved while bob had it.
        refused = two.client("-p", "first", "acquire", user="carol", check=False)
        wait_until(lambda: held(kept), f"the place is had; {refused}")


def test_a_place_that_is_taken_away_is_left_to_who_did_it(two: Lab) -> None:
    with Coordinator(two.address) as coordinator:
        kept = coordinator.keep("first")
        wait_until(lambda: held(kept), "had")
        two.client("-p", "first", "release", "--kick", user="bob")
        wait_until(lambda: "taken away" in kept.standing.why, "it is noticed")
        two.client("-p", "first", "acquire", user="bob")
        time.sleep(1)
        assert who(two) == {"first": "bob-desk/bob"}
        two.client("-p", "first", "release", user="bob")
    assert who(two) == {}


def test_what_a_controller_left_is_had_by_the_next_of_its_mark_and_by_no_other(two: Lab) -> None:
    first = Coordinator(two.address, mark="night-7").__enter__()
    had = first.keep("first")
    wait_until(lambda: held(had), "had")
    os.environ["LG_HOSTNAME"] = "elsewhere"
    try:
        with Coordinator(two.address, mark="night-8") as other:
            assert not other.is_own(first.holder)
            waits = other.keep("first")
            time.sleep(0.5)
            assert waits.standing.taken_by == first.holder
        assert who(two) == {"first": first.holder}
        # As a kill leaves it.
        first._stop()
        with Coordinator(two.address, mark="night-7") as second:
            assert second.is_own(first.holder)
            kept = second.keep("first")
            wait_until(lambda: held(kept), "taken over")
            assert who(two) == {"first": second.holder}
        assert who(two) == {}
        assert two.client("reservations").strip() == ""
    finally:
        del os.environ["LG_HOSTNAME"]


def test_a_lost_connection_is_no_break_and_a_restart_is_one(two: Lab) -> None:
    with Coordinator(two.address) as coordinator:
        kept = coordinator.keep("first")
        wait_until(lambda: held(kept), "had")
        number = kept.standing.number
        # The connection alone.
        session = coordinator._session
        assert session is not None
        coordinator._loop.call_soon_threadsafe(session.stream_call.cancel)
        wait_until(lambda: coordinator._session not in (session, None), "connected again")
        wait_until(lambda: held(kept), "had still")
        assert kept.standing.number == number
        wait_until(lambda: (two.folder / "places.yaml").is_file(), "places are saved", 20)
        two.coordinator.kill()
        wait_until(lambda: kept.standing.hold is Hold.UNSURE, "nobody knows")
        assert "does not answer" in kept.standing.why
        with pytest.raises(BenchError, match="does not answer"):
            coordinator.places()
        two.restart_coordinator()
        wait_until(lambda: held(kept) and kept.standing.number > number, "had again", 30)
        assert who(two) == {"first": coordinator.holder}
    assert who(two) == {}


@pytest.mark.parametrize("ask", [Coordinator.places, Coordinator.resources])
def test_what_was_before_is_no_answer_of_a_coordinator_that_dies_over_it(
    two: Lab, ask: Callable[[Coordinator], object]
) -> None:
    with Coordinator(two.address) as coordinator, ThreadPoolExecutor() as pool:
        assert ask(coordinator)
        wait_until(lambda: (two.folder / "places.yaml").is_file(), "places are saved", 20)
        two.coordinator.pause()
        asked = pool.submit(ask, coordinator)
        with pytest.raises(TimeoutError):
            asked.result(0.5)
        two.coordinator.kill()
        with pytest.raises(BenchError, match="does not answer"):
            asked.result(DEADLINE_S)
        two.restart_coordinator()


@pytest.mark.virtual
def test_an_ssh_connection_to_the_coordinator_that_breaks_is_made_anew(
    two: Lab, tmp_path: Path
) -> None:
    proxy = proxymanager._force_proxy
    with ssh_host(tmp_path, tmp_path) as host:
        proxymanager.force_proxy(host.name)
        try:
            with Coordinator(two.address) as coordinator:
                kept = coordinator.keep("first")
                wait_until(lambda: held(kept), "had")
                number = kept.standing.number
                for _ in range(3):
                    *ssh, name = sshmanager.get(host.name).get_prefix()
                    subprocess.run([*ssh, "-O", "exit", name], check=True)
                    wait_until(lambda: kept.standing.hold is Hold.UNSURE, "it is noticed")
                    wait_until(lambda: held(kept), "connected again", 30)
                assert kept.standing.number == number
        finally:
            proxymanager._force_proxy = proxy
            sshmanager.close_all()
    assert who(two) == {}


def test_an_exporter_that_goes_and_comes_back_is_a_break(two: Lab) -> None:
    exporter = two.exporters["host-second"]
    with Coordinator(two.address) as coordinator:
        kept = coordinator.keep("second")
        wait_until(lambda: held(kept), "had")
        number = kept.standing.number
        exporter.kill()
        wait_until(lambda: kept.standing.hold is Hold.WAITING, "its exporter is gone")
        assert "no exporter offers host-second/second/NetworkSerialPort" in kept.standing.why
        assert who(two) == {"second": coordinator.holder}
        two.exports(
            "host-second", {"second": {"NetworkSerialPort": {"host": "127.0.0.1", "port": 4002}}}
        )
        wait_until(lambda: held(kept) and kept.standing.number > number, "had again")
        (resource,) = (one for one in coordinator.resources() if one.group == "second")
        assert resource.params["port"] == 4002
        # Killed and back before anybody has looked.
        for _ in range(3):
            number = kept.standing.number
            exporter.kill()
            exporter.start()
            wait_until(lambda: held(kept) and kept.standing.number > number, "had again")  # noqa: B023
    assert who(two) == {}


def test_clocks_that_are_minutes_apart_do_not_matter() -> None:
    for one in made(shift_s=420.0):
        with Coordinator(one.address) as coordinator:
            kept = coordinator.keep("first")
            wait_until(lambda: held(kept), "had")  # noqa: B023
            one.client("-p", "second", "acquire", user="bob")
            waits = coordinator.keep("second")
            wait_until(lambda: waits.standing.taken_by, "bob has it")  # noqa: B023
            one.client("-p", "second", "release", user="bob")
            wait_until(lambda: held(waits), "had")  # noqa: B023
        assert who(one) == {}
