"""The `ddoq` command, its options and the demo."""
