"""What is learned from answers: folds over sums that commute, without I/O."""
