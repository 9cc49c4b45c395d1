"""What a distilled set is worth: tables of accuracies, intervals, gradients, quality of images."""
