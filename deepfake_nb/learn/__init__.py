"From tables of faces to weights: batches, the recipe they are trained by, and learning from failures."
