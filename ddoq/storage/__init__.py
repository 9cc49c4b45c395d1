"""What is on disk: files that are whole or absent, the run folder, image folders, sealed tensors, tables."""
