"Forgeries made from real faces, and what the world does to pictures, so that a detector can learn from real faces alone."
