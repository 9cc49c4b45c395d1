"""The methods of distillation behind `ddoq.distill`."""
