"""Methods of distillation make the images of `ddoq.distill`: a file for each, and the files that they share."""
