"""The stages of a run: each one reads what the one before wrote, and writes its own part of the run folder."""
