"The network that reads faces, and the weights file that says everything about it."
