"""The fixture that users get from the installed plugin, also where p2pnode is not installed."""

from __future__ import annotations

from p2pnode.testing.pytest_plugin import swarm_simulation

__all__ = ["swarm_simulation"]
