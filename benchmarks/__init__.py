"""How fast p2pnode is beside others that move a file between two processes. Run it with `scripts/bench`.

`ways/` holds one file for each way to move it, `programs.py` runs and watches processes, `measuring.py` says
what is measured, `report.py` and `plot.py` show it.
"""
