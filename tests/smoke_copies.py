"""Copies of the notebooks that run at smoke size, for nbval: python -m tests.smoke_copies FOLDER.

They keep the outputs, those of the laptop run. nbval compares the cells that must not differ.
"""

import sys

import papermill

from dmclib.reproduce.profiles import plan

for step in plan("smoke"):
    target = f"{sys.argv[1]}/{step.notebook.name}"
    papermill.execute_notebook(step.notebook, target, step.parameters, prepare_only=True)
