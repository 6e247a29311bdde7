"""labgrid's coordinator, for code that waits: which places there are, who has them, keeping some.

A face of labgrid's own client session, which lives in a thread and is opened again whenever it is
lost. A place that is kept is reserved, acquired when the coordinator allocates it, and had again
after whatever took it: the coordinator, which forgets at a restart who had what, or an exporter,
whose resources are others when it comes back. The coordinator alone decides who has a place.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from labgrid.remote.client import ClientSession, ServerError
from labgrid.remote.common import Reservation, ReservationState
from labgrid.remote.generated import labgrid_coordinator_pb2 as messages
from labgrid.remote.generated.labgrid_coordinator_pb2_grpc import CoordinatorStub

from farm.bench.coordinator import CheckedSession, reached
from farm.errors import BenchError, DeadlineError, plain_text
from farm.hosts.environment import Exported, exported

__all__ = ["Coordinator", "Hold", "Kept", "PlaceSeen", "Standing"]

PART = "coordinator"
_CONNECT_S = 10.0
# The longest that the coordinator itself waits for an exporter is 10 s for each resource.
_CALL_S = 60.0
_LET_GO_S = 15.0
# A reservation that nobody asks for is dropped after 60 s.
_ASK_EVERY_S = 2.0
_GIVE_WAY_S = 30.0
_AGAIN_S = (0.2, 0.5, 1.0, 2.0, 5.0)

# labgrid's own, and what keeps the connection apart.
_CHANNEL = (
    ("grpc.keepalive_time_ms", 7500),
    ("grpc.keepalive_timeout_ms", 10000),
    ("grpc.http2.ping_timeout_ms", 10000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
)

_Result = TypeVar("_Result")
Path4 = tuple[str, str, str, str]


class Hold(StrEnum):
    """Whether a place is had: UNSURE while the coordinator that knows does not answer."""

    WAITING = "waiting"
    HELD = "held"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Standing:
    """What is known of a place that is kept.

    ``number`` is another one after every break, however short: what began under one number and ends
    under the same had the place and its exporters throughout. ``why`` says what is waited for, and
    ``taken_by`` (HOST/USER) who has the place meanwhile.
    """

    hold: Hold = Hold.WAITING
    number: int = 0
    why: str = ""
    taken_by: str = ""


@dataclass(frozen=True)
class PlaceSeen:
    """A place as the coordinator tells of it; ``acquired`` is HOST/USER or empty.

    ``unmatched`` is the first of its matches that no exporter fulfils now, or empty.
    """

    name: str
    tags: Mapping[str, str]
    matches: tuple[str, ...]
    acquired: str
    unmatched: str


class _Session(CheckedSession):
    """labgrid's session, under a name of its own (HOST/USER), that tells of what changes."""

    def __init__(
        self,
        address: str,
        loop: asyncio.AbstractEventLoop,
        holder: str,
        changed: Callable[[str, Path4 | None], None],
    ) -> None:
        self._host, self._user = holder.split("/")
        self._changed = changed
        start: Any = super().__init__  # attrs makes it, which no type tells
        start(address, loop)
        # A connection of its own: the coordinator tells sessions by their connections, which gRPC
        # would share among all sessions of a process, and with one that has just ended.
        self.channel = grpc.aio.insecure_channel(address, options=_CHANNEL)
        self.stub = CoordinatorStub(self.channel)

    def gethostname(self) -> str:
        return self._host

    def getuser(self) -> str:
        return self._user

    async def on_resource_changed(
        self, exporter: str, group_name: str, resource_name: str, resource: dict[str, Any]
    ) -> None:
        group = self.resources.get(exporter, {}).get(group_name, {})
        cls = resource.get("cls") or (group[resource_name].cls if resource_name in group else "")
        await super().on_resource_changed(exporter, group_name, resource_name, resource)
        if not resource:
            # labgrid keeps an entry without a class, on which its own checks stumble.
            self.resources[exporter][group_name].pop(resource_name, None)
        self._changed("", (exporter, group_name, cls, resource_name))

    async def on_place_changed(self, place_pb2: Any) -> None:
        await super().on_place_changed(place_pb2)
        self._changed(place_pb2.name, None)

    async def on_place_deleted(self, name: str) -> None:
        await super().on_place_deleted(name)
        self._changed(name, None)

    def paths(self) -> list[Path4]:
        """All resources that exporters offer now."""
        return [
            (exporter, group_name, resource.cls, name)
            for exporter, groups in self.resources.items()
            for group_name, group in groups.items()
            for name, resource in group.items()
        ]

    def missing(self, place: Any) -> str:
        """The first match of the place that no exporter fulfils, or an empty text."""
        match = place.unmatched(self.paths())
        return "" if match is None else str(match)

    def is_whole(self, place: Any) -> bool:
        """Whether everything that the place has acquired is there, and nothing is lacking."""
        acquired = {tuple(path) for path in place.acquired_resources}
        for exporter, group, _, name in acquired:
            resource = self.resources.get(exporter, {}).get(group, {}).get(name)
            if resource is None or resource.acquired != place.name:
                return False
        if place.unmatched(acquired) is not None:
            return False
        # An exporter that starts offers one resource after the other.
        return all(path in acquired for path in self.paths() if place.hasmatch(path))


