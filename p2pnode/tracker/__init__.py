"""Who is there, where to reach them, and who has what: the memory of a node that coordinates others.

`NodeRegistry` is pure: announces and the time go in, answers come out. Nothing in it survives a restart, because
everybody announces again.
"""

from p2pnode.tracker.addresses import Address, Reach, known_addresses, reach_of, visible_addresses
from p2pnode.tracker.node_registry import LOCAL_HOST, Asker, NodeRegistry, NodeRegistryLimits
from p2pnode.tracker.piece_ranges import largest
from p2pnode.tracker.recent_askers import RecentAskers
from p2pnode.tracker.rumours import Rumours, believable

__all__ = [
    "LOCAL_HOST",
    "Address",
    "Asker",
    "NodeRegistry",
    "NodeRegistryLimits",
    "Reach",
    "RecentAskers",
    "Rumours",
    "believable",
    "known_addresses",
    "largest",
    "reach_of",
    "visible_addresses",
]
