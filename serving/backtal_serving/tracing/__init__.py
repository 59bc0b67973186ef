"""Where a request's time went, told to an OTLP collector: the door's spans and the pipeline's.

    detect (the client's) -> detect (the door's) -> queue
                                                 -> triton -> pipeline -> decode, rgb, flow, ...

A span is given its parent, nothing is taken from a context that hangs in the air: the door's
requests share a thread, and the pipeline's parent comes from another process. Without a collector
in the settings nothing of OpenTelemetry is imported; a caller's trace id goes into the logs all
the same.
"""
