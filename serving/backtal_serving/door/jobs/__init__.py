"""Jobs: requests that outlive their connection, and the process that took them."""
