"""The dashboards, as code: `python -m deploy.write` makes their JSON."""
