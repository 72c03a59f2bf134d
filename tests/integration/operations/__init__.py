"""What those who run Mizan do: rotate the master key, watch, stop and start."""
