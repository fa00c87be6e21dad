"From scores to figures with intervals, and from figures to a probability one may quote and a threshold one can defend."
