"""What runs and watches the service elsewhere; not a part of the wheel."""
