"""Who is shown what an operator looks at: no stranger, and no page of a stranger in an operator's browser."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from p2pnode.tracker.addresses import Reach, reach_of

__all__ = ["why_not_shown"]


def why_not_shown(scope: Mapping[str, Any], hosts: Collection[str], open_to_all: bool) -> str | None:
    """Why this request (an ASGI scope) is refused, in one line; None where it is not.

    A page that a browser holds for ours because its name was made to lead here (DNS rebinding) asks with that name
    as `Host`; a page of another site asks with its own `Origin`.
    """
    fields = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    host = _host_of(f"//{fields.get(b'host', '')}")
    if host not in ("localhost", *hosts) and reach_of(host) is Reach.NOWHERE:
        return "this tracker is not known by that name"
    if b"origin" in fields and fields[b"origin"].partition("://")[2] != fields[b"host"]:
        return "not for other sites"
    if not open_to_all and reach_of(scope["client"][0]) not in (Reach.MACHINE, Reach.SITE):
        return "only for the machine and the site that this tracker is on"
    return None


def _host_of(url: str) -> str:
    """The host in lower case, without a port; empty where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
