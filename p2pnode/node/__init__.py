"""The meeting place: links between nodes, what is asked over them, and the `Node` that people use."""