class _LostError(Exception):
    """The session ended."""


class Kept:
    """A place that is wanted until it is let go; `standing` is what is known of it now."""

    def __init__(self, place: str, filters: Mapping[str, str]) -> None:
        self.place = place
        self.standing = Standing(why="not asked for yet")
        self.filters = dict(filters)
        self.token = ""
        self.wanted = True
        self.news = asyncio.Event()
        self.left = ""

    def say(self, why: str, taken_by: str = "") -> None:
        """Say that the place is waited for, and what for."""
        # Names come from other hosts, and go to terminals.
        why, taken_by = (plain_text(words) for words in (why, taken_by))
        self.standing = replace(self.standing, hold=Hold.WAITING, why=why, taken_by=taken_by)

    def have(self, *, anew: bool) -> None:
        """Say that the place is had; ``anew``: not without a break."""
        number = self.standing.number + anew
        self.standing = Standing(Hold.HELD, number)


class Coordinator:
    """The connection to a coordinator; every place that is kept is released in the end.

    ``holder`` is the name under which places are had, HOST.MARK/USER. Whoever comes later with the
    same mark has the places that are left under it.
    """

    def __init__(self, address: str, *, mark: str = "") -> None:
        self.address = address
        self._mark = mark
        # As labgrid's own client has it.
        host, self._user = ClientSession.gethostname(None), ClientSession.getuser(None)
        self.holder = f"{host}.{mark}/{self._user}" if mark else f"{host}/{self._user}"
        self._session: _Session | None = None
        self._why = ""
        self._kept: dict[str, tuple[Kept, asyncio.Task[None]]] = {}
        self._tried = threading.Event()
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="coordinator", daemon=True)

    def is_own(self, acquired: str) -> bool:
        """Whether a place's holder has this mark: this controller, or one before it."""
        if not self._mark:
            return acquired == self.holder
        host, _, user = acquired.partition("/")
        return host.endswith(f".{self._mark}") and user == self._user

    def __enter__(self) -> Self:
        """Connect; raises BenchError (part ``coordinator``) when nobody answers there."""
        self._thread.start()
        self._tried.wait(_CONNECT_S + 1)
        if self._session is None:
            self._stop()
            raise BenchError(
                f"the coordinator {self.address} does not answer: {self._why or 'silence'}",
                part=PART,
                next_step="Is labgrid-coordinator running there, and is it the right HOST:PORT?",
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.let_go(*self._kept)
        finally:
            self._stop()

    # -- what there is

    def places(self) -> dict[str, PlaceSeen]:
        """The places by name; raises BenchError while the coordinator does not answer."""
        return self._do(self._places())

    def resources(self) -> list[Exported]:
        """What exporters offer; raises BenchError while the coordinator does not answer."""
        return self._do(self._resources())

    def call(self, method: str, **fields: Any) -> None:
        """Have the coordinator do something, by the name of its RPC; raises BenchError."""
        self._do(self._rpc(self._there(), method, **fields))

    def resources_of(self, place: str) -> list[Exported]:
        """What exporters offer for the place; raises BenchError as `resources` does."""
        return self._do(self._resources_of(place))

    def release_for(self, place: str, holder: str) -> None:
        """Release a place that ``holder`` left behind, if it has it still; raises BenchError."""
        self._do(self._release_for(place, holder))

    def is_whole(self, place: str) -> bool:
        """Ask whether the place is had, and all of its exporters are there; raises BenchError."""
        return self._do(self._is_whole(place))

    # -- places that are kept

    def keep(self, place: str, filters: Mapping[str, str] | None = None) -> Kept:
        """Have the place from when it is free until it is let go; returns at once.

        ``filters`` are tags that it must have.
        """
        return self._do(self._begin_keeping(place, filters or {}))

    def drop(self, place: str) -> None:
        """Release a place, without waiting until that is done."""

        def drop() -> None:
            if place in self._kept:
                kept, _ = self._kept[place]
                kept.wanted = False
                kept.news.set()

        self._loop.call_soon_threadsafe(drop)

    def let_go(self, *places: str) -> list[str]:
        """Release places; returns what is to be said of those that could not be."""
        try:
            return self._do(self._let_go(places), _LET_GO_S + _CALL_S)
        except BenchError as error:
            return [error.message]

    @contextmanager
    def held(
        self, place: str, filters: Mapping[str, str] | None = None, *, wait_s: float
    ) -> Iterator[Kept]:
        """Have a place while a block runs; raises DeadlineError naming who has it instead."""
        kept = self.keep(place, filters)
        try:
            self._do(self._had(kept, wait_s), wait_s + _CALL_S)
            yield kept
        finally:
            self.let_go(place)

    # -- below: in the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        # labgrid tells the root logger that the coordinator is gone; here that is told otherwise.
        logging.getLogger().addHandler(logging.NullHandler())
        self._loop.run_until_complete(self._stay_connected())
        # The loop is not closed: gRPC may still have something for it.

    def _stop(self) -> None:
        self._closing = True
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end_session)
        self._thread.join(_CONNECT_S)

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.stopping.set()

    def _do(self, work: Coroutine[Any, Any, _Result], deadline_s: float = _CALL_S) -> _Result:
        """Have the thread do it; raises BenchError."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(deadline_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise DeadlineError(
                f"an answer of {self.address}", part=PART, deadline_s=deadline_s
            ) from None
        except grpc.RpcError as error:
            details = getattr(error, "details", lambda: "")() or str(error)
            raise BenchError(
                f"the coordinator {self.address} says: {details}", part=PART
            ) from error

    async def _stay_connected(self) -> None:
        failed = 0
        while not self._closing:
            session = None
            try:
                # Making an ssh connection takes its time.
                address = await asyncio.to_thread(reached, self.address)
                session = _Session(address, asyncio.get_running_loop(), self.holder, self._changed)
                await asyncio.wait_for(session.start(), _CONNECT_S)
                self._session, failed = session, 0
                self._tried.set()
                self._wake()
                await session.stopping.wait()
            except (ServerError, TimeoutError) as error:
                self._why = (
                    f"nothing within {_CONNECT_S:g} s"
                    if isinstance(error, TimeoutError)
                    else "nobody listens there"
                )
            except Exception as error:  # whatever gRPC or a proxy makes of an address
                self._why = getattr(error, "message", str(error)) or type(error).__name__
            finally:
                self._session = None
                await self._close(session)
            for kept, _ in self._kept.values():
                if kept.standing.hold is Hold.HELD:
                    kept.standing = replace(kept.standing, hold=Hold.UNSURE, why=self._gone_text())
                elif kept.standing.hold is Hold.WAITING:
                    kept.say(self._gone_text())
            self._wake()
            if not self._closing:
                self._tried.set()
                await asyncio.sleep(_AGAIN_S[min(failed, len(_AGAIN_S) - 1)])
                failed += 1

    async def _close(self, session: _Session | None) -> None:
        if session is None:
            return
        session.stopping.set()
        with suppress(Exception):
            if session.pump_task is not None:
                await asyncio.wait_for(session.stop(), 5.0)
        with suppress(Exception):
            await session.close()

    def _gone_text(self) -> str:
        return f"the coordinator {self.address} does not answer"

    def _gone(self) -> BenchError:
        return BenchError(
            self._gone_text(), part=PART, next_step="Is labgrid-coordinator running there?"
        )

    def _there(self) -> _Session:
        session = self._session
        if session is None or session.stopping.is_set():
            raise self._gone()
        return session

    async def _rpc(self, session: _Session, method: str, **fields: Any) -> Any:
        request = getattr(messages, f"{method}Request")(**fields)
        answer = await getattr(session.stub, method)(request, timeout=_CALL_S)
        # What follows from the answer is known here only when the session has been told of it. The
        # answer of one that has ended meanwhile counts too: it may be a token.
        if not session.stopping.is_set():
            await session.sync_with_coordinator()
        return answer

    async def _up_to_date(self) -> _Session:
        """The session, once it has been told of all that there is; raises BenchError."""
        session = self._there()
        if not await session.sync_with_coordinator():
            # It knows what was before.
            raise self._gone()
        return session

    async def _places(self) -> dict[str, PlaceSeen]:
        session = await self._up_to_date()
        return {
            name: PlaceSeen(
                name=name,
                tags=dict(place.tags),
                matches=tuple(map(str, place.matches)),
                acquired=place.acquired or "",
                unmatched=session.missing(place),
            )
            for name, place in sorted(session.places.items())
        }

    async def _is_whole(self, place: str) -> bool:
        session = self._there()
        # This waits until the coordinator is through with what it does.
        await self._rpc(session, "GetPlaces")
        if session.stopping.is_set():
            raise self._gone()
        seen = session.places.get(place)
        return seen is not None and seen.acquired == self.holder and session.is_whole(seen)

    async def _release_for(self, place: str, holder: str) -> None:
        session = self._there()
        seen = session.places.get(place)
        token = seen.reservation if seen is not None else None
        await self._rpc(session, "ReleasePlace", placename=place, fromuser=holder)
        if token:
            with suppress(grpc.RpcError):
                await self._rpc(session, "CancelReservation", token=token)

    async def _resources(self) -> list[Exported]:
        return exported(await self._up_to_date())

    async def _resources_of(self, name: str) -> list[Exported]:
        session = await self._up_to_date()
        place = session.places.get(name)
        return [] if place is None else exported(session, place)

    def _changed(self, place: str, resource: Path4 | None) -> None:
        """Wake those whom a change concerns; a resource also those whose place could match it."""
        session = self._session
        if session is None:
            return
        if place:
            if place in self._kept:
                self._kept[place][0].news.set()
            return
        for name, (kept, _) in self._kept.items():
            seen = session.places.get(name)
            if seen is not None and seen.hasmatch(resource):
                kept.news.set()

    def _wake(self) -> None:
        for kept, _ in self._kept.values():
            kept.news.set()

    async def _news(self, kept: Kept, deadline_s: float = _ASK_EVERY_S) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(kept.news.wait(), deadline_s)
        kept.news.clear()

    async def _begin_keeping(self, place: str, filters: Mapping[str, str]) -> Kept:
        if place in self._kept:
            kept, _ = self._kept[place]
            if kept.wanted:
                return kept
            await self._let_go((place,))
        kept = Kept(place, filters)
        self._kept[place] = kept, asyncio.create_task(self._keep(kept), name=f"keep-{place}")
        return kept

    async def _had(self, kept: Kept, wait_s: float) -> None:
        end = self._loop.time() + wait_s
        while kept.standing.hold is not Hold.HELD:
            if self._loop.time() > end:
                raise DeadlineError(
                    f"having the place {kept.place} ({kept.standing.why})",
                    part=PART,
                    deadline_s=wait_s,
                    next_step="`labgrid-client who` tells who has which place.",
                )
            await asyncio.sleep(0.05)

    async def _let_go(self, places: tuple[str, ...]) -> list[str]:
        tasks = []
        for place in places:
            if place in self._kept:
                kept, task = self._kept[place]
                kept.wanted = False
                kept.news.set()
                tasks.append((kept, task))
        if tasks:
            _, late = await asyncio.wait([task for _, task in tasks], timeout=_LET_GO_S)
            for task in late:
                task.cancel()
        said = []
        for kept, _ in tasks:
            del self._kept[kept.place]
            if kept.left or kept.standing.hold is not Hold.WAITING:
                why = kept.left or self._gone_text()
                said.append(f"the place {kept.place} could not be released: {why}")
        return said

    async def _keep(self, kept: Kept) -> None:
        """Gain the place, watch it, gain it again; in the end release it."""
        while kept.wanted:
            try:
                await self._keep_in(self._there(), kept)
            except (BenchError, _LostError):
                await self._news(kept)
            except grpc.RpcError as error:
                await self._refused(kept, error)
        while self._has_something(kept):
            try:
                await self._release(self._there(), kept)
                return
            except (BenchError, _LostError):
                await self._news(kept)
            except grpc.RpcError as error:
                kept.left = self._details(error)
                return

    def _has_something(self, kept: Kept) -> bool:
        """Whether there is anything to release: the place, or what is reserved."""
        if kept.standing.hold is not Hold.WAITING or kept.token:
            return True
        seen = self._session.places.get(kept.place) if self._session is not None else None
        return seen is not None and seen.acquired == self.holder

    @staticmethod
    def _details(error: grpc.RpcError) -> str:
        return str(getattr(error, "details", lambda: "")() or error)

    async def _refused(self, kept: Kept, error: grpc.RpcError) -> None:
        if self._session is not None:
            kept.say(f"the coordinator refuses it: {self._details(error)}")
        await self._news(kept)

    async def _keep_in(self, session: _Session, kept: Kept) -> None:
        """As long as the session lives; returns when the place is to be let go."""
        while kept.wanted:
            if session.stopping.is_set() or session is not self._session:
                raise _LostError
            place = session.places.get(kept.place)
            if place is None:
                kept.say(f"the coordinator {self.address} knows no place {kept.place}")
            elif place.acquired != self.holder and kept.standing.hold is Hold.HELD:
                # By `labgrid-client release --kick`, and for a reason.
                kept.say(f"taken away by {place.acquired or 'somebody'}", place.acquired or "")
                await self._cancel(session, kept)
                await self._given_way(session, kept)
                continue
            elif place.acquired != self.holder:
                await self._gain(session, kept, place)
                continue
            elif session.is_whole(place):
                kept.token = place.reservation or kept.token
                # From before: this controller's own, whose connection alone was lost, or that of
                # the one before it.
                kept.have(anew=kept.standing.hold is Hold.WAITING)
            else:
                await self._complete(session, kept, place)
                continue
            await self._news(kept)

    async def _given_way(self, session: _Session, kept: Kept) -> None:
        """Leave the place to who took it away: time to acquire it."""
        end = self._loop.time() + _GIVE_WAY_S
        while kept.wanted and session is self._session and self._loop.time() < end:
            await self._news(kept)

    async def _gain(self, session: _Session, kept: Kept, place: Any) -> None:
        """A step towards having a place that is not had."""
        if place.acquired and self.is_own(place.acquired):
            # Under the same mark, on another host; what it had reserved is for that name alone.
            kept.token = place.reservation or kept.token
            await self._rpc(session, "ReleasePlace", placename=kept.place, fromuser=place.acquired)
            await self._cancel(session, kept)
            return
        reservation = await self._reservation(session, kept)
        if reservation.state is not ReservationState.allocated or place.acquired:
            if place.acquired:
                kept.say(f"taken by {place.acquired}", place.acquired)
            elif place.reservation and place.reservation != kept.token:
                kept.say("reserved by somebody else")
            elif not kept.filters.items() <= place.tags.items():
                wanted = " ".join(f"{key}={value}" for key, value in kept.filters.items())
                kept.say(f"it has not the tags {wanted}")
            else:
                kept.say("the coordinator has not allocated it yet")
            if reservation.state in (ReservationState.expired, ReservationState.invalid):
                kept.token = ""
            elif reservation.state is ReservationState.acquired:
                # Allocated to this reservation, and acquired by somebody of the same name.
                await self._cancel(session, kept)
            await self._news(kept)
            return
        try:
            session.check(place)
        except BenchError as error:
            kept.say(error.message)
            await self._news(kept)
            return
        if missing := session.missing(place):
            kept.say(f"no exporter offers {missing}")
            await self._news(kept)
            return
        kept.say("acquiring it")
        await self._acquire(session, kept)

    async def _reservation(self, session: _Session, kept: Kept) -> Any:
        if kept.token:
            try:
                answer = await self._rpc(session, "PollReservation", token=kept.token)
                return Reservation.from_pb2(answer.reservation)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                    raise
                kept.token = ""  # the coordinator was restarted
        filters = {"main": messages.Reservation.Filter(filter={**kept.filters, "name": kept.place})}
        answer = await self._rpc(session, "CreateReservation", filters=filters, prio=0.0)
        kept.token = answer.reservation.token
        return Reservation.from_pb2(answer.reservation)

    async def _acquire(self, session: _Session, kept: Kept) -> None:
        try:
            await self._rpc(session, "AcquirePlace", placename=kept.place)
        except grpc.RpcError:
            # A coordinator that was interrupted in this may have noted half of it.
            await self._rpc(session, "ReleasePlace", placename=kept.place, fromuser=self.holder)
            raise

    async def _complete(self, session: _Session, kept: Kept, place: Any) -> None:
        """Wait for an exporter that is gone, and have what it offers then."""
        # Somebody who releases the place frees its resources first. This waits until that is done.
        await self._rpc(session, "GetPlaces")
        if place.acquired != self.holder:
            return
        if missing := session.missing(place):
            kept.say(f"no exporter offers {missing} any more")
            await self._news(kept)
            return
        # The reservation keeps others out in between.
        kept.say("its exporter has come back")
        await self._rpc(session, "ReleasePlace", placename=kept.place, fromuser=self.holder)
        await self._acquire(session, kept)

    async def _release(self, session: _Session, kept: Kept) -> None:
        await self._rpc(session, "ReleasePlace", placename=kept.place, fromuser=self.holder)
        await self._cancel(session, kept)
        kept.say("let go")

    async def _cancel(self, session: _Session, kept: Kept) -> None:
        token, kept.token = kept.token, ""
        if token:
            with suppress(grpc.RpcError):  # the coordinator was restarted, or it has expired
                await self._rpc(session, "CancelReservation", token=token)
