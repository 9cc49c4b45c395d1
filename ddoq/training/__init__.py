"""Training on a distilled set: students, protocols, views, soft labels, the weighted loss, the loop."""
