"""Move large files among many machines over QUIC: one UDP port, encrypted, verified, resumable."""

__version__ = "0.1.0"
