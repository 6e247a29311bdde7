"""A session with labgrid's coordinator: resources are looked at before anything is made of them.

Whoever reaches a coordinator can export resources there, and labgrid makes objects of what they
say: of any class, with host names that go to ssh as arguments. Here a resource must be of a class
that reaches its device over the network, and its words must be what they are taken for; another one
is refused, by name and with the reason.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import attr
from labgrid import Environment, target_factory
from labgrid.driver.exception import ExecutionError
from labgrid.remote.client import ClientSession, Error, ensure_event_loop
from labgrid.resource.common import NetworkResource, ResourceManager
from labgrid.resource.power import NetworkPowerPort, PDUDaemonPort
from labgrid.resource.remote import RemotePlaceManager
from labgrid.util.proxy import proxymanager

from farm.bench.hosts import is_host, link
from farm.bench.usb import BoardUsb
from farm.errors import BenchError

__all__ = [
    "DEFAULT_PORT",
    "CheckedSession",
    "address_of",
    "complaint",
    "connect",
    "reached",
    "remote_places",
]

DEFAULT_PORT = 20408
_CONNECT_DEADLINE_S = 15.0
_CLOSE_DEADLINE_S = 2.0
_CLASSES = (NetworkResource, NetworkPowerPort, PDUDaemonPort, BoardUsb)
# What a power switch's address may have filled in.
_PLACEHOLDER = re.compile(r"\{(?:index|value)\}")
_WORD = re.compile(r"(?:[A-Za-z0-9/._@:+][A-Za-z0-9 ,./:@+=#()_-]*)?")


def _bad_address(host: str) -> bool:
    """Whether a network resource's ``host`` is neither a host nor an address over HTTP."""
    if "//" not in host:
        return not is_host(host)
    url = urlsplit(_PLACEHOLDER.sub("0", host))
    try:
        wrong = url.scheme not in ("http", "https") or not is_host(url.hostname) or url.port == 0
    except ValueError:
        return True
    return wrong or "{" in _PLACEHOLDER.sub("", host) or not host.isprintable()


def complaint(cls: str, params: Mapping[str, Any]) -> str:
    """Why a resource of another host's is not taken; empty for one that is.

    ``params`` are those of labgrid's ResourceEntry, ``extra`` among them.
    """
    kind = target_factory.resources.get(cls)
    if kind is None:
        return f"there is no class of resources called {cls!r}"
    if not issubclass(kind, _CLASSES):
        return f"{cls} is not reached over the network"
    extra = params.get("extra") or {}
    proxy = extra.get("proxy")
    if extra.get("proxy_required") and not is_host(proxy):
        return f"its proxy {proxy!r} is no host"
    for name, value in [*params.items(), *extra.items()]:
        if not isinstance(value, str) or name == "proxy":
            continue
        if name == "host":
            if value and _bad_address(value):
                return f"its host {value!r} is none"
        elif not _WORD.fullmatch(value):
            return f"its {name} {value!r} holds what does not belong there"
    return ""


@attr.s(eq=False)
class CheckedSession(ClientSession):  # type: ignore[misc]  # labgrid has no types
    """labgrid's session; ``refused`` tells why, by (exporter, group, class, resource)."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.refused: dict[tuple[str, str, str, str], str] = {}

    async def on_resource_changed(
        self, exporter: str, group_name: str, resource_name: str, resource: dict[str, Any]
    ) -> None:
        """Take over what an exporter says, if it can be what it claims to be."""
        where = (exporter, group_name, resource_name)
        for key in [one for one in self.refused if (*one[:2], one[3]) == where]:
            del self.refused[key]
        if resource and (why := complaint(resource["cls"], resource["params"])):
            self.refused[exporter, group_name, str(resource["cls"]), resource_name] = why
            known = self.resources.get(exporter, {}).get(group_name, {})
            if resource_name not in known:
                return
            # Somebody may hold it already: it stays what it was, and is gone.
            resource = {**known[resource_name].data, "avail": False}
        await super().on_resource_changed(exporter, group_name, resource_name, resource)

    def get_target_resources(self, place: Any) -> dict[Any, Any]:
        """See labgrid; raises BenchError for a place that a refused resource belongs to."""
        self.check(place)
        return dict(super().get_target_resources(place))

    def check(self, place: Any) -> None:
        """Raise BenchError when a resource that is refused belongs to a place."""
        for path, why in self.refused.items():
            exporter, group, _, name = path
            if place.hasmatch(path):
                raise BenchError(
                    f"place {place.name}: the resource {name} of {exporter}/{group} is refused: "
                    f"{why}",
                    part="bench",
                    next_step=f"Look at the configuration of the exporter {exporter}.",
                )

    def disconnect(self) -> None:
        """End the session; never raises."""
        self.stopping.set()
        try:
            self.loop.run_until_complete(asyncio.wait_for(self._end(), _CLOSE_DEADLINE_S))
        except (TimeoutError, RuntimeError):
            return

    async def _end(self) -> None:
        await self.stop()
        await self.close()


def address_of(given: str = "") -> str:
    """The coordinator's HOST:PORT: ``given``, or labgrid's LG_COORDINATOR, or this host's."""
    return given or os.environ.get("LG_COORDINATOR") or f"127.0.0.1:{DEFAULT_PORT}"


def reached(address: str) -> str:
    """What gRPC connects to for a coordinator: the near end of an ssh forward if LG_PROXY is set.

    The ssh connection is made anew if it was lost. Raises BenchError for one that cannot be made,
    labgrid's ExecutionError for a forward.
    """
    link(None)
    return str(proxymanager.get_grpc_address(address, default_port=DEFAULT_PORT))


def connect(given: str = "", env: Any = None) -> CheckedSession:
    """A session with the coordinator at ``given``, through LG_PROXY if that is set.

    Raises BenchError when nobody answers there within 15 s.
    """
    address = address_of(given)
    session: CheckedSession | None = None
    try:
        there = reached(address)
        make: Any = CheckedSession
        session = make(there, ensure_event_loop(), env=env)
        assert session is not None
        session.loop.run_until_complete(asyncio.wait_for(session.start(), _CONNECT_DEADLINE_S))
    except (Error, ExecutionError, OSError, ValueError, subprocess.SubprocessError) as error:
        if session is not None:
            session.disconnect()
        raise BenchError(
            f"the coordinator at {address} does not answer: {error}",
            part="bench",
            next_step="Is it running (`labgrid-coordinator`)? One on another host is reached by "
            "LG_PROXY=HOST, over ssh.",
        ) from error
    return session


@contextmanager
def remote_places(environment: Environment, target: Mapping[str, Any]) -> Iterator[None]:
    """Let labgrid resolve the RemotePlace of ``target`` by a checked session, closed after.

    Does nothing for a target without one. Raises BenchError.
    """
    resources = target.get("resources") or {}
    named = [resources] if isinstance(resources, dict) else resources
    if not any("RemotePlace" in one for one in named if isinstance(one, dict)):
        yield
        return
    config = environment.config
    session = connect(config.get_option("coordinator_address", ""), environment)
    # As labgrid-client does it; what an earlier bench has left there is of another session.
    ResourceManager.instances.pop(RemotePlaceManager, None)
    manager = RemotePlaceManager.get()
    manager.session, manager.loop, manager.env = session, session.loop, environment
    try:
        yield
    finally:
        ResourceManager.instances.pop(RemotePlaceManager, None)
        session.disconnect()
