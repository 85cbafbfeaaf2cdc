"""What every job shares: its log and progress, user-facing errors, memory and devices."""
