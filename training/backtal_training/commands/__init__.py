"""The subcommands that this room registers with `backtal`."""
