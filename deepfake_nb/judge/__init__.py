"A path in, a verdict out: REAL, FAKE or INCONCLUSIVE, with the places that decided and what was not looked at."
