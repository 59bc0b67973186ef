"""The door's HTTP: KServe v2, `/v1`, health and metrics, one FastAPI application under uvicorn."""
