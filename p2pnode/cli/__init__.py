"""The command line: parses, calls a `Node`, shows its events.

stdout is data, stderr is progress and talk. `app` knows the verbs by name and loads the one that is asked
for; each verb has a module of its own with a `command` in it. Nothing heavy is imported before that.
"""
