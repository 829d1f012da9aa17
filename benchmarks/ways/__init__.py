"""One file for each way to move a file. As a program each is a pair: `serve` says `ready`, `fetch` receives.

A pair is run by `PairWay`; the few that are programs of others have a `Way` of their own.
"""
