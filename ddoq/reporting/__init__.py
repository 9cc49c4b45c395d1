"""The report: a page with the findings, figures and charts of a run."""
