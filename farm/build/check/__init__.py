"""``farm kernel-check``: the series, checked the way a maintainer would.

``cli`` is the command, ``plan`` says which steps there are for a base version and in what order,
``workshop`` has the trees they work in, ``ledger`` keeps what an earlier run has proven. Each other
module is one kind of step, or a pure parser of what a tool said.
"""
