"""What runs in a region: the edge that carries the audio of calls. It never imports the control plane."""
