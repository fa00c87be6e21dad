"A verdict in words, and as a page that a journalist understands and an examiner can check."
