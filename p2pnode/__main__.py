"""`python -m p2pnode`: the same as the command `p2pnode`."""

from p2pnode.cli.app import main

main()
