"""Run notebooks and trainings: profiles, papermill, processes, README's tables."""
