"""What the service tells Prometheus of itself: one list of metrics, three who fill it, one page.

The door counts what it decided, in its own process. The pipeline counts what it computed, in
Triton's custom families, which outlive the model's process. The process above both counts what it
had to start again, and leaves its figures in a file. The door's `/metrics` has all three, and
Triton's own.
"""
