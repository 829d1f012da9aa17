"""Parts of p2pnode that need packages which are not installed with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from p2pnode.errors import ConfigError


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Import in this block what an extra of ours brings. ConfigError that names it where that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "p2pnode").partition(".")[0]
        if package == "p2pnode":
            raise
        raise ConfigError(f"{purpose} needs {package}: pip install 'p2pnode[{name}]'") from None
