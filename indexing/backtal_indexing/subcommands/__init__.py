"""What follows `backtal index`: each a module with a docstring, `configure` and `run`."""
