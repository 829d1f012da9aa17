"""What is shared: metainfo, its pieces and hashes, and the ways to point at it (pure)."""
