"""The command `backtal index`."""
