"From a file, a camera or a stream to upright frames, and from frames to the clips of each person's face."
