"The same verdicts for many at once: the web app, cameras and streams, and folders of any size."
