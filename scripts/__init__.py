"""What `./run` does on a developer's machine: find or start the three servers, run the processes, show, test."""
