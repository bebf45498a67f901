"""Sphinx configuration: ``sphinx-build -W docs docs/_build``."""

project = 'tumsyn-bids'
author = 'The tumsyn-bids developers'
extensions = ['myst_parser']
exclude_patterns = ['_build']
myst_heading_anchors = 3
# Documents link to files of the repository that are not part of the site.
suppress_warnings = ['myst.xref_missing']
html_theme = 'alabaster'
