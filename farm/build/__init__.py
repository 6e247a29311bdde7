"""The build stage: from the series, the base source and a board's files to bootable products.

``cli`` is the command, ``pipeline`` runs the steps in order; each other module is one step.
Nothing here knows labgrid, and nothing here is needed to collect, decode or judge.
"""
