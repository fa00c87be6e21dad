"Which files there are, what is known about each, and what must never stand on both sides of a split."
